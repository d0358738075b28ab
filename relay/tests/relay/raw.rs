//! A client that writes bytes, for what no websocket library would send.

use happy_wire::Code;
use happy_wire::relay::{FromRelay, PATH, SUBPROTOCOL};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Device, soon};

/// A websocket frame with this first byte, and a masking key that changes something.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 | short as u8),
        long => {
            // Nothing in these tests is longer than 2^32.
            bytes.extend_from_slice(if long < 65_536 { &[0xfe][..] } else { &[0xff, 0, 0, 0, 0] });
            let skip = if long < 65_536 { 2 } else { 0 };
            bytes.extend_from_slice(&(long as u32).to_be_bytes()[skip..]);
        }
    }
    put_masked(&mut bytes, payload);
    bytes
}

/// The same with a length of the caller's choice.
pub fn frame_of(first: u8, length: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&[first], length].concat();
    put_masked(&mut bytes, payload);
    bytes
}

fn put_masked(bytes: &mut Vec<u8>, payload: &[u8]) {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    bytes.extend_from_slice(&KEY);
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// A request for the websocket at this host, with more header lines.
pub fn upgrade(host: impl std::fmt::Display, more: &str) -> String {
    format!(
        "GET {PATH} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n{more}\r\n"
    )
}

/// How the relay ended a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    /// Of its last Goaway.
    pub goaway: Option<Code>,
    /// Of its Close; some when there was one.
    pub close: Option<Option<u16>>,
}

pub struct Raw {
    pub tcp: TcpStream,
    read: Vec<u8>,
    name: String,
}

impl Raw {
    pub async fn open(address: SocketAddr) -> Self {
        Self { tcp: TcpStream::connect(address).await.unwrap(), read: Vec::new(), name: address.to_string() }
    }

    /// Sends a request for the websocket and gives the head of the answer.
    pub async fn upgrade(&mut self) -> String {
        self.write(upgrade(&self.name, "").as_bytes()).await;
        let head = self.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        head
    }

    /// The head of an answer; empty when the relay closes without one.
    pub async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.read.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            if !self.fill().await {
                return String::new();
            }
        }
    }

    /// The relay may close before everything was written, so errors are for the reader to see.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = soon("a write", self.tcp.write_all(bytes)).await;
    }

    async fn fill(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let count = soon("bytes of the relay", self.tcp.read(&mut bytes)).await.unwrap_or(0);
        self.read.extend_from_slice(&bytes[..count]);
        count > 0
    }

    /// The next websocket frame: its first byte and its payload. None when the connection has ended.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let (head, length) = match *self.read {
                [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
                [_, short @ 0..=125, ..] => (2, usize::from(short)),
                [_, other, ..] => panic!("the relay sends no such length: {other}"),
                _ => (2, 0),
            };
            if self.read.len() >= head + length {
                let frame: Vec<u8> = self.read.drain(..head + length).collect();
                return Some((frame[0], frame[head..].to_vec()));
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    pub async fn challenge(&mut self) -> [u8; 32] {
        let (_, payload) = self.frame().await.unwrap();
        let Ok(FromRelay::Challenge { nonce }) = FromRelay::decode(&payload) else { panic!("{payload:?}") };
        nonce
    }

    pub async fn log_in(&mut self, device: &Device) {
        let nonce = self.challenge().await;
        let login = device.login(&self.name, &nonce, None);
        self.write(&frame(0x82, &login)).await;
        let (_, payload) = self.frame().await.unwrap();
        assert!(matches!(FromRelay::decode(&payload), Ok(FromRelay::Welcome { .. })), "{payload:?}");
    }

    /// Whether the relay answers a Ping on this connection, as on any that is well.
    pub async fn is_well(&mut self) -> bool {
        self.write(&frame(0x82, &[0x06, 0, 0, 0, 0, 0, 0, 0, 77])).await;
        while let Some((_, payload)) = self.frame().await {
            if FromRelay::decode(&payload) == Ok(FromRelay::Pong(77)) {
                return true;
            }
        }
        false
    }

    /// Reads until the relay closes the connection.
    pub async fn end(&mut self) -> End {
        let mut end = End { goaway: None, close: None };
        while let Some((first, payload)) = self.frame().await {
            assert_eq!(end.close, None, "nothing comes after Close");
            match first {
                0x82 => {
                    if let Ok(FromRelay::Goaway { code, .. }) = FromRelay::decode(&payload) {
                        end.goaway = Some(code);
                    }
                }
                0x88 => end.close = Some(payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
                0x8a => {}
                other => panic!("a frame of kind {other:#x}"),
            }
        }
        end
    }
}
