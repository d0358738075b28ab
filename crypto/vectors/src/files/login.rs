//! PROTOCOL 7: the login.

use happy_crypto::DeviceId;
use happy_pairing::Origin;
use happy_wire::enrolment::EnrolmentKey;
use happy_wire::relay::{Credential, FromRelay, LOGIN_LABEL, ToRelay, login_message};

use super::{
    invitation,
    relay::{from_relay, to_relay},
    world::World,
};
use crate::{
    Randomness,
    json::Json,
    object,
    page::relay::{self, Login},
};

/// What a relay with the default settings says of itself.
pub const LIMITS: (u32, u32) = (65_536, 262_144);

pub fn vectors() -> Json {
    let world = World::new();
    let ticket = invitation::invitation(&world).ticket();
    let mut rng = Randomness::new("happy vectors: the login");
    let host = world.page.machine.id();
    let secret = "correct horse battery staple";
    let seed = relay::enrolment_seed(secret);
    let cases = [
        ("wherever the relay is", "HTTPS://Relay.Example:443", 1, None, None),
        ("on this machine, later", "http://127.0.0.1:3000", 1_700_000_000_123, None, None),
        ("a guest with a ticket", "happy://relay.example:8443", 2, Some(&ticket), None),
        ("a machine with an enrolment key", "https://relay.example", 3, None, Some(&seed)),
    ];
    let cases = cases.map(|(what, origin, epoch, ticket, enrolment)| {
        let (nonce, client_nonce): ([u8; 32], [u8; 16]) = (rng.take(), rng.take());
        let name = relay::name(origin);
        assert_eq!(Origin::parse(origin).expect("it is an origin").authority(), name);
        let device = &world.page.phone;
        let page = Login { relay: &name, nonce: &nonce, device, epoch, client_nonce: &client_nonce, ticket, enrolment };

        let id = world.phone.device_id();
        let key = enrolment.map(EnrolmentKey::from_seed);
        let credential = match (ticket, &key) {
            (Some(ticket), _) => Credential::Ticket(*ticket),
            (None, Some(key)) => Credential::Enrolment { key: key.public().id(), signature: [0; 64] },
            (None, None) => Credential::None,
        };
        let signed = login_message(&name, &nonce, &id, epoch, &client_nonce, &credential);
        assert_eq!(signed, page.signed_bytes());
        let signature = world.phone.sign(LOGIN_LABEL, &signed);
        assert_eq!(signature, page.signature());
        id.verify(LOGIN_LABEL, &signed, &signature).expect("the relay accepts it");
        let credential = match (credential, key) {
            (Credential::Enrolment { key: id, .. }, Some(key)) => {
                let signature = key.sign(&signed);
                assert_eq!(Some(signature), page.enrolment_signature());
                key.public().verify(&signed, &signature).expect("the relay accepts it");
                Credential::Enrolment { key: id, signature }
            }
            (other, _) => other,
        };
        let login = ToRelay::Login { device: id, epoch, client_nonce, credential, signature };
        let welcome = FromRelay::Welcome {
            max_payload: LIMITS.0,
            queue_bytes: LIMITS.1,
            host: ticket.map(|_| DeviceId::from_bytes(host)),
        };
        object! {
            "case": what,
            "origin": origin,
            "relay name": &name[..],
            "nonce": nonce,
            "Challenge": from_relay(&FromRelay::Challenge { nonce }, relay::challenge(&nonce)),
            "epoch": epoch,
            "client nonce": client_nonce,
            "ticket": ticket,
            "enrolment key, public": enrolment.map(|seed| EnrolmentKey::from_seed(seed).public().to_string()),
            "enrolment signature": page.enrolment_signature(),
            "signed bytes after the label": page.signed_bytes(),
            "signature": signature,
            "Login": to_relay(&login, page.frame()),
            "Welcome": from_relay(&welcome, relay::welcome(LIMITS.0, LIMITS.1, ticket.map(|_| &host))),
        }
    });
    object! {
        "section": "PROTOCOL 7",
        "Ed25519 seed": world.page.phone.seed,
        "device id": world.page.phone.id(),
        "enrolment secret": secret,
        "enrolment seed": seed,
        "cases": cases.to_vec(),
    }
}
