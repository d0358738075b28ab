//! Promise P2 through a bad network: a proxy between the devices and the relay cuts, delays, stalls and slows down what passes.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use happy_link::Event;
use happy_tests::chaos::{Chaos, Weather};
use happy_tests::phone::{Guest, Paired};
use happy_tests::process::{Home, Relay};
use happy_wire::terminal::TerminalMessage;

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

fn address(relay: &Relay) -> SocketAddr {
    ([127, 0, 0, 1], relay.port()).into()
}

#[test]
fn paced_output_arrives_byte_for_byte_with_a_cut_every_two_seconds() -> Result<()> {
    const SECONDS: u32 = 20;
    let runtime = runtime()?;
    let relay = Relay::start()?;
    let weather = Weather {
        latency: Duration::from_millis(20),
        jitter: Duration::from_millis(20),
        slice: 4096,
        ..Weather::default()
    };
    let mut chaos = runtime.block_on(Chaos::start(None, address(&relay), weather))?;
    let (machine, desk) = (Home::start(&chaos.origin())?, Home::start(&chaos.origin())?);
    machine.let_join(&desk)?;
    let name = machine.json(["daemon", "status"])?["name"].as_str().context("no name")?.to_owned();
    // A megabyte each second.
    let script =
        format!("stty -onlcr -echo; read go; for i in $(seq {SECONDS}); do seq 1000000 1131000; sleep 1; done");
    let session = machine.json(["run", "--detach", "sh", "-c", &script])?;
    let id = session["id"].as_str().context("no session")?;
    let mut attach = desk
        .command(["attach", "--machine", &name, "--lossless", id])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    attach.stdin.as_mut().context("no input")?.write_all(b"go\n")?;
    let mut output = attach.stdout.take().context("no output")?;
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).map(|_| bytes)
    });
    let mut cuts = 0;
    while !reader.is_finished() {
        std::thread::sleep(Duration::from_secs(2));
        // Every third one leaves a second path behind, and every third one leaves the device to find out by itself.
        chaos.strike();
        cuts += 1;
    }
    let bytes = reader.join().map_err(|_| anyhow::anyhow!("the reader"))??;
    ensure!(attach.wait()?.code() == Some(0), "attach ends as the program did");
    let once: String = (1_000_000..=1_131_000).map(|number| format!("{number}\n")).collect();
    let expected = once.repeat(SECONDS as usize);
    ensure!(bytes == expected.as_bytes(), "{} bytes of {}", bytes.len(), expected.len());
    ensure!(cuts >= SECONDS / 2, "{cuts} cuts");
    Ok(())
}

#[test]
fn unpaced_output_over_a_slow_line_is_a_prefix_gaps_and_snapshots_and_always_advances() -> Result<()> {
    let runtime = runtime()?;
    let relay = Relay::start()?;
    let mut chaos = runtime.block_on(Chaos::start(None, address(&relay), Weather::default()))?;
    let machine = Home::start(&chaos.origin())?;
    runtime.block_on(async {
        let mut phone = machine.let_pair("owner", "phone").await?;
        chaos.set(Weather { rate: 1_000_000, latency: Duration::from_millis(10), ..Weather::default() });
        let session = phone.create(&["sh", "-c", "stty -onlcr; exec seq 1 1000000000"]).await?;
        let mut viewer = phone.attach(session.id).await?;
        let (began, mut cut) = (Instant::now(), Instant::now());
        let (mut next, mut advanced, mut gaps, mut snapshots) = (None, Instant::now(), 0, 0);
        while began.elapsed() < Duration::from_secs(15) {
            if cut.elapsed() > Duration::from_secs(4) {
                chaos.cut();
                cut = Instant::now();
                // The channel may live on; a new one asks for what is missing.
                phone.wait_for("the link", |event| matches!(event, Event::LinkUp { .. }).then_some(())).await?;
                viewer = phone.attach(session.id).await?;
                next = None;
            }
            let channel = viewer.channel;
            let bytes = phone
                .wait_for("output", |event| match event {
                    Event::Message { channel: on, bytes, .. } if *on == channel => Some(bytes.clone()),
                    _ => None,
                })
                .await?;
            phone.handle().consumed(&phone.machine, channel, bytes.len());
            match TerminalMessage::decode(&bytes)? {
                TerminalMessage::Output { offset, bytes } => {
                    ensure!(next.is_none_or(|next| next == offset), "output at {offset} instead of {next:?}");
                    next = Some(offset + bytes.len() as u64);
                    advanced = Instant::now();
                }
                TerminalMessage::Gap { from, to } => {
                    ensure!(next.is_none_or(|next| next == from) && to > from, "a gap from {from} instead of {next:?}");
                    next = None;
                    gaps += 1;
                }
                TerminalMessage::Snapshot { offset, part, parts, .. } => {
                    if part + 1 == parts {
                        next = Some(offset);
                        snapshots += 1;
                    }
                    advanced = Instant::now();
                }
                _ => {}
            }
            ensure!(advanced.elapsed() < Duration::from_secs(5), "nothing new for {:?}", advanced.elapsed());
        }
        ensure!(gaps > 0 && snapshots > gaps, "{gaps} gaps, {snapshots} snapshots");
        phone.call(happy_rpc::SessionKill { session: session.id }).await?;
        Ok(())
    })
}

#[test]
fn links_are_back_soon_after_the_relay_is() -> Result<()> {
    const KILLS: usize = 10;
    let runtime = runtime()?;
    let mut relay = Relay::start()?;
    let machine = Home::start(&relay.origin())?;
    runtime.block_on(async {
        let mut phone = machine.let_pair("owner", "phone").await?;
        phone.wait_for("the link", |event| matches!(event, Event::LinkUp { .. }).then_some(())).await.ok();
        let mut took = Vec::new();
        for _ in 0..KILLS {
            tokio::task::block_in_place(|| relay.kill_and_restart())?;
            let began = Instant::now();
            phone.wait_for("the link to be back", |event| matches!(event, Event::LinkUp { .. }).then_some(())).await?;
            took.push(began.elapsed());
        }
        took.sort();
        println!("links were back after {took:?}");
        ensure!(took[KILLS - 1] < Duration::from_millis(2200), "{took:?}");
        Ok(())
    })
}

/// A machine that is half a second from its relay, and invites.
fn far_machine(relay: &Relay, runtime: &tokio::runtime::Runtime) -> Result<(Chaos, Home)> {
    let weather = Weather { latency: Duration::from_millis(250), ..Weather::default() };
    let chaos = runtime.block_on(Chaos::start(None, address(relay), weather))?;
    let machine = Home::start(&chaos.origin())?;
    Ok((chaos, machine))
}

#[test]
fn who_answers_an_invitation_at_once_is_let_in() -> Result<()> {
    let runtime = runtime()?;
    let relay = Relay::start()?;
    let (_chaos, machine) = far_machine(&relay, &runtime)?;
    let (mut pair, link) = machine.invite("owner")?;
    // The phone is next to the relay: a link that is shown before the relay knows of it would be scanned 250 ms too early.
    runtime.block_on(async {
        let mut guest = Guest::scan_from(&link, "phone", &relay.origin())?;
        let code = guest.code().await?;
        ensure!(guest.refusals() == 0, "the relay did not know the ticket");
        pair.wait_for("code_wanted")?;
        pair.say(&code)?;
        ensure!(matches!(guest.outcome().await?, Paired::Yes(_)), "not paired");
        Ok(())
    })
}

#[test]
fn a_pairing_goes_on_when_the_relay_restarts_and_the_guest_is_back_before_the_machine() -> Result<()> {
    let runtime = runtime()?;
    let mut relay = Relay::start()?;
    let (_chaos, machine) = far_machine(&relay, &runtime)?;
    let (mut pair, link) = machine.invite("owner")?;
    runtime.block_on(async {
        let mut guest = Guest::scan_from(&link, "phone", &relay.origin())?;
        let code = guest.code().await?;
        pair.wait_for("code_wanted")?;
        relay.kill_and_restart()?;
        pair.say(&code)?;
        ensure!(matches!(guest.outcome().await?, Paired::Yes(_)), "not paired");
        Ok(())
    })
}
