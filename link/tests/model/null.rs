//! Cryptography that protects nothing and costs nothing: it tells messages apart, finds changed bytes and knows repetitions, like
//! the real one, so that a simulation of the link means something.

use std::collections::BTreeSet;

use happy_crypto::DeviceId;
use happy_link::{
    CannotSeal, Cipher, Established, HelloPlan, Life, NoWelcome, OpenError, PairSecrets, RefusalReason, Suite, Welcomed,
};
use rand_core::CryptoRng;

/// What a receiver skips at most, as the ratchet does.
const MAX_SKIPPED: u64 = 512;

fn hash(parts: &[&[u8]]) -> [u8; 8] {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        // A whole word at a time: this is no more than a checksum.
        for chunk in part.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
        hash = (hash ^ part.len() as u64).wrapping_mul(0x0100_0000_01b3);
    }
    hash.to_be_bytes()
}

pub struct NullCipher {
    key: [u8; 8],
    me: u8,
    sent: u64,
    newest: u64,
    missing: BTreeSet<u64>,
    may_seal: bool,
    /// The time that the link has told last.
    time: u64,
}

impl Cipher for NullCipher {
    const OVERHEAD: usize = 16;

    fn seal(&mut self, _: &mut impl CryptoRng, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), CannotSeal> {
        if !self.may_seal {
            return Err(CannotSeal);
        }
        self.sent += 1;
        let number = self.sent.to_be_bytes();
        out.extend_from_slice(&number);
        out.extend_from_slice(&hash(&[&self.key, &[self.me], &number, plaintext]));
        out.extend_from_slice(plaintext);
        Ok(())
    }

    fn open(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError> {
        let Some((number, rest)) = message.split_first_chunk::<8>() else { return Err(OpenError::CannotBeOpened) };
        let Some((tag, plaintext)) = rest.split_first_chunk::<8>() else { return Err(OpenError::CannotBeOpened) };
        if *tag != hash(&[&self.key, &[1 - self.me], number, plaintext]) {
            return Err(OpenError::CannotBeOpened);
        }
        let number = u64::from_be_bytes(*number);
        if number > self.newest {
            if number - self.newest > MAX_SKIPPED {
                return Err(OpenError::CannotBeOpened);
            }
            self.missing.extend(self.newest + 1..number);
            self.newest = number;
        } else if !self.missing.remove(&number) {
            return Err(OpenError::Repeated);
        }
        self.may_seal = true;
        out.extend_from_slice(plaintext);
        Ok(())
    }

    fn can_seal(&self) -> bool {
        self.may_seal
    }

    fn expire(&mut self, now: u64) {
        // A ratchet takes 0 for a clock that nobody winds, and turns with each answer.
        assert!(now > 0, "a ratchet is told that it is 0 o'clock");
        assert!(now >= self.time, "the clock of a link goes back, from {} s to {now}", self.time);
        self.time = now;
    }
}

#[derive(Clone)]
pub struct NullSuite {
    pub device: DeviceId,
}

pub struct NullInitiator {
    hello: Vec<u8>,
    peer: DeviceId,
}

pub struct NullResponder {
    hello: Vec<u8>,
    welcome: Vec<u8>,
}

// Two devices, a nonce, a life, the number of the secret, the session to go on with, a checksum.
const HELLO: usize = 32 + 32 + 8 + 16 + 8 + 16 + 8;
// The hello, a nonce, a life, whether the session goes on, a checksum.
const WELCOME: usize = 8 + 8 + 16 + 1 + 8;

fn established(hello: &[u8], welcome: &[u8], peer: DeviceId, life: &[u8], me: u8) -> Established<NullCipher, u64> {
    let (left, right) = (hash(&[b"session", hello, welcome]), hash(&[welcome, hello]));
    let mut session = [0; 16];
    session[..8].copy_from_slice(&left);
    session[8..].copy_from_slice(&right);
    let cipher = NullCipher { key: left, me, sent: 0, newest: 0, missing: BTreeSet::new(), may_seal: me == 0, time: 0 };
    let next_secret = u64::from_be_bytes(hash(&[b"secret", &session]));
    let resumes = welcome[32] == 1;
    Established { session, peer, peer_life: life.try_into().unwrap(), cipher, resumes, next_secret }
}

impl Suite for NullSuite {
    type Cipher = NullCipher;
    type Record = DeviceId;
    type Bundle = DeviceId;
    type Secret = u64;
    type Initiator = NullInitiator;
    type Responder = NullResponder;

    fn device(&self) -> DeviceId {
        self.device
    }

    fn record_device(record: &DeviceId) -> DeviceId {
        *record
    }

    fn bundle_device(bundle: &DeviceId) -> DeviceId {
        *bundle
    }

    fn sign_login(&self, _: &[u8]) -> [u8; 64] {
        [0; 64]
    }

    fn start(
        &self,
        rng: &mut impl CryptoRng,
        peer: &DeviceId,
        secret: &u64,
        plan: HelloPlan,
    ) -> Option<(NullInitiator, Vec<u8>)> {
        let mut nonce = [0; 8];
        rng.fill_bytes(&mut nonce);
        let resumes = plan.resumes.unwrap_or_default();
        let devices = [self.device.as_bytes(), &peer.as_bytes()[..]].concat();
        let mut hello = [&devices[..], &nonce, &plan.life, &secret.to_be_bytes(), &resumes].concat();
        let tag = hash(&[&hello]);
        hello.extend_from_slice(&tag);
        Some((NullInitiator { hello: hello.clone(), peer: *peer }, hello))
    }

    fn welcome(
        &self,
        _: &mut impl CryptoRng,
        initiator: &NullInitiator,
        welcome: &[u8],
    ) -> Option<(Established<NullCipher, u64>, Vec<u8>)> {
        if welcome.len() != WELCOME || welcome[..8] != hash(&[b"hello", &initiator.hello]) {
            return None;
        }
        if welcome[33..] != hash(&[b"welcome", &welcome[..33]]) {
            return None;
        }
        let established = established(&initiator.hello, welcome, initiator.peer, &welcome[16..32], 0);
        Some((established, hash(&[b"confirm", welcome]).to_vec()))
    }

    fn answer(
        &self,
        rng: &mut impl CryptoRng,
        peer: &DeviceId,
        secrets: &PairSecrets<u64>,
        hello: &[u8],
        life: Life,
        session: Option<[u8; 16]>,
    ) -> Result<Welcomed<NullResponder, u64>, NoWelcome> {
        let mine = hello.len() == HELLO
            && hello[..32] == peer.as_bytes()[..]
            && hello[32..64] == self.device.as_bytes()[..]
            && hello[112..] == hash(&[&hello[..112]]);
        if !mine {
            return Err(NoWelcome::Ignore);
        }
        let number = u64::from_be_bytes(hello[88..96].try_into().unwrap());
        if number != secrets.current && Some(number) != secrets.previous {
            return Err(NoWelcome::Refuse(RefusalReason::UnknownSecret));
        }
        let resumes = session.filter(|session| hello[96..112] == *session);
        let mut nonce = [0; 8];
        rng.fill_bytes(&mut nonce);
        let mut welcome = [&hash(&[b"hello", hello])[..], &nonce, &life, &[resumes.is_some().into()]].concat();
        let tag = hash(&[b"welcome", &welcome]);
        welcome.extend_from_slice(&tag);
        let responder = NullResponder { hello: hello.to_vec(), welcome: welcome.clone() };
        Ok(Welcomed { responder, welcome, resumes, secret: number })
    }

    fn confirm(&self, responder: &NullResponder, confirm: &[u8]) -> Option<Established<NullCipher, u64>> {
        if confirm != hash(&[b"confirm", &responder.welcome]) {
            return None;
        }
        let peer = DeviceId::from_bytes(*responder.hello.first_chunk()?);
        Some(established(&responder.hello, &responder.welcome, peer, &responder.hello[72..88], 1))
    }

    fn same_secret(one: &u64, other: &u64) -> bool {
        one == other
    }

    fn newer_bundle(&self, _: &DeviceId, _: &[u8]) -> Option<DeviceId> {
        None
    }

    fn is_hello_of(&self, device: &DeviceId, hello: &[u8]) -> bool {
        hello.len() == HELLO && hello[..32] == device.as_bytes()[..] && hello[32..64] == self.device.as_bytes()[..]
    }

    fn refuse(&self, reason: RefusalReason, hello: &[u8]) -> Vec<u8> {
        let reason = [reason.into()];
        [&hash(&[b"refused", hello, &reason])[..], &reason].concat()
    }

    fn refusal(&self, _: &DeviceId, initiator: &NullInitiator, refused: &[u8]) -> Option<RefusalReason> {
        let (tag, reason) = refused.split_first_chunk::<8>()?;
        let known = *tag == hash(&[b"refused", &initiator.hello, reason]);
        Some(reason.first().copied().filter(|_| known)?.into())
    }
}
