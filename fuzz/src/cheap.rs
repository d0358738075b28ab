//! Cryptography for the search in the state machine of a link: by default one that costs nothing and protects nothing, so that an input is
//! much cheaper and the search can itself make every message of a handshake; or the real one.
//!
//! Both are one type, so that the link is compiled once and the search counts a path through it once, whatever the cryptography.

use std::collections::BTreeSet;

use happy_crypto::handshake::PairSecret;
use happy_crypto::{Bundle, DeviceId, IdentityRecord, Ratchet, handshake};
use happy_link::{
    CannotSeal, Cipher, Established, HelloPlan, Keys, Life, NoWelcome, OpenError, PairSecrets, RefusalReason, Suite,
    Welcomed,
};
use rand_core::CryptoRng;

/// What a receiver skips at most, as the ratchet does.
const MAX_SKIPPED: u64 = 512;
/// The name of a pair secret, a life, the session to go on with.
const HELLO: usize = 8 + 16 + 16;
/// What of the Hello is different each time, a life, whether the session goes on.
const WELCOME: usize = 8 + 16 + 1;

/// The keys of a device.
pub enum AnySuite {
    /// Nothing is secret. The peer is whoever the link says.
    Cheap { me: DeviceId, peer: DeviceId },
    /// The product's.
    Real(Box<Keys>),
}

pub enum AnyCipher {
    Cheap(CheapCipher),
    Real(Box<Ratchet>),
}

pub enum AnyInitiator {
    Cheap(Vec<u8>),
    Real(Box<handshake::Initiator>),
}

pub enum AnyResponder {
    Cheap { hello: Vec<u8>, welcome: Vec<u8> },
    Real(Box<handshake::Responder>),
}

/// Only numbers the messages: repetitions and gaps are known, and every other message opens.
pub struct CheapCipher {
    sent: u64,
    newest: u64,
    missing: BTreeSet<u64>,
    may_seal: bool,
}

impl Cipher for AnyCipher {
    const OVERHEAD: usize = Ratchet::OVERHEAD;

    fn seal(&mut self, rng: &mut impl CryptoRng, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), CannotSeal> {
        let cheap = match self {
            Self::Real(ratchet) => return ratchet.seal(rng, plaintext, out),
            Self::Cheap(cheap) => cheap,
        };
        if !cheap.may_seal {
            return Err(CannotSeal);
        }
        cheap.sent += 1;
        out.extend_from_slice(&cheap.sent.to_be_bytes());
        out.resize(out.len() + Self::OVERHEAD - 8, 0);
        out.extend_from_slice(plaintext);
        Ok(())
    }

    fn open(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError> {
        let cheap = match self {
            Self::Real(ratchet) => return ratchet.open(message, out),
            Self::Cheap(cheap) => cheap,
        };
        let (overhead, plaintext) = message.split_at_checked(Self::OVERHEAD).ok_or(OpenError::CannotBeOpened)?;
        let number = overhead.first_chunk().map_or(0, |number| u64::from_be_bytes(*number));
        if number > cheap.newest {
            if number - cheap.newest > MAX_SKIPPED {
                return Err(OpenError::CannotBeOpened);
            }
            cheap.missing.extend(cheap.newest + 1..number);
            cheap.newest = number;
        } else if !cheap.missing.remove(&number) {
            return Err(OpenError::Repeated);
        }
        cheap.may_seal = true;
        out.extend_from_slice(plaintext);
        Ok(())
    }

    fn can_seal(&self) -> bool {
        match self {
            Self::Cheap(cheap) => cheap.may_seal,
            Self::Real(ratchet) => ratchet.can_seal(),
        }
    }

    fn expire(&mut self, now: u64) {
        match self {
            Self::Cheap(cheap) => cheap.missing.clear(),
            Self::Real(ratchet) => ratchet.expire(now),
        }
    }
}

/// A secret that follows from the messages and is not the one before it.
fn next_secret(parts: [&[u8]; 2]) -> Option<PairSecret> {
    let sum = parts.concat().iter().fold(3_u8, |sum, byte| sum.wrapping_mul(5).wrapping_add(*byte));
    PairSecret::from_bytes(&[sum.max(2); PairSecret::STORED_LEN]).ok()
}

fn cheaply(
    hello: &[u8],
    welcome: &[u8],
    peer: DeviceId,
    life: Option<&Life>,
    initiates: bool,
) -> Option<Established<AnyCipher>> {
    let mut session = [0; 16];
    session.copy_from_slice(&[hello.get(..8)?, welcome.get(..8)?].concat());
    let cipher = CheapCipher { sent: 0, newest: 0, missing: BTreeSet::new(), may_seal: initiates };
    Some(Established {
        session,
        peer,
        peer_life: *life?,
        cipher: AnyCipher::Cheap(cipher),
        resumes: welcome.last() == Some(&1),
        next_secret: next_secret([hello, welcome])?,
    })
}

fn really(established: Established<Ratchet>) -> Established<AnyCipher> {
    let Established { session, peer, peer_life, cipher, resumes, next_secret } = established;
    Established { session, peer, peer_life, cipher: AnyCipher::Real(Box::new(cipher)), resumes, next_secret }
}

impl Suite for AnySuite {
    type Cipher = AnyCipher;
    type Record = IdentityRecord;
    type Bundle = Bundle;
    type Secret = PairSecret;
    type Initiator = AnyInitiator;
    type Responder = AnyResponder;

    fn device(&self) -> DeviceId {
        match self {
            Self::Cheap { me, .. } => *me,
            Self::Real(keys) => keys.device(),
        }
    }

    fn record_device(record: &IdentityRecord) -> DeviceId {
        Keys::record_device(record)
    }

    fn bundle_device(bundle: &Bundle) -> DeviceId {
        Keys::bundle_device(bundle)
    }

    fn sign_login(&self, message: &[u8]) -> [u8; 64] {
        match self {
            Self::Cheap { .. } => [0; 64],
            Self::Real(keys) => keys.sign_login(message),
        }
    }

    fn start(
        &self,
        rng: &mut impl CryptoRng,
        bundle: &Bundle,
        secret: &PairSecret,
        plan: HelloPlan,
    ) -> Option<(AnyInitiator, Vec<u8>)> {
        if let Self::Real(keys) = self {
            let (initiator, hello) = keys.start(rng, bundle, secret, plan)?;
            return Some((AnyInitiator::Real(Box::new(initiator)), hello));
        }
        let hello = [&secret.name()[..], &plan.life, &plan.resumes.unwrap_or_default()].concat();
        Some((AnyInitiator::Cheap(hello.clone()), hello))
    }

    fn welcome(
        &self,
        rng: &mut impl CryptoRng,
        initiator: &AnyInitiator,
        welcome: &[u8],
    ) -> Option<(Established<AnyCipher>, Vec<u8>)> {
        match (self, initiator) {
            (Self::Real(keys), AnyInitiator::Real(initiator)) => {
                let (established, confirm) = keys.welcome(rng, initiator, welcome)?;
                Some((really(established), confirm))
            }
            (Self::Cheap { peer, .. }, AnyInitiator::Cheap(hello)) if welcome.len() == WELCOME => {
                let life = welcome[8..].first_chunk();
                Some((cheaply(hello, welcome, *peer, life, true)?, welcome[..8].to_vec()))
            }
            _ => None,
        }
    }

    fn answer(
        &self,
        rng: &mut impl CryptoRng,
        peer: &IdentityRecord,
        secrets: &PairSecrets,
        hello: &[u8],
        life: Life,
        session: Option<[u8; 16]>,
    ) -> Result<Welcomed<AnyResponder>, NoWelcome> {
        if let Self::Real(keys) = self {
            let Welcomed { responder, welcome, resumes, secret } =
                keys.answer(rng, peer, secrets, hello, life, session)?;
            return Ok(Welcomed { responder: AnyResponder::Real(Box::new(responder)), welcome, resumes, secret });
        }
        if hello.len() != HELLO {
            return Err(NoWelcome::Ignore);
        }
        let mut known = [Some(&secrets.current), secrets.previous.as_ref()].into_iter().flatten();
        let Some(secret) = known.find(|secret| secret.name()[..] == hello[..8]) else {
            return Err(NoWelcome::Refuse(RefusalReason::UnknownSecret));
        };
        let resumes = session.filter(|session| hello.ends_with(session));
        let mut nonce = [0; 8];
        rng.fill_bytes(&mut nonce);
        let welcome = [&nonce[..], &life, &[resumes.is_some().into()]].concat();
        let responder = AnyResponder::Cheap { hello: hello.to_vec(), welcome: welcome.clone() };
        Ok(Welcomed { responder, welcome, resumes, secret: secret.clone() })
    }

    fn confirm(&self, responder: &AnyResponder, confirm: &[u8]) -> Option<Established<AnyCipher>> {
        match (self, responder) {
            (Self::Real(keys), AnyResponder::Real(responder)) => keys.confirm(responder, confirm).map(really),
            (Self::Cheap { peer, .. }, AnyResponder::Cheap { hello, welcome }) if welcome.starts_with(confirm) => {
                cheaply(hello, welcome, *peer, hello[8..].first_chunk(), false)
            }
            _ => None,
        }
    }

    fn same_secret(one: &PairSecret, other: &PairSecret) -> bool {
        Keys::same_secret(one, other)
    }

    fn newer_bundle(&self, current: &Bundle, bytes: &[u8]) -> Option<Bundle> {
        match self {
            Self::Cheap { .. } => (bytes == [1]).then(|| current.clone()),
            Self::Real(keys) => keys.newer_bundle(current, bytes),
        }
    }

    fn is_hello_of(&self, device: &DeviceId, hello: &[u8]) -> bool {
        match self {
            Self::Cheap { .. } => hello.len() == HELLO,
            Self::Real(keys) => keys.is_hello_of(device, hello),
        }
    }

    fn refuse(&self, reason: RefusalReason, hello: &[u8]) -> Vec<u8> {
        match self {
            Self::Cheap { .. } => vec![reason.into()],
            Self::Real(keys) => keys.refuse(reason, hello),
        }
    }

    fn refusal(&self, peer: &DeviceId, initiator: &AnyInitiator, refused: &[u8]) -> Option<RefusalReason> {
        match (self, initiator) {
            (Self::Real(keys), AnyInitiator::Real(initiator)) => keys.refusal(peer, initiator, refused),
            (Self::Cheap { .. }, AnyInitiator::Cheap(_)) => refused.first().map(|reason| (*reason).into()),
            _ => None,
        }
    }
}
