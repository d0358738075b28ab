//! The cryptography that a link needs, behind two small traits, so that simulations can run thousands of seeds with a
//! cipher that costs nothing. [`Keys`] is the real one.

use happy_crypto::handshake::{HelloView, Initiator, PairSecret, Purpose, Refused, Responder, Shared};
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
    fn open(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError>;
    /// Whether sealing is possible yet: the responder has to open a first message before.
    fn can_seal(&self) -> bool;
    /// Time has passed: seconds from 1, standing still while nothing can arrive. What waits for late messages may be forgotten. A link tells it before the
    /// first message and with each that comes.
    fn expire(&mut self, _now: u64) {}
    /// Packets came in a time that [`Cipher::expire`] was not told of: what waits for time to pass need not wait any longer.
    fn time_stood_still(&mut self) {}
}

/// What two devices share between handshakes (`PROTOCOL 5`, "The pair secret").
#[derive(Debug, Clone)]
pub struct PairSecrets<K = PairSecret> {
    /// The newest that this device has stored.
    pub current: K,
    /// The one before. A responder drops it when the initiator has shown that it has stored the current one; an initiator uses it when
    /// the responder does not know the current one.
    pub previous: Option<K>,
}

/// A Hello as its link wants it.
#[derive(Debug, Clone, Copy)]
pub struct HelloPlan {
    /// The life nonce of this device.
    pub life: Life,
    /// The session that the initiator would go on with.
    pub resumes: Option<[u8; 16]>,
}

/// A Welcome that was made.
pub struct Welcomed<P, K = PairSecret> {
    /// Waits for the Confirm.
    pub responder: P,
    /// The bytes to send.
    pub welcome: Vec<u8>,
    /// The session that goes on.
    pub resumes: Option<[u8; 16]>,
    /// The pair secret that the initiator used.
    pub secret: K,
}

/// A session that both sides have proved to each other.
pub struct Established<C, K = PairSecret> {
    /// Names the session in packets.
    pub session: [u8; 16],
    /// Who the other side has proved to be.
    pub peer: DeviceId,
    /// The life nonce of the other side.
    pub peer_life: Life,
    /// Seals and opens from now on.
    pub cipher: C,
    /// The responder goes on with the session that the initiator named, under these new keys.
    pub resumes: bool,
    /// What the next handshake will mix in.
    pub next_secret: K,
}

/// Why a Hello is not answered with a Welcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoWelcome {
    /// It is not genuine, or not meant for this device: say nothing.
    Ignore,
    /// Tell the initiator why, signed (`PROTOCOL 5`, Refused).
    Refuse(RefusalReason),
    /// Its copy of the bundle is too old: send it the current one (`PROTOCOL 3`).
    SendBundle(Vec<u8>),
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
    /// The initiator comes with an old pair secret: it was restored from a copy, or somebody else has used a copy of it.
    UnknownSecret,
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
            6 => Self::UnknownSecret,
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
            RefusalReason::UnknownSecret => 6,
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
    /// What two devices share between handshakes.
    type Secret: Clone;
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
    fn start(
        &self,
        rng: &mut impl CryptoRng,
        bundle: &Self::Bundle,
        secret: &Self::Secret,
        plan: HelloPlan,
    ) -> Option<(Self::Initiator, Vec<u8>)>;
    /// Checks a Welcome and gives the session and the Confirm, or nothing when it is not genuine.
    #[allow(clippy::type_complexity, reason = "the two things that a Welcome gives")]
    fn welcome(
        &self,
        rng: &mut impl CryptoRng,
        initiator: &Self::Initiator,
        welcome: &[u8],
    ) -> Option<(Established<Self::Cipher, Self::Secret>, Vec<u8>)>;
    /// Checks a Hello of `peer` and answers it. `session` is the one that there is, and could go on.
    ///
    /// # Errors
    /// [`NoWelcome`] when the Hello is not genuine or asks for what this device does not have.
    fn answer(
        &self,
        rng: &mut impl CryptoRng,
        peer: &Self::Record,
        secrets: &PairSecrets<Self::Secret>,
        hello: &[u8],
        life: Life,
        session: Option<[u8; 16]>,
    ) -> Result<Welcomed<Self::Responder, Self::Secret>, NoWelcome>;
    /// Checks a Confirm, or gives nothing when it does not belong to this Welcome.
    fn confirm(&self, responder: &Self::Responder, confirm: &[u8]) -> Option<Established<Self::Cipher, Self::Secret>>;
    /// Whether both are the same secret.
    fn same_secret(one: &Self::Secret, other: &Self::Secret) -> bool;
    /// The bundle in `bytes`, if its owner made it later than `current`.
    fn newer_bundle(&self, current: &Self::Bundle, bytes: &[u8]) -> Option<Self::Bundle>;
    /// Whether the bytes are a Hello for a link that this device initiated to us, as far as can be told without its secrets.
    fn is_hello_of(&self, device: &DeviceId, hello: &[u8]) -> bool;
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
    type Secret = PairSecret;
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

    fn start(
        &self,
        rng: &mut impl CryptoRng,
        bundle: &Bundle,
        secret: &PairSecret,
        plan: HelloPlan,
    ) -> Option<(Initiator, Vec<u8>)> {
        let context = plan.resumes.as_ref().map_or(&[][..], |session| session);
        Initiator::start(rng, &self.identity, bundle, Shared::Pair(secret), plan.life, context).ok()
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
        secrets: &PairSecrets,
        hello: &[u8],
        life: Life,
        session: Option<[u8; 16]>,
    ) -> Result<Welcomed<Responder>, NoWelcome> {
        let view = HelloView::parse(hello).map_err(|_| NoWelcome::Ignore)?;
        // The relay wrote who the sender is, and the pairing what its record is; a Hello of anybody else is not for this link.
        if view.initiator() != peer || view.responder() != self.device() || view.purpose() != Purpose::Link {
            return Err(NoWelcome::Ignore);
        }
        let mut known = [Some(&secrets.current), secrets.previous.as_ref()].into_iter().flatten();
        let Some(secret) = known.find(|secret| secret.name() == view.secret_name()) else {
            return Err(NoWelcome::Refuse(RefusalReason::UnknownSecret));
        };
        let prekey = self.prekeys.iter().find(|prekey| prekey.id() == view.signed_prekey_id());
        let Some(prekey) = prekey.filter(|_| view.one_time_prekey_id() == 0) else {
            return Err(match self.prekeys.last() {
                Some(newest) => NoWelcome::SendBundle(Bundle::new(&self.identity, newest, None).as_bytes().to_vec()),
                None => NoWelcome::Refuse(RefusalReason::UnknownPrekey),
            });
        };
        let resumes = session.filter(|session| view.context() == session);
        let (shared, reply) = (Shared::Pair(secret), resumes.is_some().into());
        let answer = Responder::answer(rng, &self.identity, prekey, None, hello, (life, reply), shared);
        let (responder, welcome) = answer.map_err(|error| match error {
            HandshakeError::UnknownPrekey => NoWelcome::Refuse(RefusalReason::UnknownPrekey),
            _ => NoWelcome::Ignore,
        })?;
        Ok(Welcomed { responder, welcome, resumes, secret: secret.clone() })
    }

    fn confirm(&self, responder: &Responder, confirm: &[u8]) -> Option<Established<Ratchet>> {
        responder.confirm(confirm).ok().map(Into::into)
    }

    fn same_secret(one: &PairSecret, other: &PairSecret) -> bool {
        one.name() == other.name()
    }

    fn newer_bundle(&self, current: &Bundle, bytes: &[u8]) -> Option<Bundle> {
        Bundle::decode(bytes).ok().filter(|bundle| bundle.supersedes(current))
    }

    fn is_hello_of(&self, device: &DeviceId, hello: &[u8]) -> bool {
        HelloView::parse(hello).is_ok_and(|view| {
            view.initiator().device_id() == *device
                && view.responder() == self.device()
                && view.purpose() == Purpose::Link
        })
    }

    fn refuse(&self, reason: RefusalReason, hello: &[u8]) -> Vec<u8> {
        Refused::sign(&self.identity, reason.into(), hello)
    }

    fn refusal(&self, peer: &DeviceId, initiator: &Initiator, refused: &[u8]) -> Option<RefusalReason> {
        Refused::verify(peer, &initiator.hello_hash(), refused).ok().map(Into::into)
    }
}

impl From<happy_crypto::handshake::Established> for Established<Ratchet> {
    fn from(mut established: happy_crypto::handshake::Established) -> Self {
        established.ratchet.turn_once_a_second();
        Self {
            session: established.session_id,
            peer: established.peer.device_id(),
            peer_life: established.peer_life,
            resumes: established.reply == 1,
            next_secret: established.next_pair_secret(),
            cipher: established.ratchet,
        }
    }
}

impl Cipher for Ratchet {
    const OVERHEAD: usize = Ratchet::OVERHEAD;

    fn seal(&mut self, rng: &mut impl CryptoRng, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), CannotSeal> {
        self.encrypt(rng, plaintext, out).map_err(|_| CannotSeal)
    }

    fn open(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError> {
        self.decrypt(message, out).map_err(|error| match error {
            happy_crypto::OpenError::Repeated => OpenError::Repeated,
            happy_crypto::OpenError::CannotBeOpened => OpenError::CannotBeOpened,
        })
    }

    fn can_seal(&self) -> bool {
        self.can_send()
    }

    fn expire(&mut self, now: u64) {
        Ratchet::expire(self, now);
    }

    fn time_stood_still(&mut self) {
        self.turn_without_waiting();
    }
}
