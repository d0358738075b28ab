//! PROTOCOL 3.

use happy_crypto::Bundle;

use super::world::World;
use crate::{json::Json, object, page};

pub fn vectors() -> Json {
    let world = World::new();
    let page = &world.page;
    let ours = world.bundle();
    let with = page::bundle(&page.machine, &page.signed, Some(&page.one_time));
    let without = page::bundle(&page.machine, &page.signed, None);
    for (ours, bytes) in [(&ours, &with), (&ours.without_one_time(), &without)] {
        assert_eq!(ours.as_bytes(), bytes);
        assert_eq!(Bundle::decode(bytes).as_ref(), Ok(ours));
        assert_eq!(ours.hash(), page::bundle_hash(bytes));
    }
    object! {
        "section": "PROTOCOL 3",
        "identity record": page.machine.record(),
        "Ed25519 seed": page.machine.seed,
        "signed prekey": object! {
            "id": page.signed.id,
            "made at": page.signed.made_at,
            "scalar, as drawn": page.signed.key.secret(),
            "key": page.signed.key.public,
            "signed bytes after the label": page.signed.signed_bytes(&page.machine),
            "signature": page.signed.signature(&page.machine),
        },
        "one-time prekey": object! {
            "id": page.one_time.id,
            "scalar, as drawn": page.one_time.key.secret(),
            "key": page.one_time.key.public,
        },
        "bundle": with,
        "bundle hash": page::bundle_hash(&with),
        "bundle without one-time prekey": without,
        "bundle hash without one-time prekey": page::bundle_hash(&without),
    }
}
