//! Every case of Project Wycheproof for what this crate uses.

use std::collections::BTreeMap;

use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;

use super::{aead_agrees, array, bytes};
use crate::{
    DeviceId,
    kem::{KemKey, KemSecret},
    labelled_hash,
    suite::{Cipher, expand, extract, hmac},
};

/// The cases of a file.
fn cases(name: &str) -> Vec<Value> {
    let path = format!("{}/vectors/wycheproof/{name}.json.br", env!("CARGO_MANIFEST_DIR"));
    let packed = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut text = Vec::new();
    brotli::BrotliDecompress(&mut &packed[..], &mut text).unwrap();
    let mut file: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(file["file"], name);
    let Value::Array(cases) = file["cases"].take() else { panic!("{name} has no cases") };
    cases
}

fn is_valid(case: &Value) -> bool {
    match case["result"].as_str() {
        Some("valid") => true,
        Some("invalid") => false,
        _ => panic!("unexpected result: {case}"),
    }
}

fn has(case: &Value, flag: &str) -> bool {
    case["flags"].as_array().unwrap().iter().any(|known| known == flag)
}

/// How many cases ended how.
#[derive(Default)]
struct Count(BTreeMap<&'static str, usize>);

impl Count {
    fn add(&mut self, outcome: &'static str) {
        *self.0.entry(outcome).or_default() += 1;
    }

    /// Prints the totals and compares them, so that a file with fewer cases does not pass for a success.
    fn is(self, name: &str, expected: &[(&'static str, usize)]) {
        println!("{name}: {} cases, {:?}", self.0.values().sum::<usize>(), self.0);
        assert_eq!(self.0, expected.iter().copied().collect());
    }
}

/// Gives out bytes that were chosen before.
struct Chosen(Vec<u8>);

impl TryRng for Chosen {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        unreachable!("whole keys are drawn")
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        unreachable!("whole keys are drawn")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        assert_eq!(out.len(), self.0.len(), "as many bytes are drawn as were chosen");
        out.copy_from_slice(&self.0);
        Ok(())
    }
}

impl TryCryptoRng for Chosen {}

#[test]
fn x25519() {
    let mut count = Count::default();
    for case in cases("x25519_test") {
        let (public, shared) = (array::<32>(&case, "public").unwrap(), array::<32>(&case, "shared").unwrap());
        let ours = super::x25519(array(&case, "private").unwrap(), &public);
        // What the vectors call acceptable and we refuse. The flag of keys that are not canonical is missing in some cases of low
        // order, so the bytes decide, and the flag must not say otherwise.
        let high_bit = public[31] & 0x80 != 0;
        let too_large = public[31] | 0x80 == 0xFF && public[1..31].iter().all(|b| *b == 0xFF) && public[0] >= 0xED;
        assert!(!has(&case, "NonCanonicalPublic") || high_bit || too_large, "{case}");
        assert_eq!(has(&case, "ZeroSharedSecret"), shared == [0; 32], "{case}");
        count.add(if has(&case, "ZeroSharedSecret") {
            assert!(ours.is_none(), "ZeroSharedSecret is refused: {case}");
            "refused: ZeroSharedSecret"
        } else if has(&case, "NonCanonicalPublic") {
            assert!(ours.is_none(), "NonCanonicalPublic is refused: {case}");
            "refused: NonCanonicalPublic"
        } else {
            assert_eq!(ours, Some(shared), "{case}");
            "agreed"
        });
    }
    count.is("x25519", &[("agreed", 474), ("refused: NonCanonicalPublic", 13), ("refused: ZeroSharedSecret", 31)]);
}

#[test]
fn ed25519() {
    let mut count = Count::default();
    for case in cases("ed25519_test") {
        let device = DeviceId::from_bytes(array(&case, "pk").unwrap());
        let message = bytes(&case, "msg");
        // A signature of another length cannot even be asked about.
        let verified = array(&case, "sig").map(|signature| device.verify("", &message, &signature));
        count.add(match verified {
            None => {
                assert!(!is_valid(&case), "{case}");
                "refused: length"
            }
            Some(verified) => {
                assert_eq!(verified.is_ok(), is_valid(&case), "{case}");
                if verified.is_ok() { "verified" } else { "refused" }
            }
        });
    }
    count.is("ed25519", &[("refused", 51), ("refused: length", 12), ("verified", 88)]);
}

#[test]
fn chacha20_poly1305() {
    let mut count = Count::default();
    for case in cases("chacha20_poly1305_test") {
        let (Some(key), Some(nonce), Some(tag)) = (array(&case, "key"), array(&case, "iv"), array(&case, "tag")) else {
            assert!(has(&case, "InvalidNonceSize"), "{case}");
            count.add("refused: InvalidNonceSize");
            continue;
        };
        let cipher = Cipher::new(&key, &nonce);
        if is_valid(&case) {
            aead_agrees(&case, "msg", "ct", &cipher, &tag);
            count.add("sealed and opened");
        } else {
            let mut buffer = bytes(&case, "ct");
            assert!(!cipher.open(&bytes(&case, "aad"), &mut buffer, &tag), "{case}");
            assert_eq!(buffer, bytes(&case, "ct"), "what does not open stays as it was: {case}");
            count.add("refused: ModifiedTag");
        }
    }
    count.is(
        "chacha20-poly1305",
        &[("refused: InvalidNonceSize", 9), ("refused: ModifiedTag", 60), ("sealed and opened", 256)],
    );
}

#[test]
fn hkdf_sha256() {
    let mut count = Count::default();
    for case in cases("hkdf_sha256_test") {
        let prk = extract(&bytes(&case, "salt"), &[&bytes(&case, "ikm")]);
        let size = usize::try_from(case["size"].as_u64().unwrap()).unwrap();
        if is_valid(&case) {
            let mut okm = vec![0; size];
            expand(&prk, &[&bytes(&case, "info")], &mut okm);
            assert_eq!(okm, bytes(&case, "okm"), "{case}");
            count.add("agreed");
        } else {
            // RFC 5869 ends at 255 hashes. All our sizes are constants, so `expand` takes more for a bug, and panics. Here stands what
            // it asks.
            assert!(has(&case, "SizeTooLarge") && size > 255 * 32, "{case}");
            let hkdf = hkdf::Hkdf::<sha2::Sha256>::from_prk(prk.as_bytes()).unwrap();
            assert!(hkdf.expand(&[], &mut vec![0; size]).is_err(), "{case}");
            count.add("refused: SizeTooLarge");
        }
    }
    count.is("hkdf-sha256", &[("agreed", 83), ("refused: SizeTooLarge", 3)]);
}

#[test]
fn hmac_sha256() {
    let mut count = Count::default();
    for case in cases("hmac_sha256_test") {
        let (key, message, tag) = (bytes(&case, "key"), bytes(&case, "msg"), bytes(&case, "tag"));
        // Extract is HMAC under a key of any length.
        let mac = *extract(&key, &[&message]).as_bytes();
        if let Ok(key) = <[u8; 32]>::try_from(key) {
            assert_eq!(hmac(&key, &[&message]), mac, "{case}");
        }
        // Some of the codes are truncated to 128 bits, which we never do.
        let holds = mac[..tag.len()] == tag;
        assert_eq!(holds, is_valid(&case), "{case}");
        count.add(if holds { "agreed" } else { "refused: ModifiedTag" });
    }
    count.is("hmac-sha256", &[("agreed", 66), ("refused: ModifiedTag", 108)]);
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    labelled_hash("", &[bytes]).to_vec()
}

#[test]
fn mlkem_768_keygen() {
    let mut count = Count::default();
    for case in cases("mlkem_768_keygen_seed_test") {
        assert!(is_valid(&case), "{case}");
        let secret = KemSecret::generate(&mut Chosen(bytes(&case, "seed")));
        assert_eq!(sha256(&secret.public()), bytes(&case, "ek_sha256"), "{case}");
        assert_eq!(sha256(&secret.to_expanded()), bytes(&case, "dk_sha256"), "{case}");
        count.add("agreed");
    }
    count.is("ml-kem-768 keygen", &[("agreed", 100)]);
}

#[test]
fn mlkem_768_encaps() {
    let mut count = Count::default();
    for case in cases("mlkem_768_encaps_test") {
        let Some(key) = array(&case, "ek") else {
            assert!(!is_valid(&case), "{case}");
            count.add("refused: length");
            continue;
        };
        match KemKey::decode(&key) {
            Ok(key) => {
                assert!(is_valid(&case), "{case}");
                let (ciphertext, shared) = key.encapsulate(&mut Chosen(bytes(&case, "m")));
                assert_eq!(sha256(&ciphertext), bytes(&case, "c_sha256"), "{case}");
                assert_eq!(shared.as_bytes()[..], bytes(&case, "K"), "{case}");
                count.add("agreed");
            }
            Err(_) => {
                assert!(!is_valid(&case), "{case}");
                count.add("refused: not canonical");
            }
        }
    }
    count.is("ml-kem-768 encaps", &[("agreed", 133), ("refused: length", 20), ("refused: not canonical", 112)]);
}

#[test]
fn mlkem_768_decaps() {
    let mut count = Count::default();
    for case in cases("mlkem_768_test") {
        let (Some(seed), Some(ciphertext)) = (array::<64>(&case, "seed"), array(&case, "c")) else {
            assert!(!is_valid(&case), "{case}");
            count.add("refused: length");
            continue;
        };
        assert!(is_valid(&case), "{case}");
        let secret = KemSecret::generate(&mut Chosen(seed.to_vec()));
        assert_eq!(sha256(&secret.public()), bytes(&case, "ek_sha256"), "{case}");
        assert_eq!(secret.decapsulate(&ciphertext).as_bytes()[..], bytes(&case, "K"), "{case}");
        count.add("agreed");
    }
    count.is("ml-kem-768 decaps", &[("agreed", 153), ("refused: length", 40)]);
}

/// We never read an expanded key, so only the decapsulation after it is ours.
#[test]
fn mlkem_768_decaps_with_an_expanded_key() {
    let mut count = Count::default();
    for case in cases("mlkem_768_semi_expanded_decaps_test") {
        let secret = array(&case, "dk").and_then(|key| KemSecret::from_expanded(&key));
        let (Some(secret), Some(ciphertext)) = (secret, array(&case, "c")) else {
            assert!(!is_valid(&case), "{case}");
            count.add("refused: key or length");
            continue;
        };
        assert!(is_valid(&case), "{case}");
        assert_eq!(secret.decapsulate(&ciphertext).as_bytes()[..], bytes(&case, "K"), "{case}");
        count.add("agreed");
    }
    count.is("ml-kem-768 decaps, expanded key", &[("agreed", 3), ("refused: key or length", 6)]);
}
