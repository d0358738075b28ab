//! PROTOCOL 5. The agreements are computed by the caller, who may be either side.

use super::{SUITE, VERSION, expand, extract, hash, hmac, primitives::part};

/// The fields of a Hello.
pub struct HelloFields<'a> {
    /// 1 pairing, 2 link.
    pub purpose: u8,
    /// Identity record of I.
    pub initiator: &'a [u8; 129],
    /// Device id of R.
    pub responder: &'a [u8; 32],
    /// EK_I.
    pub ephemeral: &'a [u8; 32],
    /// The ML-KEM-768 key of this handshake.
    pub kem_key: &'a [u8; 1_184],
    /// Of R.
    pub signed_prekey_id: u32,
    /// Of R, 0 for none.
    pub one_time_prekey_id: u32,
    /// Of the pair secret, zeros for an invitation.
    pub secret_name: [u8; 8],
    /// Life nonce of I.
    pub life: &'a [u8; 16],
    /// The origin for a pairing, empty for a link.
    pub context: &'a [u8],
}

/// Hello without mac_1.
#[must_use]
pub fn hello_without_mac(fields: &HelloFields<'_>) -> Vec<u8> {
    let context_length = u16::try_from(fields.context.len()).expect("at most 255 bytes");
    [
        &[VERSION, SUITE, fields.purpose][..],
        fields.initiator,
        fields.responder,
        fields.ephemeral,
        fields.kem_key,
        &fields.signed_prekey_id.to_be_bytes(),
        &fields.one_time_prekey_id.to_be_bytes(),
        &fields.secret_name,
        fields.life,
        &context_length.to_be_bytes(),
        fields.context,
    ]
    .concat()
}

/// What Hello calls a pair secret.
#[must_use]
pub fn secret_name(key: &[u8; 32]) -> [u8; 8] {
    let hash = hash(&[b"happy/1 pair secret name", key]);
    std::array::from_fn(|i| hash[i])
}

/// What DH1 to DH4 give.
#[derive(Clone)]
pub struct HelloKeys {
    /// T1.
    pub t1: [u8; 32],
    /// prk1.
    pub prk1: [u8; 32],
    /// hello key.
    pub hello_key: [u8; 32],
    /// chain secret.
    pub chain_secret: [u8; 32],
    /// mac_1.
    pub mac_1: [u8; 32],
}

impl HelloKeys {
    /// `responder` is the identity record of R, `dhs` are DH1, DH2, DH3 and, if there is a one-time prekey, DH4.
    #[must_use]
    pub fn derive(
        hello_without_mac: &[u8],
        responder: &[u8; 129],
        signed_prekey: &[u8; 32],
        one_time_prekey: Option<&[u8; 32]>,
        dhs: &[[u8; 32]],
        psk: &[u8; 32],
    ) -> Self {
        let length = u16::try_from(hello_without_mac.len()).expect("a Hello is short").to_be_bytes();
        let one_time_prekey = one_time_prekey.unwrap_or(&[0; 32]);
        let t1 =
            hash(&[b"happy/1 transcript 1", &length, hello_without_mac, responder, signed_prekey, one_time_prekey]);
        let prk1 = extract(&[0; 32], &[&[0xFF; 32], dhs.as_flattened(), psk]);
        let okm = expand::<64>(&prk1, &[b"happy/1 hello keys", &t1]);
        let hello_key = part(&okm, 0);
        Self { t1, prk1, hello_key, chain_secret: part(&okm, 1), mac_1: hmac(&hello_key, &[&t1]) }
    }
}

/// Welcome without mac_2.
#[must_use]
pub fn welcome_without_mac(
    t1: &[u8; 32],
    ephemeral: &[u8; 32],
    kem_ciphertext: &[u8; 1_088],
    ratchet_key: &[u8; 32],
    life: &[u8; 16],
    reply: u8,
) -> Vec<u8> {
    [&[VERSION, SUITE][..], &t1[..16], ephemeral, kem_ciphertext, ratchet_key, life, &[reply]].concat()
}

/// What everything gives.
#[derive(Clone)]
pub struct SessionKeys {
    /// T2.
    pub t2: [u8; 32],
    /// prk2.
    pub prk2: [u8; 32],
    /// confirm_R.
    pub confirm_responder: [u8; 32],
    /// confirm_I.
    pub confirm_initiator: [u8; 32],
    /// root.
    pub root: [u8; 32],
    /// header key I→R.
    pub header_from_initiator: [u8; 32],
    /// next header key R→I.
    pub next_header_from_responder: [u8; 32],
    /// exporter.
    pub exporter: [u8; 32],
    /// mac_2.
    pub mac_2: [u8; 32],
    /// mac_3.
    pub mac_3: [u8; 32],
    /// session id.
    pub session_id: [u8; 16],
    /// The confirmation code.
    pub confirmation_code: u64,
    /// The key of the next pair secret.
    pub next_pair_secret: [u8; 32],
}

impl SessionKeys {
    /// `kem` is what the ciphertext carries.
    #[must_use]
    pub fn derive(
        hello: &HelloKeys,
        welcome_without_mac: &[u8],
        dh5: &[u8; 32],
        dh6: &[u8; 32],
        kem: &[u8; 32],
    ) -> Self {
        let t2 = hash(&[b"happy/1 transcript 2", &hello.t1, &hello.mac_1, welcome_without_mac]);
        let prk2 = extract(&hello.chain_secret, &[dh5, dh6, kem]);
        let okm = expand::<192>(&prk2, &[b"happy/1 session keys", &t2]);
        let [confirm_responder, confirm_initiator, root, header_from_initiator, next_header_from_responder, exporter] =
            std::array::from_fn(|i| part(&okm, i));
        let mac_2 = hmac(&confirm_responder, &[&t2]);
        let id = hash(&[b"happy/1 session id", &t2]);
        Self {
            t2,
            prk2,
            confirm_responder,
            confirm_initiator,
            root,
            header_from_initiator,
            next_header_from_responder,
            exporter,
            mac_2,
            mac_3: hmac(&confirm_initiator, &[&t2, &mac_2]),
            session_id: std::array::from_fn(|i| id[i]),
            confirmation_code: u64::from_be_bytes(expand(&exporter, &[b"happy/1 confirmation code"])) % 1_000_000,
            next_pair_secret: expand(&exporter, &[b"happy/1 pair secret"]),
        }
    }

    /// Confirm.
    #[must_use]
    pub fn confirm(&self) -> Vec<u8> {
        [&self.t2[..16], &self.mac_3].concat()
    }
}
