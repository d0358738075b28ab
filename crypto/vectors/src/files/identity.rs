//! PROTOCOL 2.

use happy_crypto::{Identity, IdentityRecord, safety_number};

use super::world::World;
use crate::{
    json::Json,
    object,
    page::{self, Device},
};

pub fn vectors() -> Json {
    let world = World::new();
    let [phone, machine] = world.page.randomness;
    let number = page::safety_number(&world.page.phone, &world.page.machine);
    assert_eq!(safety_number(world.phone.record(), world.machine.record()), number);
    assert_eq!(safety_number(world.machine.record(), world.phone.record()), number);
    object! {
        "section": "PROTOCOL 2",
        "devices": vec![
            device("phone", &world.phone, &world.page.phone, &phone),
            device("machine", &world.machine, &world.page.machine, &machine),
        ],
        "safety number of the two": number,
    }
}

fn device(name: &str, ours: &Identity, page: &Device, randomness: &[u8; 64]) -> Json {
    let record = page.record();
    assert_eq!(*ours.record().as_bytes(), record);
    assert_eq!(IdentityRecord::decode(&record).as_ref(), Ok(ours.record()));
    assert_eq!(*ours.device_id().as_bytes(), page.id());
    let text = page::base64url(&page.id());
    assert_eq!(ours.device_id().to_string(), text);
    assert_eq!(ours.device_id().short(), text[..8]);
    object! {
        "name": name,
        "randomness": randomness,
        "Ed25519 seed": page.seed,
        "X25519 scalar": page.agreement.secret(),
        "device id": page.id(),
        "device id as text": text[..].to_owned(),
        "device id in short form": &text[..8],
        "X25519 identity key": page.agreement.public,
        "identity record without signature": page.identity(),
        "identity record": record,
    }
}
