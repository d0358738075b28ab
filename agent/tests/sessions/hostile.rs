//! What may come over the holder's socket, and must not hurt.

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use happy::holder::protocol::{Attach, MAX_FRAME, Refusal, VERSION, kind, refusal};
use happy_wire::terminal::TerminalMessage;
use uuid::Uuid;

use crate::support::*;

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    [&((body.len() as u32 + 1).to_be_bytes())[..], &[kind], body].concat()
}

fn attach() -> Vec<u8> {
    let attach = Attach {
        viewer: Uuid::new_v4(),
        writer: Uuid::new_v4(),
        name: "raw".into(),
        from: None,
        scrollback: u32::MAX,
        lossless: false,
        credit: false,
        cols: 0,
        rows: u16::MAX,
        take_control: false,
    };
    frame(kind::ATTACH, &[&[VERSION], &serde_json::to_vec(&attach).unwrap()[..]].concat())
}

/// Sends, and returns all frames until the holder closes.
fn answer(socket: &std::path::Path, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // The holder may have closed before all of it was written.
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let mut frames = Vec::new();
    while let Some(length) = all.first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        assert!(length <= MAX_FRAME && all.len() >= 4 + length);
        frames.push(all[4..4 + length].to_vec());
        all.drain(..4 + length);
    }
    frames
}

#[tokio::test]
async fn the_socket_is_this_users_only() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("cat")).await.unwrap();
    assert_eq!(std::fs::metadata(home.socket(session.id)).unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(home.session_dir(session.id).path()).unwrap().mode() & 0o777, 0o700);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_out_of_place_are_refused_with_a_sentence() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("cat")).await.unwrap();
    let mut witness = Glass::attach(&sessions, from_start(&session)).await;
    let socket = home.socket(session.id);
    let then = |first: Vec<u8>, second: Vec<u8>| [first, second].concat();
    let control = || frame(kind::CONTROL, &[VERSION]);
    for (bytes, wanted) in [
        (frame(kind::TERMINAL, b""), "begins with"),
        (frame(0x77, b"x"), "begins with"),
        (frame(kind::ATTACH, b""), "no version"),
        (frame(kind::ATTACH, b"\x02{}"), "version 2"),
        (frame(kind::ATTACH, b"\x01{}"), "cannot be read"),
        (frame(kind::ATTACH, b"\x01\xff"), "cannot be read"),
        (frame(kind::CONTROL, b"\x09"), "version 9"),
        (frame(kind::CONTROL, b""), "no version"),
        (then(attach(), frame(kind::TERMINAL, b"")), "cut short"),
        (then(attach(), frame(kind::TERMINAL, b"\x99\0\0\0\0\0\0\0\0")), "unknown"),
        (
            then(attach(), frame(kind::TERMINAL, &TerminalMessage::InputTaken { offset: 0 }.to_vec())),
            "only what a viewer sends",
        ),
        (then(attach(), frame(kind::TERMINAL, &TerminalMessage::Drawn { offset: 0 }.to_vec())), "nothing but Input"),
        (
            then(attach(), frame(kind::TERMINAL, &TerminalMessage::Input { offset: 1, bytes: b"x" }.to_vec())),
            "expected at offset 0",
        ),
        (then(attach(), frame(kind::TERMINAL, &[&[0x11][..], &[0xff; 9]].concat())), "offset"),
        (then(attach(), vec![0, 0, 0, 0]), "0 bytes"),
        (then(attach(), vec![0xff; 4]), "4294967295 bytes"),
        (then(control(), vec![0xff; 4]), "4294967295 bytes"),
    ] {
        let frames = answer(&socket, &bytes);
        let last = frames.last().unwrap_or_else(|| panic!("{bytes:?} got no answer"));
        assert_eq!(last[0], kind::REFUSED, "{bytes:?}");
        let refused: Refusal = serde_json::from_slice(&last[1..]).unwrap();
        assert_eq!(refused.code, refusal::MALFORMED);
        assert!(refused.message.contains(wanted), "{refused} instead of {wanted}");
    }
    // On a control connection an unknown request is answered and the connection goes on.
    let mut stream = UnixStream::connect(&socket).unwrap();
    let requests = [
        frame(kind::REQUEST, br#"{"do":"fly"}"#),
        frame(kind::REQUEST, b"\xff"),
        frame(0x66, b""),
        frame(kind::REQUEST, br#"{"do":"kill","signal":4000000000}"#),
        frame(kind::REQUEST, br#"{"do":"resize","viewer":"00000000-0000-0000-0000-000000000000","cols":1,"rows":1}"#),
        frame(kind::REQUEST, br#"{"do":"status","later":1}"#),
    ];
    stream.write_all(&[control(), requests.concat()].concat()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let text = String::from_utf8_lossy(&all);
    assert_eq!(text.matches(r#"{"error":"#).count(), 5, "{text}");
    assert_eq!(text.matches(r#"{"ok":"#).count(), 1, "{text}");
    assert_eq!((text.matches("501").count(), text.matches("404").count()), (3, 1), "{text}");

    witness.type_in(b"\x04").await;
    witness.until_exit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_harms_nobody() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("cat")).await.unwrap();
    let mut witness = Glass::attach(&sessions, from_start(&session)).await;
    let socket = home.socket(session.id);
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..400 {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let mut bytes = if round % 2 == 0 { attach() } else { frame(kind::CONTROL, &[VERSION]) };
        for _ in 0..next() % 20 {
            let body: Vec<u8> = (0..next() % 40).map(|_| next() as u8).collect();
            bytes.extend(frame((next() % 6) as u8, &body));
        }
        let flip = (next() as usize) % bytes.len();
        bytes[flip] ^= 1 << (next() % 8);
        bytes.truncate(bytes.len() - (next() as usize) % 3);
        let _ = stream.write_all(&bytes);
    }
    witness.type_in(b"still alive\n").await;
    witness.until_text("still alive").await;
    assert!(home.status(session.id).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_are_closed_and_bounded() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("cat")).await.unwrap();
    let socket = home.socket(session.id);
    let silent: Vec<_> = (0..300).filter_map(|_| UnixStream::connect(&socket).ok()).collect();
    let begun = Instant::now();
    let mut first = &silent[0];
    first.set_read_timeout(Some(DEADLINE)).unwrap();
    // Unlike `read` this goes on after a signal, of which a runtime with children has many.
    assert_eq!(first.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert!(begun.elapsed() < Duration::from_secs(20));
    // The daemon's own connection was there all the time, and new ones are served again.
    assert_eq!(sessions.list().await.len(), 1);
    soon("a free place", async { while sessions.attach(from_start(&session)).await.is_err() {} }).await;
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.type_in(b"hello\n").await;
    glass.until_text("hello\r\nhello").await;
}
