//! PROTOCOL 5: refusals.

use happy_crypto::handshake::{Refused, hello_hash};

use super::{handshake::pair, world::World};
use crate::{json::Json, object, page};

pub fn vectors() -> Json {
    let world = World::new();
    let hello = pair(&world).page.hello;
    let reasons = [
        ("revoked", Refused::REVOKED),
        ("unknown device", Refused::UNKNOWN_DEVICE),
        ("unknown prekey", Refused::UNKNOWN_PREKEY),
        ("busy", Refused::BUSY),
        ("unsupported version", Refused::UNSUPPORTED_VERSION),
        ("unknown pair secret", 6),
    ];
    let cases = reasons.map(|(name, reason)| {
        let refused = page::refused(&world.page.machine, reason, &hello);
        assert_eq!(Refused::sign(&world.machine, reason, &hello), refused);
        assert_eq!(Refused::verify(&world.machine.device_id(), &hello_hash(&hello), &refused), Ok(reason));
        object! { "reason": reason, "meaning": name, "Refused": refused }
    });
    object! {
        "section": "PROTOCOL 5",
        "device id": world.page.machine.id(),
        "Ed25519 seed": world.page.machine.seed,
        "Hello": &hello,
        "hello hash": hello_hash(&hello),
        "cases": cases.to_vec(),
    }
}
