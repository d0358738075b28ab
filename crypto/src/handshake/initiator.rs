//! The side that scanned, joined, or connects again.

use std::fmt;

use rand_core::CryptoRng;
use x25519_dalek::StaticSecret;

use crate::{
    Bundle, HandshakeError, Identity, IdentityRecord, Ratchet,
    agreement::{self, AgreementKey, agree},
    kem::KemSecret,
    reader::Reader,
    secret::ChainSecret,
};

use super::{
    CONFIRM_LEN, Established, MAX_CONTEXT, Shared, WELCOME_LEN,
    hello::{HelloFields, hello_hash},
    key_schedule::{HelloKeys, SessionKeys, prefix, same, session_id, transcript_1, transcript_2},
};

/// An initiator that has sent Hello and waits for Welcome.
pub struct Initiator {
    identity_secret: StaticSecret,
    pub(super) ephemeral: StaticSecret,
    pub(super) kem_secret: KemSecret,
    chain_secret: ChainSecret,
    secret_number: u64,
    t1: [u8; 32],
    mac_1: [u8; 32],
    peer: IdentityRecord,
    hello_hash: [u8; 32],
}

impl Initiator {
    /// Begins a handshake and returns the Hello to send. `life` is this device's own life nonce.
    ///
    /// # Errors
    /// When the bundle is this device's own, the context is too long, or a key of the bundle is weak.
    pub fn start(
        rng: &mut impl CryptoRng,
        me: &Identity,
        peer: &Bundle,
        shared: Shared<'_>,
        life: [u8; 16],
        context: &[u8],
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        if context.len() > MAX_CONTEXT {
            return Err(HandshakeError::ContextTooLong);
        }
        if peer.identity().device_id() == me.device_id() {
            return Err(HandshakeError::Reflected);
        }
        let ephemeral = agreement::generate(rng);
        let kem_secret = KemSecret::generate(rng);
        let one_time = peer.one_time_prekey();
        let mut hello = HelloFields {
            purpose: shared.purpose(),
            initiator: me.record(),
            responder: peer.identity().device_id(),
            ephemeral: &AgreementKey::of(&ephemeral),
            kem_key: &kem_secret.public(),
            signed_prekey_id: peer.signed_prekey_id(),
            one_time_prekey_id: one_time.map_or(0, |(id, _)| *id),
            secret_name: shared.name(),
            life: &life,
            context,
        }
        .encode();
        let t1 = transcript_1(&hello, peer.identity(), peer.signed_prekey(), one_time.map(|(_, key)| key));

        let dh1 = agree(me.agreement(), peer.signed_prekey())?;
        let dh2 = agree(&ephemeral, &peer.identity().agreement_key())?;
        let dh3 = agree(&ephemeral, peer.signed_prekey())?;
        let dh4 = one_time.map(|(_, key)| agree(&ephemeral, key)).transpose()?;
        let keys = HelloKeys::derive([&dh1, &dh2, &dh3], dh4.as_ref(), shared.key(), &t1);
        hello.extend_from_slice(&keys.mac_1);

        let initiator = Self {
            identity_secret: me.agreement().clone(),
            ephemeral,
            kem_secret,
            chain_secret: keys.chain_secret,
            secret_number: shared.number(),
            t1,
            mac_1: keys.mac_1,
            peer: peer.identity().clone(),
            hello_hash: hello_hash(&hello),
        };
        Ok((initiator, hello))
    }

    /// Verifies a Welcome; returns the session and the Confirm to send. The session can send at once, after Confirm.
    ///
    /// # Errors
    /// When the Welcome belongs to another handshake or is not genuine. The initiator goes on waiting.
    pub fn welcome(&self, rng: &mut impl CryptoRng, welcome: &[u8]) -> Result<(Established, Vec<u8>), HandshakeError> {
        let mut reader = Reader::new(welcome);
        reader.version_and_suite()?;
        let echo: &[u8; 16] = reader.array()?;
        let ephemeral = reader.array()?;
        let kem_ciphertext = reader.array()?;
        let ratchet_key = reader.array()?;
        let life = *reader.array()?;
        let reply = reader.u8()?;
        let mac_2 = reader.array()?;
        reader.finish()?;
        if *echo != prefix(&self.t1) {
            return Err(HandshakeError::NotMine);
        }
        let ephemeral = AgreementKey::decode(ephemeral)?;
        let ratchet_key = AgreementKey::decode(ratchet_key)?;

        let t2 = transcript_2(&self.t1, &self.mac_1, &welcome[..WELCOME_LEN - 32]);
        let dh5 = agree(&self.ephemeral, &ephemeral)?;
        let dh6 = agree(&self.identity_secret, &ephemeral)?;
        let kem = self.kem_secret.decapsulate(kem_ciphertext);
        let keys = SessionKeys::derive(&self.chain_secret, &dh5, &dh6, &kem, &t2);
        if !same(&keys.mac_2(&t2), mac_2) {
            return Err(HandshakeError::NotAuthentic);
        }

        let session_id = session_id(&t2);
        let ratchet = Ratchet::initiator(
            rng,
            session_id,
            &keys.root,
            &ratchet_key,
            keys.header_from_initiator.clone(),
            keys.next_header_from_responder.clone(),
        )?;
        let mut confirm = Vec::with_capacity(CONFIRM_LEN);
        confirm.extend_from_slice(&prefix(&t2));
        confirm.extend_from_slice(&keys.mac_3(&t2, mac_2));
        let established =
            Established::new(session_id, self.peer.clone(), (life, reply), ratchet, self.secret_number, keys.exporter);
        Ok((established, confirm))
    }

    /// Whether a Welcome names this handshake. It says nothing about whether the Welcome is genuine.
    #[must_use]
    pub fn matches_welcome(&self, welcome: &[u8]) -> bool {
        welcome.get(2..18) == Some(&prefix(&self.t1)[..])
    }

    /// The hash by which a [`Refused`](super::Refused) would name the Hello.
    #[must_use]
    pub fn hello_hash(&self) -> [u8; 32] {
        self.hello_hash
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator").field("peer", &self.peer.device_id()).finish_non_exhaustive()
    }
}
