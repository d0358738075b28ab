//! PROTOCOL 14.

use happy_crypto::seal;

use super::world::drawn;
use crate::{Randomness, json::Json, object, page::Sealed};

pub fn vectors() -> Json {
    let mut rng = Randomness::new("happy vectors: sealed records");
    let key = rng.take();
    rng.drawn();
    let records: [(&str, &[u8]); 3] = [("identity", &[7; 64]), ("state", b"a text"), ("", b"")];
    let cases = records.map(|(kind, plaintext)| {
        let sealed = seal::seal(&mut rng, &key, kind, plaintext);
        let nonce = drawn(&mut rng);
        let page = Sealed::new(&key, &nonce, kind, plaintext);
        assert_eq!(sealed, page.bytes);
        assert_eq!(seal::open(&key, kind, &sealed).as_deref().map(|plaintext| &plaintext[..]), Ok(plaintext));
        object! {
            "kind": kind,
            "plaintext": plaintext,
            "nonce, as drawn": nonce,
            "cipher key": page.cipher.0,
            "cipher nonce": page.cipher.1,
            "associated data": page.associated_data,
            "sealed record": sealed,
        }
    });
    object! { "section": "PROTOCOL 14", "seal key": key, "cases": cases.to_vec() }
}
