//! PROTOCOL 7: the login, and the frames between a device and a relay.

use super::{Device, VERSION, fields::str8, primitives::sign};

/// A device logs in.
pub struct Login<'a> {
    /// The authority of the URL that it dialled.
    pub relay: &'a str,
    /// Of the Challenge.
    pub nonce: &'a [u8; 32],
    /// Who logs in.
    pub device: &'a Device,
    /// Its count of logins.
    pub epoch: u64,
    /// Random.
    pub client_nonce: &'a [u8; 16],
    /// A guest shows one.
    pub ticket: Option<&'a [u8; 32]>,
}

impl Login<'_> {
    /// What is signed, behind the label.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        [&str8(self.relay)[..], self.nonce, &self.fields()].concat()
    }

    /// By the device.
    #[must_use]
    pub fn signature(&self) -> [u8; 64] {
        sign(&self.device.seed, &[b"happy/1 relay login", &self.signed_bytes()])
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        [&[0x01, VERSION][..], &self.fields(), &self.signature()].concat()
    }

    /// device id ‖ epoch ‖ client nonce ‖ ticket flag ‖ ticket.
    fn fields(&self) -> Vec<u8> {
        let ticket = self.ticket.map_or_else(|| vec![0], |ticket| [&[1][..], ticket].concat());
        [&self.device.id()[..], &self.epoch.to_be_bytes(), self.client_nonce, &ticket].concat()
    }
}

/// The relay name of an origin: its authority in lower case, without a default port.
///
/// # Panics
/// When there is no scheme.
#[must_use]
pub fn name(origin: &str) -> String {
    let origin = origin.to_lowercase();
    let (scheme, authority) = origin.split_once("://").expect("an origin has a scheme");
    let default = if scheme == "http" { ":80" } else { ":443" };
    authority.strip_suffix(default).unwrap_or(authority).to_owned()
}

/// Send.
#[must_use]
pub fn send(to: &[u8; 32], tag: u32, payload: &[u8]) -> Vec<u8> {
    [&[0x02][..], to, &tag.to_be_bytes(), payload].concat()
}

/// Peers.
#[must_use]
pub fn peers(devices: &[[u8; 32]]) -> Vec<u8> {
    let count = u16::try_from(devices.len()).expect("at most 256").to_be_bytes();
    [&[0x03][..], &count, devices.as_flattened()].concat()
}

/// OpenRendezvous.
#[must_use]
pub fn open_rendezvous(ticket_hash: &[u8; 32], seconds: u16) -> Vec<u8> {
    [&[0x04][..], ticket_hash, &seconds.to_be_bytes()].concat()
}

/// CloseRendezvous.
#[must_use]
pub fn close_rendezvous(ticket_hash: &[u8; 32]) -> Vec<u8> {
    [&[0x05][..], ticket_hash].concat()
}

/// Ping, of either side.
#[must_use]
pub fn ping(number: u64) -> Vec<u8> {
    [&[0x06][..], &number.to_be_bytes()].concat()
}

/// Pong, of either side.
#[must_use]
pub fn pong(number: u64) -> Vec<u8> {
    [&[0x07][..], &number.to_be_bytes()].concat()
}

/// Challenge.
#[must_use]
pub fn challenge(nonce: &[u8; 32]) -> Vec<u8> {
    [&[0x81, VERSION][..], nonce].concat()
}

/// Welcome.
#[must_use]
pub fn welcome(maximum_payload: u32, queue_bytes: u32, host: Option<&[u8; 32]>) -> Vec<u8> {
    let host = host.unwrap_or(&[0; 32]);
    [&[0x82, VERSION][..], &maximum_payload.to_be_bytes(), &queue_bytes.to_be_bytes(), host].concat()
}

/// Deliver.
#[must_use]
pub fn deliver(from: &[u8; 32], via: u8, payload: &[u8]) -> Vec<u8> {
    [&[0x83][..], from, &[via], payload].concat()
}

/// Undeliverable.
#[must_use]
pub fn undeliverable(to: &[u8; 32], tag: u32, reason: u8) -> Vec<u8> {
    [&[0x84][..], to, &tag.to_be_bytes(), &[reason]].concat()
}

/// Presence.
#[must_use]
pub fn presence(device: &[u8; 32], state: u8) -> Vec<u8> {
    [&[0x85][..], device, &[state]].concat()
}

/// Goaway.
#[must_use]
pub fn goaway(code: u16, retry_after: u32, text: &str) -> Vec<u8> {
    [&[0x86][..], &code.to_be_bytes(), &retry_after.to_be_bytes(), &str8(text)].concat()
}

/// Rendezvous.
#[must_use]
pub fn rendezvous(ticket_hash: &[u8; 32], state: u8) -> Vec<u8> {
    [&[0x87][..], ticket_hash, &[state]].concat()
}
