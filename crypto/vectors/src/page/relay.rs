//! PROTOCOL 7: the login, and the frames between a device and a relay.

use argon2::{Algorithm, Argon2, Params, Version};

use super::{
    Device, VERSION,
    fields::str8,
    primitives::{hash, sign, signing_public},
};

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
    /// The seed of an enrolment key, of a device that has one and no ticket.
    pub enrolment: Option<&'a [u8; 32]>,
}

/// The seed of the key that belongs to an enrolment secret.
///
/// # Panics
/// When Argon2 refuses the parameters of the page, which it does not.
#[must_use]
pub fn enrolment_seed(secret: &str) -> [u8; 32] {
    let params = Params::new(19 * 1024, 2, 1, Some(32)).expect("the page's parameters are in range");
    let mut seed = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(secret.as_bytes(), b"happy/1 relay enrolment", &mut seed)
        .expect("the secret has a length that Argon2 takes");
    seed
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

    /// By the enrolment key, if there is one.
    #[must_use]
    pub fn enrolment_signature(&self) -> Option<[u8; 64]> {
        self.enrolment.map(|seed| sign(seed, &[b"happy/1 relay enrolment", &self.signed_bytes()]))
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let enrolment = self.enrolment_signature().map(Vec::from).unwrap_or_default();
        [&[0x01, VERSION][..], &self.fields(), &self.signature(), &enrolment].concat()
    }

    /// device id ‖ epoch ‖ client nonce ‖ credential ‖ ticket or key id.
    fn fields(&self) -> Vec<u8> {
        let credential = match (self.ticket, self.enrolment) {
            (Some(ticket), _) => [&[1][..], ticket].concat(),
            (None, Some(seed)) => [&[2][..], &hash(&[&signing_public(seed)])[..8]].concat(),
            (None, None) => vec![0],
        };
        [&self.device.id()[..], &self.epoch.to_be_bytes(), self.client_nonce, &credential].concat()
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

/// PutRecord.
#[must_use]
pub fn put_record(kind: u8, version: u64, sealed: &[u8]) -> Vec<u8> {
    [&[0x08, kind][..], &version.to_be_bytes(), sealed].concat()
}

/// GetRecord.
#[must_use]
pub fn get_record(machine: &[u8; 32], kind: u8) -> Vec<u8> {
    [&[0x09][..], machine, &[kind]].concat()
}

/// Record, with `seen` and `version` as they stand in it.
#[must_use]
pub fn record(machine: &[u8; 32], kind: u8, answer: u8, [seen, version]: [u64; 2], sealed: &[u8]) -> Vec<u8> {
    [&[0x88][..], machine, &[kind, answer], &seen.to_be_bytes(), &version.to_be_bytes(), sealed].concat()
}

/// Changed.
#[must_use]
pub fn changed(machine: &[u8; 32], kinds: u8) -> Vec<u8> {
    [&[0x89][..], machine, &[kinds]].concat()
}

/// Token.
#[must_use]
pub fn token(expires: u64, token: &str) -> Vec<u8> {
    [&[0x8a][..], &expires.to_be_bytes(), token.as_bytes()].concat()
}
