//! PROTOCOL 8: one of every packet. What stands in them is that of the other files.

use happy_crypto::handshake::Refused;
use happy_wire::packet::{Gone, Packet};

use super::{handshake::pair, world::World};
use crate::{
    Randomness,
    json::Json,
    object,
    page::{
        self,
        packet::{self, Type},
    },
};

pub fn vectors() -> Json {
    let world = World::new();
    let shaken = pair(&world);
    let (page, session) = (&shaken.page, shaken.page.keys.session_id);
    let ([mut initiator, _], _) = page.ratchets();
    let salt = Randomness::new("happy vectors: the packets").take();
    // PROTOCOL 8: what follows Confirm.
    let message = initiator.send(None, &salt, &page::frame::frame(None, 0, &[page::frame::resume()])).bytes;
    let refused = page::refused(&world.page.machine, Refused::BUSY, &page.hello);
    let bundle = page::bundle(&world.page.machine, &world.page.signed, Some(&world.page.one_time));
    let packets: [(&str, Packet<'_>, Type, &[u8]); 11] = [
        ("Hello", Packet::Hello(&page.hello), Type::Hello, &page.hello),
        ("Welcome", Packet::Welcome(&page.welcome), Type::Welcome, &page.welcome),
        ("Confirm", Packet::Confirm(&page.confirm), Type::Confirm, &page.confirm),
        ("Refused", Packet::Refused(&refused), Type::Refused, &refused),
        ("UnknownSession", Packet::UnknownSession(session), Type::UnknownSession, &session),
        ("BundleRequest", Packet::BundleRequest, Type::BundleRequest, &[]),
        ("Bundle", Packet::Bundle(&bundle), Type::Bundle, &bundle),
        ("InvitationGone", Packet::InvitationGone(Gone::Used), Type::InvitationGone, &[1]),
        ("InvitationGone", Packet::InvitationGone(Gone::Expired), Type::InvitationGone, &[2]),
        ("InvitationGone", Packet::InvitationGone(Gone::Cancelled), Type::InvitationGone, &[3]),
        ("Sealed", Packet::Sealed { session, message: &message }, Type::Sealed, &[]),
    ];
    let packets = packets.map(|(name, ours, kind, body)| {
        let fields = match ours {
            Packet::Sealed { session, message } => object! { "session id": session, "ratchet message": message },
            _ => object! { "body": body },
        };
        let page = match ours {
            Packet::Sealed { .. } => packet::sealed(&session, &message),
            _ => packet::packet(kind, body),
        };
        assert_eq!(ours.to_vec(), page);
        assert_eq!(Packet::decode(&page), Ok(ours));
        object! { "type": name, "fields": fields, "packet": page }
    });
    object! { "section": "PROTOCOL 8", "packets": packets.to_vec() }
}
