//! The side that published a bundle: the machine.

use std::fmt;

use rand_core::CryptoRng;
use x25519_dalek::StaticSecret;

use crate::{
    HandshakeError, Identity, IdentityRecord, OneTimePrekey, Ratchet, SUITE, SignedPrekey, VERSION,
    agreement::{self, AgreementKey, agree},
    kem::KemKey,
    reader::Reader,
};

use super::{
    Established, HelloView, Shared, WELCOME_LEN,
    key_schedule::{HelloKeys, SessionKeys, prefix, same, session_id, transcript_1, transcript_2},
};

/// A responder that has answered a genuine Hello and waits for Confirm. Having one is the proof that `mac_1` held.
pub struct Responder {
    keys: SessionKeys,
    ratchet_secret: StaticSecret,
    t2: [u8; 32],
    mac_2: [u8; 32],
    peer: IdentityRecord,
    peer_life: [u8; 16],
    reply: u8,
    secret_number: u64,
}

impl Responder {
    /// Verifies a Hello and returns the Welcome to send. `life` is this device's own life nonce, `reply` its answer to
    /// the context. Changes nothing of what it is given.
    ///
    /// # Errors
    /// When the Hello is for another device, prekey, purpose or pair secret, or is not genuine.
    pub fn answer(
        rng: &mut impl CryptoRng,
        me: &Identity,
        signed: &SignedPrekey,
        one_time: Option<&OneTimePrekey>,
        hello: &[u8],
        (life, reply): ([u8; 16], u8),
        shared: Shared<'_>,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let hello = HelloView::parse(hello)?;
        if hello.purpose() != shared.purpose() {
            return Err(HandshakeError::WrongPurpose);
        }
        if hello.responder() != me.device_id() {
            return Err(HandshakeError::NotMine);
        }
        if hello.initiator().device_id() == me.device_id() {
            return Err(HandshakeError::Reflected);
        }
        if hello.signed_prekey_id() != signed.id()
            || hello.one_time_prekey_id() != one_time.map_or(0, OneTimePrekey::id)
        {
            return Err(HandshakeError::UnknownPrekey);
        }
        if hello.secret_name() != shared.name() {
            return Err(HandshakeError::UnknownSecret);
        }

        let initiator_key = hello.initiator().agreement_key();
        let t1 = transcript_1(hello.without_mac(), me.record(), signed.public(), one_time.map(OneTimePrekey::public));
        let dh1 = agree(signed.secret(), &initiator_key)?;
        let dh2 = agree(me.agreement(), hello.ephemeral())?;
        let dh3 = agree(signed.secret(), hello.ephemeral())?;
        let dh4 = one_time.map(|prekey| agree(prekey.secret(), hello.ephemeral())).transpose()?;
        let hello_keys = HelloKeys::derive([&dh1, &dh2, &dh3], dh4.as_ref(), shared.key(), &t1);
        // PROTOCOL 5: R checks mac_1 before it answers or changes anything.
        if !same(&hello_keys.mac_1, hello.mac_1()) {
            return Err(HandshakeError::NotAuthentic);
        }

        let (kem_ciphertext, kem) = KemKey::decode(hello.kem_key())?.encapsulate(rng);
        let ephemeral = agreement::generate(rng);
        let ratchet_secret = agreement::generate(rng);
        let mut welcome = Vec::with_capacity(WELCOME_LEN);
        welcome.extend_from_slice(&[VERSION, SUITE]);
        welcome.extend_from_slice(&prefix(&t1));
        welcome.extend_from_slice(AgreementKey::of(&ephemeral).as_bytes());
        welcome.extend_from_slice(&kem_ciphertext);
        welcome.extend_from_slice(AgreementKey::of(&ratchet_secret).as_bytes());
        welcome.extend_from_slice(&life);
        welcome.push(reply);

        let t2 = transcript_2(&t1, &hello_keys.mac_1, &welcome);
        let dh5 = agree(&ephemeral, hello.ephemeral())?;
        let dh6 = agree(&ephemeral, &initiator_key)?;
        let keys = SessionKeys::derive(&hello_keys.chain_secret, &dh5, &dh6, &kem, &t2);
        let mac_2 = keys.mac_2(&t2);
        welcome.extend_from_slice(&mac_2);

        let responder = Self {
            keys,
            ratchet_secret,
            t2,
            mac_2,
            peer: hello.initiator().clone(),
            peer_life: hello.life(),
            reply,
            secret_number: shared.number(),
        };
        Ok((responder, welcome))
    }

    /// Verifies a Confirm and returns the session, which can send after it has received.
    ///
    /// # Errors
    /// When the Confirm belongs to another handshake or is not genuine. The responder goes on waiting.
    pub fn confirm(&self, confirm: &[u8]) -> Result<Established, HandshakeError> {
        let mut reader = Reader::new(confirm);
        let t2_prefix: &[u8; 16] = reader.array()?;
        let mac_3 = reader.array()?;
        reader.finish()?;
        if *t2_prefix != prefix(&self.t2) {
            return Err(HandshakeError::NotMine);
        }
        if !same(&self.keys.mac_3(&self.t2, &self.mac_2), mac_3) {
            return Err(HandshakeError::NotAuthentic);
        }
        let session_id = session_id(&self.t2);
        let keys = self.keys.clone();
        let ratchet = Ratchet::responder(
            session_id,
            keys.root.clone(),
            self.ratchet_secret.clone(),
            keys.header_from_initiator.clone(),
            keys.next_header_from_responder.clone(),
        );
        let (peer, number) = (self.peer.clone(), self.secret_number);
        Ok(Established::new(session_id, peer, (self.peer_life, self.reply), ratchet, number, keys.exporter))
    }

    /// Whether a Confirm names this handshake. It says nothing about whether the Confirm is genuine.
    #[must_use]
    pub fn matches_confirm(&self, confirm: &[u8]) -> bool {
        confirm.get(..16) == Some(&prefix(&self.t2)[..])
    }

    /// Whose Hello it was.
    #[must_use]
    pub fn peer(&self) -> &IdentityRecord {
        &self.peer
    }

    /// The life nonce of the initiator.
    #[must_use]
    pub fn peer_life(&self) -> [u8; 16] {
        self.peer_life
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").field("peer", &self.peer.device_id()).finish_non_exhaustive()
    }
}
