//! Frames between a device and a relay (`PROTOCOL 7`).
//!
//! One frame is one binary websocket message. There is one enum per direction, so a relay cannot mistake its own words
//! for a client's.

use happy_crypto::DeviceId;

use crate::enrolment::KeyId;
use crate::reader::{Reader, WireError, put_str8};
use crate::{Code, VERSION};

/// The path of the websocket.
pub const PATH: &str = "/v1/ws";
/// The websocket subprotocol both sides must name.
pub const SUBPROTOCOL: &str = "happy-relay.v1";
/// The largest payload of Send and Deliver, bytes.
pub const MAX_PAYLOAD: usize = 65_536;
/// The largest frame: a payload and the 37 bytes of a Send around it, rounded up.
pub const MAX_FRAME: usize = MAX_PAYLOAD + 64;
/// The most devices that one device may name.
pub const MAX_PEERS: usize = 256;
/// What waits for one device at the relay, bytes, summed over all senders. With what the memory of a queue costs beside, a device that has
/// stopped reading costs a relay 256 KiB.
pub const QUEUE_BYTES: usize = 224 * 1024;
/// The longest time a rendezvous may stay open, seconds.
pub const MAX_RENDEZVOUS_SECONDS: u16 = 300;
/// The most rendezvous that one device may hold open.
pub const MAX_RENDEZVOUS: usize = 4;
/// The most guests of one rendezvous at a time.
pub const MAX_GUESTS: usize = 4;
/// How long a guest stays admitted, seconds.
pub const GUEST_SECONDS: u64 = 180;
/// A device that was admitted by vouching and is vouched for no longer is sent away within this, seconds.
pub const VOUCH_SECONDS: u64 = 60;
/// The last seen of a machine that is connected no longer is at most so much too early, seconds.
pub const ALIVE_SECONDS: u64 = 20;
/// From the opening of the socket to a valid login, seconds.
pub const LOGIN_SECONDS: u64 = 10;
/// Without a received frame for this long, a side sends Ping, seconds.
pub const PING_AFTER_SECONDS: u64 = 15;
/// After that Ping, this much longer before the connection counts as dead, seconds.
pub const PONG_GRACE_SECONDS: u64 = 5;
/// A connection that takes no byte for this long is closed, seconds.
pub const WRITE_SECONDS: u64 = 10;

/// The largest sealed record, bytes: four of them, which may wait for one connection, fit into half of the queue of its notices.
pub const MAX_SEALED_RECORD: usize = 4_096;
/// The most requests for records and tokens of one connection that wait at the relay.
pub const MAX_REQUESTS: usize = 4;
/// A token lasts so long, seconds.
pub const TOKEN_SECONDS: u64 = 600;

/// The label of a login signature; the bytes that follow are those of [`login_message`].
pub const LOGIN_LABEL: &str = "happy/1 relay login";

/// What a device shows beside its own key (`PROTOCOL 7`, Access).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// Nothing.
    None,
    /// The ticket of a rendezvous, which makes it a guest.
    Ticket([u8; 32]),
    /// That its owner was given an enrolment secret.
    Enrolment {
        /// Which of the relay's enrolment keys.
        key: KeyId,
        /// By that key, over [`ENROLMENT_LABEL`](crate::enrolment::ENROLMENT_LABEL) and [`login_message`]. It is no part of that message.
        signature: [u8; 64],
    },
}

impl Credential {
    /// The ticket, if it is one.
    pub fn ticket(&self) -> Option<&[u8; 32]> {
        match self {
            Credential::Ticket(ticket) => Some(ticket),
            Credential::None | Credential::Enrolment { .. } => None,
        }
    }

    /// What is signed of it.
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Credential::None => out.push(0),
            Credential::Ticket(ticket) => {
                out.push(1);
                out.extend_from_slice(ticket);
            }
            Credential::Enrolment { key, .. } => {
                out.push(2);
                out.extend_from_slice(key.as_bytes());
            }
        }
    }
}

/// What a device signs to log in, behind [`LOGIN_LABEL`]. `relay` is the authority that the device dialled.
pub fn login_message(
    relay: &str,
    nonce: &[u8; 32],
    device: &DeviceId,
    epoch: u64,
    client_nonce: &[u8; 16],
    credential: &Credential,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(relay.len() + 128);
    put_str8(&mut out, relay);
    out.extend_from_slice(nonce);
    out.extend_from_slice(device.as_bytes());
    out.extend_from_slice(&epoch.to_be_bytes());
    out.extend_from_slice(client_nonce);
    credential.put(&mut out);
    out
}

/// A frame from a device to a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToRelay<'a> {
    /// Proves the key of the device for this connection.
    Login {
        /// Who logs in.
        device: DeviceId,
        /// The device's own count of logins; the larger one wins.
        epoch: u64,
        /// Random, so that the relay alone does not choose what is signed.
        client_nonce: [u8; 16],
        /// What it shows beside its own key.
        credential: Credential,
        /// By the device, over [`LOGIN_LABEL`] and [`login_message`].
        signature: [u8; 64],
    },
    /// A payload for another device.
    Send {
        /// The receiver.
        to: DeviceId,
        /// Chosen by the sender, repeated in Undeliverable.
        tag: u32,
        /// At most [`MAX_PAYLOAD`] bytes.
        payload: &'a [u8],
    },
    /// The whole list of devices that this one names.
    Peers(Vec<DeviceId>),
    /// Admits whoever presents the ticket with this hash.
    OpenRendezvous {
        /// `PROTOCOL 4`.
        ticket_hash: [u8; 32],
        /// At most [`MAX_RENDEZVOUS_SECONDS`].
        seconds: u16,
    },
    /// Ends a rendezvous.
    CloseRendezvous {
        /// The hash it was opened with.
        ticket_hash: [u8; 32],
    },
    /// Asks for a [`ToRelay::Pong`] in return.
    Ping(u64),
    /// Answers a Ping.
    Pong(u64),
    /// Leaves a record, if the relay has none or the version before.
    PutRecord {
        /// What it is about; one that the relay does not know is refused by it, not here.
        kind: u8,
        /// One more than that of the record it replaces.
        version: u64,
        /// 1 to [`MAX_SEALED_RECORD`] bytes.
        sealed: &'a [u8],
    },
    /// Asks for a record.
    GetRecord {
        /// Of whom.
        machine: DeviceId,
        /// See [`record_kind`].
        kind: u8,
    },
    /// Asks for a token for REST.
    GetToken,
}

/// The kinds of machine records.
pub mod record_kind {
    /// What the machine is: its name, system and version.
    pub const METADATA: u8 = 1;
    /// What it is doing.
    pub const STATE: u8 = 2;
    /// All that there are.
    pub const ALL: [u8; 2] = [METADATA, STATE];

    /// Those that a Changed frame names; bit n - 1 stands for kind n, and kinds that nobody knows are left out.
    pub fn changed(kinds: u8) -> impl Iterator<Item = u8> {
        ALL.into_iter().filter(move |kind| kinds & (1 << (kind - 1)) != 0)
    }
}

impl<'a> ToRelay<'a> {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            ToRelay::Login { device, epoch, client_nonce, credential, signature } => {
                out.extend_from_slice(&[0x01, VERSION]);
                out.extend_from_slice(device.as_bytes());
                out.extend_from_slice(&epoch.to_be_bytes());
                out.extend_from_slice(client_nonce);
                credential.put(out);
                out.extend_from_slice(signature);
                if let Credential::Enrolment { signature, .. } = credential {
                    out.extend_from_slice(signature);
                }
            }
            ToRelay::Send { to, tag, payload } => {
                out.push(0x02);
                out.extend_from_slice(to.as_bytes());
                out.extend_from_slice(&tag.to_be_bytes());
                out.extend_from_slice(payload);
            }
            ToRelay::Peers(peers) => {
                // A caller with more peers than the protocol carries has already been told so by the link.
                let peers = &peers[..peers.len().min(MAX_PEERS)];
                out.push(0x03);
                out.extend_from_slice(&(peers.len() as u16).to_be_bytes());
                peers.iter().for_each(|peer| out.extend_from_slice(peer.as_bytes()));
            }
            ToRelay::OpenRendezvous { ticket_hash, seconds } => {
                out.push(0x04);
                out.extend_from_slice(ticket_hash);
                out.extend_from_slice(&seconds.to_be_bytes());
            }
            ToRelay::CloseRendezvous { ticket_hash } => {
                out.push(0x05);
                out.extend_from_slice(ticket_hash);
            }
            ToRelay::Ping(n) => put_u64(out, 0x06, *n),
            ToRelay::Pong(n) => put_u64(out, 0x07, *n),
            ToRelay::PutRecord { kind, version, sealed } => {
                out.extend_from_slice(&[0x08, *kind]);
                out.extend_from_slice(&version.to_be_bytes());
                out.extend_from_slice(sealed);
            }
            ToRelay::GetRecord { machine, kind } => {
                out.push(0x09);
                out.extend_from_slice(machine.as_bytes());
                out.push(*kind);
            }
            ToRelay::GetToken => out.push(0x0a),
        }
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`WireError`] for anything that is not exactly one frame; the size limit is the socket's business.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let frame = match r.u8()? {
            0x01 => {
                r.version()?;
                let (device, epoch, client_nonce) = (r.device()?, r.u64()?, r.array()?);
                let mut credential = match r.u8()? {
                    0 => Credential::None,
                    1 => Credential::Ticket(r.array()?),
                    2 => Credential::Enrolment { key: KeyId::from_bytes(r.array()?), signature: [0; 64] },
                    _ => return Err(WireError::Field("credential")),
                };
                let signature = r.array()?;
                if let Credential::Enrolment { signature, .. } = &mut credential {
                    *signature = r.array()?;
                }
                ToRelay::Login { device, epoch, client_nonce, credential, signature }
            }
            0x02 => ToRelay::Send { to: r.device()?, tag: r.u32()?, payload: r.rest() },
            0x03 => {
                let count = usize::from(r.u16()?);
                if count > MAX_PEERS {
                    return Err(WireError::Field("count of peers"));
                }
                ToRelay::Peers((0..count).map(|_| r.device()).collect::<Result<_, _>>()?)
            }
            0x04 => {
                let (ticket_hash, seconds) = (r.array()?, r.u16()?);
                if seconds == 0 || seconds > MAX_RENDEZVOUS_SECONDS {
                    return Err(WireError::Field("seconds of a rendezvous"));
                }
                ToRelay::OpenRendezvous { ticket_hash, seconds }
            }
            0x05 => ToRelay::CloseRendezvous { ticket_hash: r.array()? },
            0x06 => ToRelay::Ping(r.u64()?),
            0x07 => ToRelay::Pong(r.u64()?),
            0x08 => {
                let (kind, version, sealed) = (r.u8()?, r.u64()?, r.rest());
                // Version 0 is what a machine without a record is said to have.
                if version == 0 || !(1..=MAX_SEALED_RECORD).contains(&sealed.len()) {
                    return Err(WireError::Field("record"));
                }
                ToRelay::PutRecord { kind, version, sealed }
            }
            0x09 => ToRelay::GetRecord { machine: r.device()?, kind: r.u8()? },
            0x0a => ToRelay::GetToken,
            other => return Err(WireError::UnknownType(other)),
        };
        r.end()?;
        Ok(frame)
    }
}

/// Why a frame did not reach its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Undelivered {
    /// The receiver is away, or has not named the sender; the two are not told apart.
    Unreachable,
    /// The sender has not named the receiver.
    NotNamed,
    /// The receiver's queue is full; send it again later.
    QueueFull,
    /// The payload is larger than [`MAX_PAYLOAD`].
    TooLarge,
    /// A guest may send to its host only.
    NotPermitted,
    /// A reason that this version does not know.
    Unknown(u8),
}

impl From<u8> for Undelivered {
    fn from(byte: u8) -> Self {
        match byte {
            1 => Self::Unreachable,
            2 => Self::NotNamed,
            3 => Self::QueueFull,
            4 => Self::TooLarge,
            5 => Self::NotPermitted,
            other => Self::Unknown(other),
        }
    }
}

impl From<Undelivered> for u8 {
    fn from(reason: Undelivered) -> u8 {
        match reason {
            Undelivered::Unreachable => 1,
            Undelivered::NotNamed => 2,
            Undelivered::QueueFull => 3,
            Undelivered::TooLarge => 4,
            Undelivered::NotPermitted => 5,
            Undelivered::Unknown(other) => other,
        }
    }
}

/// What has become of a rendezvous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RendezvousState {
    /// It was not opened: too many are open already, or the device may not open one.
    Refused,
    /// Guests may come.
    Open,
    /// Its time is over, or it was closed.
    Ended,
}

/// What a [`FromRelay::Record`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordAnswer {
    /// A GetRecord.
    Asked,
    /// A PutRecord that was stored.
    Stored,
    /// A PutRecord whose version does not follow the stored one, which comes with this.
    Conflict,
    /// A request that cannot be met now.
    Refused,
}

/// A frame from a relay to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromRelay<'a> {
    /// The first frame of a connection.
    Challenge {
        /// Fresh and random.
        nonce: [u8; 32],
    },
    /// The login succeeded.
    Welcome {
        /// The largest payload that this relay takes.
        max_payload: u32,
        /// What it keeps for a slow receiver, bytes.
        queue_bytes: u32,
        /// The machine that a guest may talk to.
        host: Option<DeviceId>,
    },
    /// A payload from another device.
    Deliver {
        /// Written by the relay from the sender's login.
        from: DeviceId,
        /// True when it came through a rendezvous, so `from` is not a named device.
        rendezvous: bool,
        /// What was sent.
        payload: &'a [u8],
    },
    /// A frame was not delivered.
    Undeliverable {
        /// The receiver.
        to: DeviceId,
        /// The tag of the Send.
        tag: u32,
        /// Why.
        reason: Undelivered,
    },
    /// Whether a device that named us, and that we named, is connected.
    Presence {
        /// Who.
        device: DeviceId,
        /// Connected or not.
        here: bool,
    },
    /// The relay is about to close this connection.
    Goaway {
        /// Why.
        code: Code,
        /// When to come back, milliseconds.
        retry_after_ms: u32,
        /// For a person.
        text: &'a str,
    },
    /// What has become of a rendezvous.
    Rendezvous {
        /// The hash it was opened with.
        ticket_hash: [u8; 32],
        /// Its state from now on.
        state: RendezvousState,
    },
    /// Asks for a Pong.
    Ping(u64),
    /// Answers a Ping.
    Pong(u64),
    /// A record as it stands at the relay.
    Record {
        /// Whose.
        machine: DeviceId,
        /// See [`record_kind`].
        kind: u8,
        /// What this answers.
        answer: RecordAnswer,
        /// The machine's last sign of life, Unix ms; 0 when it is not known, or not for us to know.
        last_seen: u64,
        /// 0 when there is none.
        version: u64,
        /// Empty when there is none.
        sealed: &'a [u8],
    },
    /// Records of a machine have changed; of this device itself: they were lost.
    Changed {
        /// Whose.
        machine: DeviceId,
        /// Bit n - 1 stands for kind n.
        kinds: u8,
    },
    /// A token for REST.
    Token {
        /// Unix ms; 0 when there is none for this connection.
        expires: u64,
        /// It goes into the header Authorization and nowhere else.
        token: &'a str,
    },
}

impl<'a> FromRelay<'a> {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            FromRelay::Challenge { nonce } => {
                out.extend_from_slice(&[0x81, VERSION]);
                out.extend_from_slice(nonce);
            }
            FromRelay::Welcome { max_payload, queue_bytes, host } => {
                out.extend_from_slice(&[0x82, VERSION]);
                out.extend_from_slice(&max_payload.to_be_bytes());
                out.extend_from_slice(&queue_bytes.to_be_bytes());
                out.extend_from_slice(host.as_ref().map_or(&[0; 32], |host| host.as_bytes()));
            }
            FromRelay::Deliver { from, rendezvous, payload } => {
                out.push(0x83);
                out.extend_from_slice(from.as_bytes());
                out.push((*rendezvous).into());
                out.extend_from_slice(payload);
            }
            FromRelay::Undeliverable { to, tag, reason } => {
                out.push(0x84);
                out.extend_from_slice(to.as_bytes());
                out.extend_from_slice(&tag.to_be_bytes());
                out.push((*reason).into());
            }
            FromRelay::Presence { device, here } => {
                out.push(0x85);
                out.extend_from_slice(device.as_bytes());
                out.push((*here).into());
            }
            FromRelay::Goaway { code, retry_after_ms, text } => {
                out.push(0x86);
                out.extend_from_slice(&code.0.to_be_bytes());
                out.extend_from_slice(&retry_after_ms.to_be_bytes());
                put_str8(out, text);
            }
            FromRelay::Rendezvous { ticket_hash, state } => {
                out.push(0x87);
                out.extend_from_slice(ticket_hash);
                out.push(*state as u8);
            }
            FromRelay::Ping(n) => put_u64(out, 0x06, *n),
            FromRelay::Pong(n) => put_u64(out, 0x07, *n),
            FromRelay::Record { machine, kind, answer, last_seen, version, sealed } => {
                out.push(0x88);
                out.extend_from_slice(machine.as_bytes());
                out.extend_from_slice(&[*kind, *answer as u8]);
                out.extend_from_slice(&last_seen.to_be_bytes());
                out.extend_from_slice(&version.to_be_bytes());
                out.extend_from_slice(sealed);
            }
            FromRelay::Changed { machine, kinds } => {
                out.push(0x89);
                out.extend_from_slice(machine.as_bytes());
                out.push(*kinds);
            }
            FromRelay::Token { expires, token } => {
                put_u64(out, 0x8a, *expires);
                out.extend_from_slice(token.as_bytes());
            }
        }
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`WireError`] for anything that is not exactly one frame.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let frame = match r.u8()? {
            0x81 => {
                r.version()?;
                FromRelay::Challenge { nonce: r.array()? }
            }
            0x82 => {
                r.version()?;
                FromRelay::Welcome {
                    max_payload: r.u32()?,
                    queue_bytes: r.u32()?,
                    host: Some(r.device()?).filter(|host| host.as_bytes() != &[0; 32]),
                }
            }
            0x83 => FromRelay::Deliver { from: r.device()?, rendezvous: flag(r.u8()?)?, payload: r.rest() },
            0x84 => FromRelay::Undeliverable { to: r.device()?, tag: r.u32()?, reason: r.u8()?.into() },
            0x85 => FromRelay::Presence { device: r.device()?, here: flag(r.u8()?)? },
            0x86 => FromRelay::Goaway { code: Code(r.u16()?), retry_after_ms: r.u32()?, text: r.str8()? },
            0x87 => FromRelay::Rendezvous {
                ticket_hash: r.array()?,
                state: match r.u8()? {
                    0 => RendezvousState::Refused,
                    1 => RendezvousState::Open,
                    2 => RendezvousState::Ended,
                    _ => return Err(WireError::Field("state of a rendezvous")),
                },
            },
            0x06 => FromRelay::Ping(r.u64()?),
            0x07 => FromRelay::Pong(r.u64()?),
            0x88 => {
                let (machine, kind) = (r.device()?, r.u8()?);
                let answer = match r.u8()? {
                    0 => RecordAnswer::Asked,
                    1 => RecordAnswer::Stored,
                    2 => RecordAnswer::Conflict,
                    3 => RecordAnswer::Refused,
                    _ => return Err(WireError::Field("answer of a record")),
                };
                let (last_seen, version, sealed) = (r.u64()?, r.u64()?, r.rest());
                // A device keeps what it is told: a relay that lies shall not make it keep much.
                if sealed.len() > MAX_SEALED_RECORD || (version == 0) != sealed.is_empty() {
                    return Err(WireError::Field("record"));
                }
                FromRelay::Record { machine, kind, answer, last_seen, version, sealed }
            }
            0x89 => FromRelay::Changed { machine: r.device()?, kinds: r.u8()? },
            0x8a => {
                let (expires, token) = (r.u64()?, r.rest());
                let token = std::str::from_utf8(token).map_err(|_| WireError::Field("token"))?;
                FromRelay::Token { expires, token }
            }
            other => return Err(WireError::UnknownType(other)),
        };
        r.end()?;
        Ok(frame)
    }
}

fn put_u64(out: &mut Vec<u8>, kind: u8, n: u64) {
    out.push(kind);
    out.extend_from_slice(&n.to_be_bytes());
}

fn flag(byte: u8) -> Result<bool, WireError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::Field("flag")),
    }
}
