//! The formulas of PROTOCOL 5, each above the line that computes it.

use subtle::ConstantTimeEq;
use x25519_dalek::SharedSecret;
use zeroize::Zeroizing;

use crate::{
    IdentityRecord,
    agreement::AgreementKey,
    labelled_hash,
    secret::{ChainSecret, ConfirmKey, Exporter, HeaderKey, HelloKey, KemShared, RootKey, Secret32},
    suite::{expand, extract, hmac},
};

use super::WELCOME_LEN;

/// `T1`: the Hello and what it does not carry itself of the responder's bundle.
pub(super) fn transcript_1(
    hello_without_mac: &[u8],
    responder: &IdentityRecord,
    signed_prekey: &AgreementKey,
    one_time_prekey: Option<&AgreementKey>,
) -> [u8; 32] {
    // T1 = H("happy/1 transcript 1" ‖ u16 length of hello' ‖ hello' ‖ identity record of R ‖ signed prekey ‖ one-time prekey or 32 zeros)
    let length = (hello_without_mac.len() as u16).to_be_bytes();
    let one_time_prekey = one_time_prekey.map_or(&[0; 32], AgreementKey::as_bytes);
    labelled_hash(
        "happy/1 transcript 1",
        &[&length, hello_without_mac, responder.as_bytes(), signed_prekey.as_bytes(), one_time_prekey],
    )
}

/// What the first four agreements give.
pub(super) struct HelloKeys {
    pub mac_1: [u8; 32],
    pub chain_secret: ChainSecret,
}

impl HelloKeys {
    pub fn derive(
        agreements: [&SharedSecret; 3],
        fourth: Option<&SharedSecret>,
        psk: &[u8; 32],
        t1: &[u8; 32],
    ) -> Self {
        let [dh1, dh2, dh3] = agreements.map(|dh| &dh.as_bytes()[..]);
        let dh4 = fourth.map_or(&[][..], |dh| dh.as_bytes());
        // prk1 = Extract(salt = 32 zeros, ikm = 32 × 0xFF ‖ DH1 ‖ DH2 ‖ DH3 ‖ [DH4] ‖ psk)
        let prk1 = extract(&[0; 32], &[&[0xFF; 32], dh1, dh2, dh3, dh4, psk]);
        // hello key ‖ chain secret = Expand(prk1, "happy/1 hello keys" ‖ T1, 64)
        let mut okm = Zeroizing::new([0; 64]);
        expand(&prk1, &[b"happy/1 hello keys", t1], &mut *okm);
        let (hello_key, chain_secret) = (HelloKey::take(&mut part(&okm, 0)), ChainSecret::take(&mut part(&okm, 1)));
        // mac_1 = HMAC(hello key, T1)
        Self { mac_1: hmac(hello_key.as_bytes(), &[t1]), chain_secret }
    }
}

/// `T2`: everything up to the Welcome.
pub(super) fn transcript_2(t1: &[u8; 32], mac_1: &[u8; 32], welcome_without_mac: &[u8]) -> [u8; 32] {
    // T2 = H("happy/1 transcript 2" ‖ T1 ‖ mac_1 ‖ welcome')
    debug_assert_eq!(welcome_without_mac.len(), WELCOME_LEN - 32);
    labelled_hash("happy/1 transcript 2", &[t1, mac_1, welcome_without_mac])
}

/// What all six agreements and the encapsulation give.
#[derive(Clone)]
pub(super) struct SessionKeys {
    confirm_responder: ConfirmKey,
    confirm_initiator: ConfirmKey,
    pub root: RootKey,
    /// Of the first chain of the initiator.
    pub header_from_initiator: HeaderKey,
    /// Of the first chain of the responder.
    pub next_header_from_responder: HeaderKey,
    pub exporter: Exporter,
}

impl SessionKeys {
    pub fn derive(
        chain_secret: &ChainSecret,
        dh5: &SharedSecret,
        dh6: &SharedSecret,
        kem: &KemShared,
        t2: &[u8; 32],
    ) -> Self {
        // prk2 = Extract(salt = chain secret, ikm = DH5 ‖ DH6 ‖ KEM)
        let prk2 = extract(chain_secret.as_bytes(), &[dh5.as_bytes(), dh6.as_bytes(), kem.as_bytes()]);
        // okm = Expand(prk2, "happy/1 session keys" ‖ T2, 192)
        let mut okm = Zeroizing::new([0; 192]);
        expand(&prk2, &[b"happy/1 session keys", t2], &mut *okm);
        Self {
            confirm_responder: ConfirmKey::take(&mut part(&okm, 0)),
            confirm_initiator: ConfirmKey::take(&mut part(&okm, 1)),
            root: RootKey::take(&mut part(&okm, 2)),
            header_from_initiator: HeaderKey::take(&mut part(&okm, 3)),
            next_header_from_responder: HeaderKey::take(&mut part(&okm, 4)),
            exporter: Exporter::take(&mut part(&okm, 5)),
        }
    }

    /// `mac_2 = HMAC(confirm_R, T2)`.
    pub fn mac_2(&self, t2: &[u8; 32]) -> [u8; 32] {
        hmac(self.confirm_responder.as_bytes(), &[t2])
    }

    /// `mac_3 = HMAC(confirm_I, T2 ‖ mac_2)`.
    pub fn mac_3(&self, t2: &[u8; 32], mac_2: &[u8; 32]) -> [u8; 32] {
        hmac(self.confirm_initiator.as_bytes(), &[t2, mac_2])
    }
}

/// `session id = first 16 bytes of H("happy/1 session id" ‖ T2)`.
pub(super) fn session_id(t2: &[u8; 32]) -> [u8; 16] {
    prefix(&labelled_hash("happy/1 session id", &[t2]))
}

/// The first half of a transcript hash, by which a message names its handshake.
pub(super) fn prefix(hash: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| hash[i])
}

pub(super) fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}

fn part<const N: usize>(okm: &[u8; N], index: usize) -> [u8; 32] {
    std::array::from_fn(|i| okm[32 * index + i])
}
