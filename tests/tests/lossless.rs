//! Promise P2 between machines: output arrives byte for byte, whatever happens to the relay.

use std::io::Read;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use happy_tests::process::{Home, Relay};
use sha2::{Digest, Sha256};

/// 12,700,000 numbered lines are 100.5 MB.
const LAST: &str = "12700000";
const KILLS: u64 = 5;

#[test]
fn a_hundred_megabytes_survive_five_deaths_of_the_relay() -> Result<()> {
    let mut relay = Relay::start()?;
    let (machine, desk) = (Home::start(&relay.origin())?, Home::start(&relay.origin())?);
    machine.let_join(&desk)?;
    let name = machine.json(["daemon", "status"])?["name"].as_str().context("no name")?.to_owned();

    // The program waits for a word, so that nothing is printed before somebody looks.
    let script = format!("read go; seq 1 {LAST}");
    let session = machine.json(["run", "--detach", "sh", "-c", &script])?;
    let id = session["id"].as_str().context("no session")?;

    let mut attach = desk
        .command(["attach", "--machine", &name, "--lossless", id])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    std::io::Write::write_all(attach.stdin.as_mut().context("no input")?, b"go\n")?;
    let mut output = attach.stdout.take().context("no output")?;

    let (mut got, mut bytes, mut kills) = (Sha256::new(), 0_u64, 0_u64);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let n = output.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        got.update(&buffer[..n]);
        bytes += n as u64;
        if kills < KILLS && bytes > (kills + 1) * 15_000_000 {
            relay.kill_and_restart()?;
            kills += 1;
        }
    }
    let ended = attach.wait()?;
    let mut words = String::new();
    attach.stderr.take().context("no words")?.read_to_string(&mut words)?;
    assert_eq!(ended.code(), Some(0), "attach ends as the program did: {words}");
    assert_eq!(kills, KILLS, "only {bytes} bytes came");

    // What the terminal makes of it: our own word echoed, and a carriage return before every line feed.
    let mut expected = Sha256::new();
    let mut expected_bytes = 4_u64;
    expected.update(b"go\r\n");
    let seq = Command::new("seq").args(["1", LAST]).output()?.stdout;
    for line in seq.split_inclusive(|&byte| byte == b'\n') {
        expected.update(&line[..line.len() - 1]);
        expected.update(b"\r\n");
        expected_bytes += line.len() as u64 + 1;
    }
    assert_eq!(bytes, expected_bytes);
    assert!(expected_bytes > 100_000_000, "{expected_bytes}");
    assert_eq!(got.finalize(), expected.finalize());
    Ok(())
}
