//! Who a device is (PROTOCOL 2): an Ed25519 key, which certifies the X25519 key that agreements use.
//!
//! Two keys instead of one converted key, because a signature made for one purpose then can never be an agreement of the other.

use std::{fmt, str::FromStr};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand_core::CryptoRng;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::{
    DecodeError, ParseDeviceIdError, SignatureError, VERSION,
    agreement::{self, AgreementKey},
    base64url,
    reader::Reader,
};

const LABEL: &str = "happy/1 identity";

/// The name of a device: its Ed25519 public key.
///
/// Any 32 bytes can stand here; only a signature that [`DeviceId::verify`] accepts proves that somebody holds the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId([u8; 32]);

impl DeviceId {
    /// Bytes of a device id.
    pub const LEN: usize = 32;

    /// Takes the bytes as they are, without looking whether they are a key.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight characters, which is enough for people to tell their own devices apart and too little to trust.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }

    /// Checks a signature of this device over `label ‖ message`.
    ///
    /// # Errors
    /// When it does not hold, or when this id is no key that may sign: of small order or not canonical.
    pub fn verify(&self, label: &str, message: &[u8], signature: &[u8; 64]) -> Result<(), SignatureError> {
        // Two encodings of one key would be two devices.
        if !agreement::below_field_prime(&self.0) {
            return Err(SignatureError);
        }
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| SignatureError)?;
        let signed = labelled(label, message);
        key.verify_strict(&signed, &Signature::from_bytes(signature)).map_err(|_| SignatureError)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        base64url::encode(&self.0).iter().try_for_each(|character| fmt::Write::write_char(f, char::from(*character)))
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for DeviceId {
    type Err = ParseDeviceIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        base64url::decode(text).map(Self).ok_or(ParseDeviceIdError)
    }
}

/// The secrets of a device. They never leave it.
#[derive(Clone)]
pub struct Identity {
    signing: SigningKey,
    agreement: StaticSecret,
    record: IdentityRecord,
}

impl Identity {
    /// A new device.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; 64]);
        rng.fill_bytes(&mut *bytes);
        Self::from_bytes(&bytes)
    }

    /// The device whose secrets [`Identity::to_bytes`] gave. Any 64 bytes are a device.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let (mut seed, mut scalar) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
        seed.copy_from_slice(&bytes[..32]);
        scalar.copy_from_slice(&bytes[32..]);
        let signing = SigningKey::from_bytes(&seed);
        let agreement = StaticSecret::from(*scalar);
        let record = IdentityRecord::certify(&signing, AgreementKey::of(&agreement));
        Self { signing, agreement, record }
    }

    /// Both secrets: Ed25519 seed, X25519 scalar. To be sealed (PROTOCOL 14) before they are stored.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 64]> {
        let mut bytes = Zeroizing::new([0; 64]);
        bytes[..32].copy_from_slice(self.signing.as_bytes());
        bytes[32..].copy_from_slice(self.agreement.as_bytes());
        bytes
    }

    /// The name of this device.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        self.record.device_id()
    }

    /// What others may know of this device.
    #[must_use]
    pub fn record(&self) -> &IdentityRecord {
        &self.record
    }

    /// Signs `label ‖ message`. A label belongs to one kind of statement, so that no signature can be used as another.
    #[must_use]
    pub fn sign(&self, label: &str, message: &[u8]) -> [u8; 64] {
        sign(&self.signing, label, message)
    }

    pub(crate) fn agreement(&self) -> &StaticSecret {
        &self.agreement
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.device_id()).finish_non_exhaustive()
    }
}

/// A device id and the X25519 key that it certifies. A value of this type was verified.
#[derive(Clone, PartialEq, Eq)]
pub struct IdentityRecord {
    // INVARIANT: the signature holds and the agreement key is canonical.
    bytes: [u8; Self::LEN],
}

impl IdentityRecord {
    /// Bytes of a record.
    pub const LEN: usize = 129;
    const SIGNED: usize = Self::LEN - 64;

    fn certify(signing: &SigningKey, agreement: AgreementKey) -> Self {
        let mut bytes = [0; Self::LEN];
        bytes[0] = VERSION;
        bytes[1..33].copy_from_slice(signing.verifying_key().as_bytes());
        bytes[33..65].copy_from_slice(agreement.as_bytes());
        let signature = sign(signing, LABEL, &bytes[..Self::SIGNED]);
        bytes[Self::SIGNED..].copy_from_slice(&signature);
        Self { bytes }
    }

    /// Reads and verifies a record.
    ///
    /// # Errors
    /// When the length, the version, a key or the signature is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let bytes = *reader.array()?;
        reader.finish()?;

        let mut fields = Reader::new(&bytes);
        fields.version()?;
        let device = DeviceId(*fields.array()?);
        AgreementKey::decode(fields.array()?)?;
        device.verify(LABEL, &bytes[..Self::SIGNED], fields.array()?)?;
        Ok(Self { bytes })
    }

    /// The record as it is sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.bytes
    }

    /// Whose record it is.
    #[must_use]
    pub fn device_id(&self) -> DeviceId {
        DeviceId(self.field::<1>())
    }

    pub(crate) fn agreement_key(&self) -> AgreementKey {
        let Ok(key) = AgreementKey::decode(&self.field::<33>()) else {
            unreachable!("the key was checked when the record was made");
        };
        key
    }

    pub(crate) fn without_signature(&self) -> &[u8] {
        &self.bytes[..Self::SIGNED]
    }

    /// The 32 bytes from `AT` on.
    fn field<const AT: usize>(&self) -> [u8; 32] {
        std::array::from_fn(|i| self.bytes[AT + i])
    }
}

impl fmt::Debug for IdentityRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("IdentityRecord").field(&self.device_id()).finish()
    }
}

fn sign(key: &SigningKey, label: &str, message: &[u8]) -> [u8; 64] {
    key.sign(&labelled(label, message)).to_bytes()
}

fn labelled(label: &str, message: &[u8]) -> Vec<u8> {
    [label.as_bytes(), message].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{LOW_ORDER, hex, hex32, rng};

    #[test]
    fn signatures_agree_with_rfc_8032_test_2() {
        let key = SigningKey::from_bytes(&hex32("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"));
        assert_eq!(
            sign(&key, "r", &[]).to_vec(),
            hex(
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
            )
        );
    }

    #[test]
    fn the_device_that_is_stored_is_the_device_that_comes_back() {
        let one = Identity::generate(&mut rng(1));
        let again = Identity::from_bytes(&one.to_bytes());
        assert_eq!(again.record(), one.record());
        assert_eq!(IdentityRecord::decode(one.record().as_bytes()).unwrap(), *one.record());
    }

    #[test]
    fn a_record_with_any_bit_flipped_is_refused() {
        let record = *Identity::generate(&mut rng(1)).record().as_bytes();
        for bit in 0..record.len() * 8 {
            let mut damaged = record;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(IdentityRecord::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_record_of_another_length_is_refused() {
        let record = Identity::generate(&mut rng(1)).record().as_bytes().to_vec();
        for length in 0..record.len() {
            assert_eq!(IdentityRecord::decode(&record[..length]), Err(DecodeError::Truncated));
        }
        assert_eq!(IdentityRecord::decode(&[&record[..], &[0]].concat()), Err(DecodeError::TrailingBytes));
    }

    #[test]
    fn a_signature_is_bound_to_its_label_and_message() {
        let me = Identity::generate(&mut rng(1));
        let signature = me.sign("happy/1 a", b"message");
        assert!(me.device_id().verify("happy/1 a", b"message", &signature).is_ok());
        assert!(me.device_id().verify("happy/1 b", b"message", &signature).is_err());
        assert!(me.device_id().verify("happy/1 a", b"massage", &signature).is_err());
    }

    /// With a key of order 1, `R = identity, s = 0` would be a signature over everything.
    #[test]
    fn a_device_id_of_small_order_never_signed_anything() {
        let mut identity_point = [0; 32];
        identity_point[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(DeviceId::from_bytes(identity_point).verify("l", b"m", &signature).is_err());
        for point in LOW_ORDER {
            assert!(DeviceId::from_bytes(point).verify("l", b"m", &signature).is_err());
        }
    }

    #[test]
    fn a_malleable_signature_is_refused() {
        // s + ℓ satisfies the equation and must not pass.
        let order = hex32("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
        let me = Identity::generate(&mut rng(3));
        let mut signature = me.sign("l", b"m");
        let mut carry = 0;
        for (byte, add) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        assert!(me.device_id().verify("l", b"m", &signature).is_err());
    }

    #[test]
    fn text_form() {
        let id = Identity::generate(&mut rng(1)).device_id();
        assert_eq!(id.to_string().len(), 43);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(format!("{id:?}"), id.to_string()[..8]);
        assert_eq!("short".parse::<DeviceId>(), Err(ParseDeviceIdError));
    }

    #[test]
    fn secrets_do_not_print() {
        let me = Identity::generate(&mut rng(1));
        assert_eq!(format!("{me:?}"), format!("Identity({}, ..)", me.device_id().short()));
        assert_eq!(format!("{:?}", me.record()), format!("IdentityRecord({})", me.device_id().short()));
    }
}
