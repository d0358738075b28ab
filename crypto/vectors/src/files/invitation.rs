//! PROTOCOL 4.

use happy_pairing::{Origin, Role};

use super::world::World;
use crate::{Randomness, json::Json, object, page::Invitation};

/// Where the machine is reached.
pub const ORIGIN: &str = "https://relay.example";

/// The invitation of all vectors.
pub fn invitation(world: &World) -> Invitation {
    Invitation {
        role: Role::Owner.into(),
        expires: 1_700_000_120,
        secret: randomness().take(),
        bundle_hash: world.bundle().hash(),
    }
}

/// The same, made by the product.
pub fn ours(page: &Invitation) -> happy_pairing::Invitation {
    happy_pairing::Invitation::new(&mut randomness(), Role::Owner, page.expires, page.bundle_hash)
}

fn randomness() -> Randomness {
    Randomness::new("happy vectors: the invitation")
}

pub fn vectors() -> Json {
    let page = invitation(&World::new());
    let link = format!("{ORIGIN}/#{}", page.digits());
    assert_eq!(ours(&page).link(&Origin::parse(ORIGIN).expect("it is an origin")), link);
    let (origin, read) = happy_pairing::Invitation::parse_link(&link).expect("it is a link");
    assert_eq!((origin.as_str(), read.expires(), read.bundle_hash()), (ORIGIN, page.expires, page.bundle_hash));
    // The psk is compared in the pairing, where it is mixed in.
    assert_eq!((read.ticket(), read.ticket_hash()), (page.ticket(), page.ticket_hash()));
    object! {
        "section": "PROTOCOL 4",
        "role": page.role,
        "expires": page.expires,
        "secret, as drawn": page.secret,
        "bundle hash": page.bundle_hash,
        "invitation": page.bytes(),
        "link": link,
        "prk": page.prk(),
        "ticket": page.ticket(),
        "ticket hash": page.ticket_hash(),
        "psk": page.psk(),
    }
}
