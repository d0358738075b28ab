//! The test vectors of the RFCs that PROTOCOL 1 names.

use serde_json::Value;

use super::{aead_agrees, array, bytes, x25519};
use crate::{
    DeviceId, Identity,
    suite::{Cipher, expand, extract, hmac},
    testing::hex32,
};

fn cases(text: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(text).unwrap();
    let cases = file["cases"].as_array().unwrap().clone();
    println!("{}: {} cases", file["source"].as_str().unwrap(), cases.len());
    cases
}

#[test]
fn x25519_agrees_with_rfc_7748() {
    let mut refused = 0;
    for case in cases(include_str!("../../vectors/rfc/7748.json")) {
        let (scalar, mut u) = (array(&case, "scalar").unwrap(), array::<32>(&case, "u").unwrap());
        if u[31] & 0x80 != 0 {
            // X25519 ignores the high bit; we refuse it, and agree once it is gone.
            assert_eq!(x25519(scalar, &u), None, "{case}");
            u[31] &= 0x7F;
            refused += 1;
        }
        assert_eq!(x25519(scalar, &u), array(&case, "output"), "{case}");
    }
    println!("refused for the high bit: {refused}");
    assert_eq!(refused, 1);
}

#[test]
fn x25519_agrees_with_the_thousand_iterations_of_rfc_7748() {
    let (mut k, mut u) = (hex32(&format!("09{}", "00".repeat(31))), hex32(&format!("09{}", "00".repeat(31))));
    for i in 0..1_000 {
        if i == 1 {
            assert_eq!(k, hex32("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"));
        }
        // The last result is a scalar first and a public key next: what was one may have the high bit as the other.
        u[31] &= 0x7F;
        (k, u) = (x25519(k, &u).unwrap(), k);
    }
    assert_eq!(k, hex32("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"));
}

#[test]
fn signatures_agree_with_rfc_8032() {
    for case in cases(include_str!("../../vectors/rfc/8032.json")) {
        let mut secrets = [7; 64];
        secrets[..32].copy_from_slice(&array::<32>(&case, "seed").unwrap());
        let (me, message) = (Identity::from_bytes(&secrets), bytes(&case, "message"));
        let device = DeviceId::from_bytes(array(&case, "public").unwrap());
        let signature = array(&case, "signature").unwrap();
        assert_eq!(me.device_id(), device, "{case}");
        assert_eq!(me.sign("", &message), signature, "{case}");
        assert_eq!(device.verify("", &message, &signature), Ok(()), "{case}");
    }
}

#[test]
fn the_cipher_agrees_with_rfc_8439() {
    for case in cases(include_str!("../../vectors/rfc/8439.json")) {
        let cipher = Cipher::new(&array(&case, "key").unwrap(), &array(&case, "nonce").unwrap());
        aead_agrees(&case, "plaintext", "ciphertext", &cipher, &array(&case, "tag").unwrap());
    }
}

#[test]
fn hkdf_agrees_with_rfc_5869() {
    for case in cases(include_str!("../../vectors/rfc/5869.json")) {
        let prk = extract(&bytes(&case, "salt"), &[&bytes(&case, "ikm")]);
        assert_eq!(prk.as_bytes()[..], bytes(&case, "prk"), "{case}");
        let expected = bytes(&case, "okm");
        let mut okm = vec![0; expected.len()];
        expand(&prk, &[&bytes(&case, "info")], &mut okm);
        assert_eq!(okm, expected, "{case}");
    }
}

#[test]
fn hmac_agrees_with_rfc_4231() {
    for case in cases(include_str!("../../vectors/rfc/4231.json")) {
        let (key, data, expected) = (bytes(&case, "key"), bytes(&case, "data"), bytes(&case, "mac"));
        // Extract is HMAC under a key of any length.
        let mac = extract(&key, &[&data]);
        assert_eq!(mac.as_bytes()[..expected.len()], expected, "{case}");
        // Ours takes keys of 32 bytes. A shorter one and the same with zeros after it are one key (RFC 2104).
        if key.len() <= 32 {
            let mut padded = [0; 32];
            padded[..key.len()].copy_from_slice(&key);
            assert_eq!(hmac(&padded, &[&data])[..expected.len()], expected, "{case}");
        }
    }
}
