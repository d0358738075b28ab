use happy_wire::WireError;
use happy_wire::packet::{Gone, Packet, SEALED_PREFIX, put_sealed_prefix};
use proptest::prelude::*;

use crate::{bytes, holds};

fn packet(kind: u8, session: [u8; 16], body: &[u8]) -> (Packet<'_>, Option<usize>) {
    let open = Some(body.len());
    match kind {
        0 => (Packet::Hello(body), open),
        1 => (Packet::Welcome(body), open),
        2 => (Packet::Confirm(body), open),
        3 => (Packet::Refused(body), open),
        4 => (Packet::Sealed { session, message: body }, open),
        5 => (Packet::UnknownSession(session), None),
        6 => (Packet::BundleRequest, None),
        7 => (Packet::Bundle(body), open),
        8 => (Packet::InvitationGone(Gone::Used), None),
        9 => (Packet::InvitationGone(Gone::Expired), None),
        _ => (Packet::InvitationGone(Gone::Cancelled), None),
    }
}

proptest! {
    #[test]
    fn packets_hold(kind in 0..=10_u8, session in any::<[u8; 16]>(), body in bytes(300)) {
        let (packet, open) = packet(kind, session, &body);
        let encoded = packet.to_vec();
        holds(&encoded, open, |cut| Packet::decode(cut).map(|packet| packet.to_vec()))?;
        prop_assert_eq!(Packet::decode(&encoded), Ok(packet));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_back(bytes in bytes(60), known in 0..=0x13_u8) {
        for bytes in [bytes.clone(), [&[known], &bytes[..]].concat()] {
            if let Ok(packet) = Packet::decode(&bytes) {
                prop_assert_eq!(packet.to_vec(), bytes);
            }
        }
    }
}

#[test]
fn packets_look_as_the_page_says() {
    assert_eq!(Packet::Hello(b"h").to_vec(), b"\x01h");
    assert_eq!(Packet::Welcome(b"w").to_vec(), b"\x02w");
    assert_eq!(Packet::Confirm(b"c").to_vec(), b"\x03c");
    assert_eq!(Packet::Refused(b"r").to_vec(), b"\x04r");
    assert_eq!(Packet::Sealed { session: [7; 16], message: b"m" }.to_vec(), [&[5][..], &[7; 16], b"m"].concat());
    assert_eq!(Packet::UnknownSession([7; 16]).to_vec(), [&[6][..], &[7; 16]].concat());
    assert_eq!(Packet::BundleRequest.to_vec(), [0x10]);
    assert_eq!(Packet::Bundle(b"b").to_vec(), b"\x11b");
    let gone = [Gone::Used, Gone::Expired, Gone::Cancelled].map(|gone| Packet::InvitationGone(gone).to_vec());
    assert_eq!(gone, [[0x12, 1], [0x12, 2], [0x12, 3]]);
}

#[test]
fn what_the_table_does_not_list_is_refused() {
    assert_eq!(Packet::decode(&[]), Err(WireError::Cut));
    assert_eq!(Packet::decode(&[0x12, 0]), Err(WireError::Field("reason")));
    assert_eq!(Packet::decode(&[0x12, 4]), Err(WireError::Field("reason")));
    assert_eq!(Packet::decode(&[0x07]), Err(WireError::UnknownType(7)));
}

#[test]
fn a_packet_sealed_in_place_is_the_same() {
    let mut out = Vec::new();
    put_sealed_prefix(&mut out, &[3; 16]);
    assert_eq!(out.len(), SEALED_PREFIX);
    out.extend_from_slice(b"message");
    assert_eq!(out, Packet::Sealed { session: [3; 16], message: b"message" }.to_vec());
}
