//! One end of the load: a device at one of the servers, with as little of its own as possible, so that it is the server that is measured.
//!
//! Logging in waits; what follows does not. Frames to send are prepared once, masked as a websocket client must, and written from there.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use happy_crypto::{DeviceId, Identity};
use happy_link::driver::rng;
use happy_wire::relay::{Credential, FromRelay, LOGIN_LABEL, PATH, SUBPROTOCOL, ToRelay, login_message};
use rustls::ClientConnection;

use super::server::{Kind, NAME, Server, Target};

/// How long an answer may take while logging in.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is read at once, into a place that all devices share.
pub const SCRATCH: usize = 1024 * 1024;
const MASK: [u8; 4] = [0x5a, 0x17, 0xc3, 0x88];
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;

/// What came for a device.
#[derive(Default, Clone, Copy, Debug)]
pub struct Came {
    /// Payloads.
    pub payloads: u64,
    /// Frames of its own that were not delivered.
    pub refused: u64,
}

/// A device that has logged in.
pub struct Device {
    pub key: [u8; 32],
    kind: Kind,
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// The beginning of a frame that has not come whole.
    rest: Vec<u8>,
    /// Answers to the relay that the socket has not taken, and TLS that has not gone out.
    answers: Vec<u8>,
}

/// Frames to one receiver, ready to be written from any place among them.
pub struct Prepared {
    bytes: Vec<u8>,
    frame: usize,
}

impl Prepared {
    /// The length of one, bytes.
    pub fn frame(&self) -> usize {
        self.frame
    }

    /// `length` bytes of the endless row of frames, from `position`; fewer when they are not prepared.
    pub fn row(&self, position: usize, length: usize) -> &[u8] {
        let begin = position % self.frame;
        let end = (begin + length).min(self.bytes.len());
        self.bytes.get(begin..end).unwrap_or_default()
    }
}

impl Device {
    /// Connects and logs in.
    pub fn connect(server: &Server) -> Result<Device> {
        let target = &server.target;
        let identity = Identity::generate(&mut rng());
        Self::connect_as(target, &identity, TcpStream::connect(("127.0.0.1", target.port))?)
    }

    /// The same over a socket that exists.
    pub fn connect_as(target: &Target, identity: &Identity, tcp: TcpStream) -> Result<Device> {
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        let tls = match &target.tls {
            Some(tls) => Some(Box::new(ClientConnection::new(tls.clone(), NAME.try_into()?)?)),
            None => None,
        };
        let key = *identity.device_id().as_bytes();
        let mut device = Device { key, kind: target.kind, tcp, tls, rest: Vec::new(), answers: Vec::new() };
        match target.kind {
            Kind::Tcp => device.write_all(&key)?,
            Kind::Websocket => {
                device.upgrade("/")?;
                device.write_all(&masked(&key))?;
            }
            Kind::Relay | Kind::RelayTls => {
                device.upgrade(PATH)?;
                device.log_in(identity)?;
            }
            Kind::Redis => {}
        }
        if matches!(target.kind, Kind::Tcp | Kind::Websocket) {
            // What a bare server says once it knows the device.
            device.message()?;
        }
        device.tcp.set_read_timeout(None)?;
        device.tcp.set_nonblocking(true)?;
        Ok(device)
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.tls {
            None => self.tcp.write_all(bytes)?,
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.tcp).write_all(bytes)?,
        }
        Ok(())
    }

    /// Waits for more bytes.
    fn read_more(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        let read = match &mut self.tls {
            None => self.tcp.read(&mut buffer)?,
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.tcp).read(&mut buffer)?,
        };
        ensure!(read > 0, "the server closed the connection");
        self.rest.extend_from_slice(&buffer[..read]);
        Ok(())
    }

    fn upgrade(&mut self, path: &str) -> Result<()> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n",
            if self.kind.is_relay() { format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n") } else { String::new() }
        );
        self.write_all(request.as_bytes())?;
        loop {
            if let Some(end) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.rest.drain(..end + 4).collect();
                ensure!(head.starts_with(b"HTTP/1.1 101"), "no upgrade: {}", String::from_utf8_lossy(&head));
                return Ok(());
            }
            self.read_more()?;
        }
    }

    /// Waits for one message.
    fn message(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some((body, end)) = self.frame(&self.rest)? {
                let message = self.rest.get(body..end).unwrap_or_default().to_vec();
                self.rest.drain(..end);
                return Ok(message);
            }
            self.read_more()?;
        }
    }

    fn log_in(&mut self, identity: &Identity) -> Result<()> {
        let challenge = self.message()?;
        let FromRelay::Challenge { nonce } = FromRelay::decode(&challenge)? else { bail!("no challenge") };
        let (device, epoch, client_nonce, credential) = (identity.device_id(), 1, [7; 16], Credential::None);
        let message = login_message(NAME, &nonce, &device, epoch, &client_nonce, &credential);
        let signature = identity.sign(LOGIN_LABEL, &message);
        self.tell(&ToRelay::Login { device, epoch, client_nonce, credential, signature })?;
        let welcome = self.message()?;
        ensure!(matches!(FromRelay::decode(&welcome)?, FromRelay::Welcome { .. }), "not welcome");
        Ok(())
    }

    fn tell(&mut self, frame: &ToRelay<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.write_all(&masked(&bytes))
    }

    /// Makes a way from one to the other: they name each other at a relay and wait until both know that the other is here. At Redis the other
    /// subscribes.
    pub fn pair(one: &mut Device, other: &mut Device) -> Result<()> {
        if other.kind == Kind::Redis {
            other.tcp.set_nonblocking(false)?;
            other.write_all(&redis_command("SUBSCRIBE", &[&other.key.clone()]))?;
            other.message()?;
            return Ok(other.tcp.set_nonblocking(true)?);
        }
        if !one.kind.is_relay() {
            return Ok(());
        }
        one.name(&[other.key])?;
        other.name(&[one.key])?;
        one.until_here(1)?;
        other.until_here(1)
    }

    /// Names devices.
    pub fn name(&mut self, peers: &[[u8; 32]]) -> Result<()> {
        let peers = peers.iter().map(|peer| DeviceId::from_bytes(*peer)).collect();
        self.tcp.set_nonblocking(false)?;
        let told = self.tell(&ToRelay::Peers(peers));
        self.tcp.set_nonblocking(true)?;
        told
    }

    /// Waits until so many peers are here.
    pub fn until_here(&mut self, mut peers: usize) -> Result<()> {
        self.tcp.set_nonblocking(false)?;
        self.tcp.set_read_timeout(Some(PATIENCE))?;
        while peers > 0 {
            let message = self.message()?;
            peers -= usize::from(matches!(FromRelay::decode(&message)?, FromRelay::Presence { here: true, .. }));
        }
        self.tcp.set_read_timeout(None)?;
        Ok(self.tcp.set_nonblocking(true)?)
    }

    /// `count` frames to `to`, each with a payload of `size` bytes.
    pub fn prepare(&self, to: &[u8; 32], size: usize, count: usize) -> Prepared {
        let payload = vec![0xa5; size];
        let one = match self.kind {
            Kind::Tcp => [&(32 + size as u32).to_be_bytes()[..], to, &payload].concat(),
            Kind::Websocket => masked(&[&to[..], &payload].concat()),
            Kind::Redis => redis_command("PUBLISH", &[to, &payload]),
            Kind::Relay | Kind::RelayTls => {
                let mut bytes = Vec::new();
                ToRelay::Send { to: DeviceId::from_bytes(*to), tag: 1, payload: &payload }.encode(&mut bytes);
                masked(&bytes)
            }
        };
        Prepared { frame: one.len(), bytes: one.repeat(count + 1) }
    }

    /// Writes what the socket takes, and says how many bytes that were.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if !self.flush()? {
            return Ok(0);
        }
        match &mut self.tls {
            None => taken(self.tcp.write(bytes)),
            Some(tls) => {
                // What rustls takes has gone as far as the caller is concerned; its own buffer is bounded.
                let taken = tls.writer().write(bytes)?;
                self.flush()?;
                Ok(taken)
            }
        }
    }

    /// Writes what is left from before. True when nothing is.
    pub fn flush(&mut self) -> Result<bool> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                if taken(tls.write_tls(&mut self.tcp))? == 0 {
                    return Ok(false);
                }
            }
        }
        if !self.answers.is_empty() {
            let answers = std::mem::take(&mut self.answers);
            match &mut self.tls {
                None => {
                    let written = taken(self.tcp.write(&answers))?;
                    self.answers = answers.get(written..).unwrap_or_default().to_vec();
                }
                Some(tls) => {
                    tls.writer().write_all(&answers)?;
                    taken(tls.write_tls(&mut self.tcp))?;
                }
            }
        }
        Ok(self.answers.is_empty())
    }

    /// Reads what has come, at most what `scratch` takes.
    pub fn read(&mut self, scratch: &mut [u8]) -> Result<Came> {
        let kept = self.rest.len();
        scratch.get_mut(..kept).context("a frame larger than the place for it")?.copy_from_slice(&self.rest);
        let mut all = kept;
        match &mut self.tls {
            None => {
                let free = scratch.get_mut(all..).unwrap_or_default();
                all += not_ended(self.tcp.read(free))?;
            }
            Some(tls) => loop {
                match tls.read_tls(&mut self.tcp) {
                    Ok(0) => bail!("the server closed the connection"),
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
                tls.process_new_packets()?;
                all += not_ended(tls.reader().read(scratch.get_mut(all..).unwrap_or_default()))?;
                if scratch.len() - all < 64 * 1024 {
                    break;
                }
            },
        }
        let came = self.take(scratch.get(..all).unwrap_or_default())?;
        self.flush()?;
        Ok(came)
    }

    /// Where the first frame's body begins and ends, if it has come whole.
    fn frame(&self, bytes: &[u8]) -> Result<Option<(usize, usize)>> {
        match self.kind {
            Kind::Tcp => Ok(tcp_frame(bytes)),
            Kind::Redis => Ok(redis_frame(bytes)),
            Kind::Websocket | Kind::Relay | Kind::RelayTls => websocket_frame(bytes),
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Came> {
        let mut came = Came::default();
        let mut rest = bytes;
        loop {
            let Some((body, end)) = self.frame(rest)? else { break };
            let (message, after) = (rest.get(body..end).unwrap_or_default(), rest.get(end..).unwrap_or_default());
            match (self.kind.is_relay(), message.first()) {
                // What Redis answers to a publisher is a number; a subscriber gets lists, the first of which is no payload.
                (false, _) if self.kind == Kind::Redis => came.payloads += u64::from(message.starts_with(MESSAGE)),
                (false, _) | (true, Some(0x83)) => came.payloads += 1,
                (true, Some(0x84)) => came.refused += 1,
                (true, Some(0x86)) => bail!("sent away: {:?}", FromRelay::decode(message)),
                _ => {
                    if let Ok(FromRelay::Ping(n)) = FromRelay::decode(message) {
                        let mut bytes = Vec::new();
                        ToRelay::Pong(n).encode(&mut bytes);
                        self.answers.extend_from_slice(&masked(&bytes));
                    }
                }
            }
            rest = after;
        }
        self.rest.clear();
        self.rest.extend_from_slice(rest);
        Ok(came)
    }

    /// Ends it in a way that leaves no port waiting.
    pub fn reset(self) -> Result<()> {
        Ok(rustix::net::sockopt::set_socket_linger(&self.tcp, Some(Duration::ZERO))?)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

/// Bytes, or none when the socket is full or empty.
fn taken(result: std::io::Result<usize>) -> Result<usize> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        other => Ok(other?),
    }
}

fn not_ended(result: std::io::Result<usize>) -> Result<usize> {
    match result {
        Ok(0) => bail!("the server closed the connection"),
        other => taken(other),
    }
}

/// A frame with its length in front.
fn tcp_frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    (bytes.len() >= 4 + length).then_some((4, 4 + length))
}

/// How a message of Redis to a subscriber begins.
const MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n";

/// A command as Redis reads it.
fn redis_command(name: &str, arguments: &[&[u8]]) -> Vec<u8> {
    let mut command = format!("*{}\r\n${}\r\n{name}\r\n", 1 + arguments.len(), name.len()).into_bytes();
    for argument in arguments {
        command.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        command.extend_from_slice(argument);
        command.extend_from_slice(b"\r\n");
    }
    command
}

/// What Redis sends: a number, or a list of three whose last is a payload or a number.
fn redis_frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let line = |from: usize| {
        let rest = bytes.get(from..)?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let number = std::str::from_utf8(rest.get(1..end)?).ok()?.trim().parse::<usize>().ok()?;
        Some((rest.first().copied()?, number, from + end + 1))
    };
    let (kind, count, mut end) = line(0)?;
    if kind == b'*' {
        for _ in 0..count {
            let (kind, length, after) = line(end)?;
            end = if kind == b'$' { after + length + 2 } else { after };
        }
    }
    (bytes.len() >= end).then_some((0, end))
}

/// A websocket message from a server, which sends them whole and unmasked.
fn websocket_frame(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    let (body, length) = match second {
        126 => match bytes.get(2..4).and_then(|length| length.try_into().ok()) {
            Some(length) => (4, usize::from(u16::from_be_bytes(length))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|length| length.try_into().ok()) {
            Some(length) => (10, usize::try_from(u64::from_be_bytes(length))?),
            None => return Ok(None),
        },
        short => (2, usize::from(short)),
    };
    if bytes.len() < body + length {
        return Ok(None);
    }
    ensure!(first != CLOSE, "the websocket was closed: {:?}", bytes.get(body..body + length));
    ensure!(first == BINARY, "an unexpected message: {first:#x}");
    Ok(Some((body, body + length)))
}

/// A message from a client.
pub fn masked(body: &[u8]) -> Vec<u8> {
    let mut message = vec![BINARY];
    match body.len() {
        short @ 0..126 => message.push(0x80 | short as u8),
        medium @ 126..0x1_0000 => {
            message.push(0x80 | 126);
            message.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            message.push(0x80 | 127);
            message.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    message.extend_from_slice(&MASK);
    message.extend(body.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    message
}
