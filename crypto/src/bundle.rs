//! The bundle (PROTOCOL 3): everything an initiator needs to know of a responder.

use std::fmt;

use crate::{
    DecodeError, Identity, IdentityRecord, OneTimePrekey, SUITE, SignedPrekey, VERSION,
    agreement::AgreementKey,
    labelled_hash,
    prekey::{self, signed_bytes},
    reader::Reader,
};

/// Identity and prekeys of a device. A value of this type was verified, but for the one-time prekey: that one is vouched for by
/// the [`Bundle::hash`] in the invitation.
#[derive(Clone)]
pub struct Bundle {
    // INVARIANT: `bytes` is the canonical encoding of the other fields, and its signature holds.
    bytes: [u8; Self::LEN],
    identity: IdentityRecord,
    signed_prekey: (u32, AgreementKey),
    made_at: u64,
    one_time_prekey: Option<(u32, AgreementKey)>,
}

impl Bundle {
    /// Bytes of a bundle.
    pub const LEN: usize = 2 + IdentityRecord::LEN + 4 + 32 + 8 + 64 + 4 + 32;
    /// Where the one-time prekey begins.
    const ONE_TIME: usize = Self::LEN - 36;

    /// The bundle of this device.
    ///
    /// # Panics
    /// When the signed prekey was made by another identity.
    #[must_use]
    pub fn new(me: &Identity, signed: &SignedPrekey, one_time: Option<&OneTimePrekey>) -> Self {
        assert!(signed.signer() == me.device_id(), "the signed prekey belongs to another identity");
        let (one_time_id, one_time_key) =
            one_time.map_or((0, [0; 32]), |prekey| (prekey.id(), *prekey.public().as_bytes()));
        let encoded = [
            &[VERSION, SUITE],
            &me.record().as_bytes()[..],
            &signed.id().to_be_bytes(),
            signed.public().as_bytes(),
            &signed.made_at_unix().to_be_bytes(),
            signed.signature(),
            &one_time_id.to_be_bytes(),
            &one_time_key,
        ]
        .concat();
        let mut bytes = [0; Self::LEN];
        bytes.copy_from_slice(&encoded);
        Self {
            bytes,
            identity: me.record().clone(),
            signed_prekey: (signed.id(), *signed.public()),
            made_at: signed.made_at_unix(),
            one_time_prekey: one_time.map(|prekey| (prekey.id(), *prekey.public())),
        }
    }

    /// Reads and verifies a bundle.
    ///
    /// # Errors
    /// When the length, a version, a key or a signature is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.version_and_suite()?;
        let record: &[u8; IdentityRecord::LEN] = reader.array()?;
        let id = reader.u32()?;
        let key = reader.array()?;
        let made_at = reader.u64()?;
        let signature = reader.array()?;
        let one_time_id = reader.u32()?;
        let one_time_key: &[u8; 32] = reader.array()?;
        reader.finish()?;

        if id == 0 {
            return Err(DecodeError::Field("signed prekey id"));
        }
        let identity = IdentityRecord::decode(record)?;
        let key = AgreementKey::decode(key)?;
        let device = identity.device_id();
        device.verify(prekey::LABEL, &signed_bytes(device, id, &key, made_at), signature)?;
        let one_time_prekey = match (one_time_id, one_time_key) {
            (0, key) if *key == [0; 32] => None,
            (0, _) => return Err(DecodeError::Field("one-time prekey")),
            (id, key) => Some((id, AgreementKey::decode(key)?)),
        };
        // Every field was read with a fixed width so the length is right.
        let bytes = *bytes.first_chunk().ok_or(DecodeError::Truncated)?;
        Ok(Self { bytes, identity, signed_prekey: (id, key), made_at, one_time_prekey })
    }

    /// The bundle as it is sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What an invitation carries, so that nobody on the way can put another bundle in its place.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        labelled_hash("happy/1 bundle", &[&self.bytes])
    }

    /// Whose bundle it is.
    #[must_use]
    pub fn identity(&self) -> &IdentityRecord {
        &self.identity
    }

    /// Whether this bundle may take the place of `older`: the same device made it, later, and it holds nothing that only the hash
    /// of an invitation could vouch for.
    #[must_use]
    pub fn supersedes(&self, older: &Self) -> bool {
        self.identity == older.identity
            && self.made_at > older.made_at
            && self.signed_prekey.0 != older.signed_prekey.0
            && self.one_time_prekey.is_none()
    }

    /// The same bundle for all later handshakes.
    #[must_use]
    pub fn without_one_time(&self) -> Self {
        let mut bundle = self.clone();
        bundle.bytes[Self::ONE_TIME..].fill(0);
        bundle.one_time_prekey = None;
        bundle
    }

    /// The id of the signed prekey, never 0.
    #[must_use]
    pub fn signed_prekey_id(&self) -> u32 {
        self.signed_prekey.0
    }

    pub(crate) fn signed_prekey(&self) -> &AgreementKey {
        &self.signed_prekey.1
    }

    pub(crate) fn one_time_prekey(&self) -> Option<&(u32, AgreementKey)> {
        self.one_time_prekey.as_ref()
    }
}

impl PartialEq for Bundle {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Bundle {}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("device", &self.identity.device_id())
            .field("signed_prekey", &self.signed_prekey.0)
            .field("one_time_prekey", &self.one_time_prekey.map(|(id, _)| id))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{LOW_ORDER, rng};

    fn bundle() -> Bundle {
        let rng = &mut rng(1);
        let me = Identity::generate(rng);
        let signed = SignedPrekey::generate(rng, &me, 3, 99);
        Bundle::new(&me, &signed, Some(&OneTimePrekey::generate(rng, 4)))
    }

    #[test]
    fn what_is_made_can_be_read() {
        let made = bundle();
        for bundle in [made.clone(), made.without_one_time()] {
            assert_eq!(bundle.as_bytes().len(), 275);
            let read = Bundle::decode(bundle.as_bytes()).unwrap();
            assert_eq!(read, bundle);
            assert!(read.signed_prekey == bundle.signed_prekey && read.one_time_prekey == bundle.one_time_prekey);
        }
    }

    #[test]
    fn bundles_are_equal_when_all_their_bytes_are() {
        let one = bundle();
        assert_eq!(one, one.clone());
        assert_ne!(one, one.without_one_time());
    }

    #[test]
    fn a_bundle_prints_whose_it_is_and_the_ids_of_its_prekeys() {
        let one = bundle();
        let device = one.identity().device_id();
        let printed = format!("Bundle {{ device: {device:?}, signed_prekey: 3, one_time_prekey: Some(4) }}");
        assert_eq!(format!("{one:?}"), printed);
    }

    /// The one-time prekey is outside of the signature; the hash of the invitation covers it.
    #[test]
    fn a_bundle_with_any_bit_flipped_is_refused_by_signature_or_hash() {
        let good = bundle();
        for bit in 0..Bundle::LEN * 8 {
            let mut damaged = good.as_bytes().to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            match Bundle::decode(&damaged) {
                Err(_) => {}
                Ok(read) => {
                    assert!(bit / 8 >= Bundle::ONE_TIME, "bit {bit} is signed");
                    assert_ne!(read.hash(), good.hash());
                }
            }
        }
    }

    #[test]
    fn a_bundle_of_another_length_is_refused() {
        let good = bundle();
        for length in 0..Bundle::LEN {
            assert_eq!(Bundle::decode(&good.as_bytes()[..length]), Err(DecodeError::Truncated));
        }
        assert_eq!(Bundle::decode(&[good.as_bytes(), &[0]].concat()), Err(DecodeError::TrailingBytes));
    }

    #[test]
    fn a_bundle_of_another_version_or_suite_says_so() {
        let mut other = bundle().as_bytes().to_vec();
        other[1] = 1;
        assert_eq!(Bundle::decode(&other), Err(DecodeError::UnsupportedSuite(1)));
        other[0] = 9;
        assert_eq!(Bundle::decode(&other), Err(DecodeError::UnsupportedVersion(9)));
    }

    #[test]
    fn a_one_time_prekey_without_an_id_and_an_id_without_a_key_are_refused() {
        let mut no_id = bundle().as_bytes().to_vec();
        no_id[Bundle::ONE_TIME..Bundle::ONE_TIME + 4].fill(0);
        assert_eq!(Bundle::decode(&no_id), Err(DecodeError::Field("one-time prekey")));
    }

    #[test]
    fn a_bundle_is_superseded_by_a_later_one_of_the_same_device_only() {
        let rng = &mut rng(1);
        let (me, other) = (Identity::generate(rng), Identity::generate(rng));
        let mut bundle =
            |who: &Identity, id, made_at| Bundle::new(who, &SignedPrekey::generate(rng, who, id, made_at), None);
        let old = bundle(&me, 1, 100);
        assert!(bundle(&me, 2, 101).supersedes(&old));
        assert!(!old.supersedes(&old));
        assert!(!bundle(&me, 2, 100).supersedes(&old), "not later");
        assert!(!bundle(&me, 1, 101).supersedes(&old), "the same id");
        assert!(!bundle(&other, 2, 101).supersedes(&old), "another device");
        let signed = SignedPrekey::generate(rng, &me, 2, 101);
        let one_time = OneTimePrekey::generate(rng, 4);
        assert!(
            !Bundle::new(&me, &signed, Some(&one_time)).supersedes(&old),
            "a one-time prekey that nobody vouches for"
        );
    }

    /// Zero means "no prekey" on the wire, even if somebody signs it.
    #[test]
    fn a_signed_prekey_with_id_zero_is_refused() {
        let rng = &mut rng(1);
        let me = Identity::generate(rng);
        let signed = SignedPrekey::generate(rng, &me, 3, 99);
        let mut bytes = Bundle::new(&me, &signed, None).as_bytes().to_vec();
        bytes[131..135].fill(0);
        let signature = me.sign(prekey::LABEL, &signed_bytes(me.device_id(), 0, signed.public(), 99));
        bytes[175..239].copy_from_slice(&signature);
        assert_eq!(Bundle::decode(&bytes), Err(DecodeError::Field("signed prekey id")));
    }

    #[test]
    fn one_time_prekeys_that_are_not_canonical_are_refused() {
        for point in LOW_ORDER.iter().filter(|point| AgreementKey::decode(point).is_err()) {
            let mut bad = bundle().as_bytes().to_vec();
            bad[Bundle::ONE_TIME + 4..].copy_from_slice(point);
            assert_eq!(Bundle::decode(&bad), Err(DecodeError::Key));
        }
    }
}
