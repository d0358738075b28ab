//! The cryptography that a link needs, behind two small traits, so that simulations can run thousands of seeds with a
//! cipher that costs nothing. [`Keys`] is the real one.

use happy_crypto::handshake::{HelloView, Initiator, Purpose, Refused, Responder};
use happy_crypto::{Bundle, DeviceId, HandshakeError, Identity, IdentityRecord, Ratchet, SignedPrekey};
use rand_core::CryptoRng;

/// Bytes of a life nonce (`PROTOCOL 8`).
pub type Life = [u8; 16];

/// Why a sealed message did not open; nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// It was opened before.
    Repeated,
    /// Everything else.
    CannotBeOpened,
}

/// Why a message could not be sealed; nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CannotSeal;

/// What seals and opens the frames of one session.
pub trait Cipher {
    /// Bytes that sealing adds.
    const OVERHEAD: usize;
    /// Appends the sealed `plaintext` to `out`.
    ///
    /// # Errors
    /// When this session cannot seal any more: a new handshake is needed.
    fn seal(&mut self, rng: &mut impl CryptoRng, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), CannotSeal>;
    /// Appends the opened `message` to `out`.
    ///
    /// # Errors
    /// [`OpenError`]; nothing has changed then.
    fn open(&mut self, rng: &mut impl CryptoRng, message: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError>;
    /// Whether sealing is possible yet: the responder has to open a first message before.
    fn can_seal(&self) -> bool;
}

/// A session that both sides have proved to each other.
pub struct Established<C> {
    /// Names the session in packets.
    pub session: [u8; 16],
    /// Who the other side has proved to be.
    pub peer: DeviceId,
    /// The life nonce of the other side.
    pub peer_life: Life,
    /// Seals and opens from now on.
    pub cipher: C,
}

/// Why a Hello is not answered with a Welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoWelcome {
    /// It is not genuine, or not meant for this device: say nothing.
    Ignore,
    /// Tell the initiator why, signed (`PROTOCOL 5`, Refused).
    Refuse(RefusalReason),
}

/// Why a responder refuses a handshake (`PROTOCOL 5`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// The initiator was removed.
    Revoked,
    /// The initiator was never paired, or the responder has lost its memory.
    UnknownDevice,
    /// The initiator's copy of the bundle is too old.
    UnknownPrekey,
    /// Try again later.
    Busy,
    /// The versions do not fit.
    UnsupportedVersion,
    /// A reason that this version does not know.
    Unknown(u8),
}

impl From<u8> for RefusalReason {
    fn from(byte: u8) -> Self {
        match byte {
            1 => Self::Revoked,
            2 => Self::UnknownDevice,
            3 => Self::UnknownPrekey,
            4 => Self::Busy,
            5 => Self::UnsupportedVersion,
            other => Self::Unknown(other),
        }
    }
}

impl From<RefusalReason> for u8 {
    fn from(reason: RefusalReason) -> u8 {
        match reason {
            RefusalReason::Revoked => 1,
            RefusalReason::UnknownDevice => 2,
            RefusalReason::UnknownPrekey => 3,
            RefusalReason::Busy => 4,
            RefusalReason::UnsupportedVersion => 5,
            RefusalReason::Unknown(other) => other,
        }
    }
}

/// The keys of this device and what is done with them: logins and handshakes.
pub trait Suite {
    /// Seals and opens the frames of a session.
    type Cipher: Cipher;
    /// The public identity of a peer.
    type Record: Clone + PartialEq;
    /// What an initiator needs to know of its responder.
    type Bundle: Clone;
    /// A Hello that was sent.
    type Initiator;
    /// A Welcome that was sent.
    type Responder;

    /// Who this device is.
    fn device(&self) -> DeviceId;
    /// Whose record it is.
    fn record_device(record: &Self::Record) -> DeviceId;
    /// Whose bundle it is.
    fn bundle_device(bundle: &Self::Bundle) -> DeviceId;
    /// The signature of a login (`PROTOCOL 7`).
    fn sign_login(&self, message: &[u8]) -> [u8; 64];
    /// A Hello to the owner of `bundle`, or nothing when the bundle holds a key that cannot be used.
    fn start(&self, rng: &mut impl CryptoRng, bundle: &Self::Bundle, life: Life) -> Option<(Self::Initiator, Vec<u8>)>;
    /// Checks a Welcome and gives the session and the Confirm, or nothing when it is not genuine.
    fn welcome(
        &self,
        rng: &mut impl CryptoRng,
        initiator: &Self::Initiator,
        welcome: &[u8],
    ) -> Option<(Established<Self::Cipher>, Vec<u8>)>;
    /// Checks a Hello of `peer` and answers it.
    ///
    /// # Errors
    /// [`NoWelcome`] when the Hello is not genuine or asks for what this device does not have.
    fn answer(
        &self,
        rng: &mut impl CryptoRng,
        peer: &Self::Record,
        hello: &[u8],
        life: Life,
    ) -> Result<(Self::Responder, Vec<u8>), NoWelcome>;
    /// Checks a Confirm, or gives nothing when it does not belong to this Welcome.
    fn confirm(&self, responder: &Self::Responder, confirm: &[u8]) -> Option<Established<Self::Cipher>>;
    /// A signed refusal of that Hello.
    fn refuse(&self, reason: RefusalReason, hello: &[u8]) -> Vec<u8>;
    /// The reason, when `refused` is a refusal of this Hello signed by `peer`.
    fn refusal(&self, peer: &DeviceId, initiator: &Self::Initiator, refused: &[u8]) -> Option<RefusalReason>;
}

/// The most signed prekeys that a device answers for: the one it hands out and those that its peers may still hold.
pub const MAX_SIGNED_PREKEYS: usize = 8;

/// The real suite: an identity and the signed prekeys that it answers for.
pub struct Keys {
    identity: Identity,
    prekeys: Vec<SignedPrekey>,
}

impl Keys {
    /// A device that can initiate; [`Keys::set_prekeys`] makes it answer as well.
    pub fn new(identity: Identity) -> Self {
        Self { identity, prekeys: Vec::new() }
    }

    /// Replaces the signed prekeys; the newest comes last, and beyond [`MAX_SIGNED_PREKEYS`] the first ones go.
    pub fn set_prekeys(&mut self, mut prekeys: Vec<SignedPrekey>) {
        prekeys.drain(..prekeys.len().saturating_sub(MAX_SIGNED_PREKEYS));
        self.prekeys = prekeys;
    }
}

impl Suite for Keys {
    type Cipher = Ratchet;
    type Record = IdentityRecord;
    type Bundle = Bundle;
    type Initiator = Initiator;
    type Responder = Responder;

    fn device(&self) -> DeviceId {
        self.identity.device_id()
    }

    fn record_device(record: &IdentityRecord) -> DeviceId {
        record.device_id()
    }

    fn bundle_device(bundle: &Bundle) -> DeviceId {
        bundle.identity().device_id()
    }

    fn sign_login(&self, message: &[u8]) -> [u8; 64] {
        self.identity.sign(happy_wire::relay::LOGIN_LABEL, message)
    }

    fn start(&self, rng: &mut impl CryptoRng, bundle: &Bundle, life: Life) -> Option<(Initiator, Vec<u8>)> {
        Initiator::start(rng, &self.identity, bundle, Purpose::Link, life, b"", None).ok()
    }

    fn welcome(
        &self,
        rng: &mut impl CryptoRng,
        initiator: &Initiator,
        welcome: &[u8],
    ) -> Option<(Established<Ratchet>, Vec<u8>)> {
        let (established, confirm) = initiator.welcome(rng, welcome).ok()?;
        Some((established.into(), confirm))
    }

    fn answer(
        &self,
        rng: &mut impl CryptoRng,
        peer: &IdentityRecord,
        hello: &[u8],
        life: Life,
    ) -> Result<(Responder, Vec<u8>), NoWelcome> {
        let view = HelloView::parse(hello).map_err(|_| NoWelcome::Ignore)?;
        // The relay wrote who the sender is, and the pairing what its record is; a Hello of anybody else is not for this link.
        if view.initiator() != peer || view.responder() != self.device() || view.purpose() != Purpose::Link {
            return Err(NoWelcome::Ignore);
        }
        let prekey = self.prekeys.iter().find(|prekey| prekey.id() == view.signed_prekey_id());
        let Some(prekey) = prekey.filter(|_| view.one_time_prekey_id() == 0) else {
            return Err(NoWelcome::Refuse(RefusalReason::UnknownPrekey));
        };
        Responder::answer(rng, &self.identity, prekey, None, hello, life, None).map_err(|error| match error {
            HandshakeError::UnknownPrekey => NoWelcome::Refuse(RefusalReason::UnknownPrekey),
            _ => NoWelcome::Ignore,
        })
    }

    fn confirm(&self, responder: &Responder, confirm: &[u8]) -> Option<Established<Ratchet>> {
        responder.confirm(confirm).ok().map(Into::into)
    }

    fn refuse(&self, reason: RefusalReason, hello: &[u8]) -> Vec<u8> {
        Refused::sign(&self.identity, reason.into(), hello)
    }

    fn refusal(&self, peer: &DeviceId, initiator: &Initiator, refused: &[u8]) -> Option<RefusalReason> {
        Refused::verify(peer, &initiator.hello_hash(), refused).ok().map(Into::into)
    }
}

impl From<happy_crypto::handshake::Established> for Established<Ratchet> {
    fn from(established: happy_crypto::handshake::Established) -> Self {
        Self {
            session: established.session_id,
            peer: established.peer.device_id(),
            peer_life: established.peer_life,
            cipher: established.ratchet,
        }
    }
}

impl Cipher for Ratchet {
    const OVERHEAD: usize = Ratchet::OVERHEAD;

    fn seal(&mut self, rng: &mut impl CryptoRng, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), CannotSeal> {
        self.encrypt(rng, plaintext, out).map_err(|_| CannotSeal)
    }

    fn open(&mut self, rng: &mut impl CryptoRng, message: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError> {
        self.decrypt(rng, message, out).map_err(|error| match error {
            happy_crypto::OpenError::Repeated => OpenError::Repeated,
            happy_crypto::OpenError::CannotBeOpened => OpenError::CannotBeOpened,
        })
    }

    fn can_seal(&self) -> bool {
        self.can_send()
    }
}
