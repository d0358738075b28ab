use happy_wire::WireError;
use happy_wire::call::CallMessage;
use proptest::prelude::*;

use crate::{bytes, holds};

proptest! {
    #[test]
    fn messages_hold(kind in 0..4_u8, id in 1..=u64::MAX, body in bytes(300)) {
        let (message, open) = match kind {
            0 => (CallMessage::Request { id, body: &body }, Some(body.len())),
            1 => (CallMessage::Response { id, body: &body }, Some(body.len())),
            2 => (CallMessage::Event(&body), Some(body.len())),
            _ => (CallMessage::Cancel { id }, None),
        };
        let encoded = message.to_vec();
        holds(&encoded, open, |cut| CallMessage::decode(cut).map(|message| message.to_vec()))?;
        prop_assert_eq!(CallMessage::decode(&encoded), Ok(message));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_back(kind in 0..6_u8, zero in any::<bool>(), bytes in bytes(40)) {
        let id = if zero { 0 } else { 7_u64 };
        for bytes in [bytes.clone(), [&[kind][..], &id.to_be_bytes(), &bytes].concat()] {
            if let Ok(message) = CallMessage::decode(&bytes) {
                prop_assert_eq!(message.to_vec(), bytes);
            }
        }
    }
}

#[test]
fn messages_look_as_the_page_says() {
    assert_eq!(CallMessage::Request { id: 1, body: b"{}" }.to_vec(), b"\x01\0\0\0\0\0\0\0\x01{}");
    assert_eq!(CallMessage::Response { id: 2, body: b"{}" }.to_vec(), b"\x02\0\0\0\0\0\0\0\x02{}");
    assert_eq!(CallMessage::Event(b"{}").to_vec(), b"\x03\0\0\0\0\0\0\0\0{}");
    assert_eq!(CallMessage::Cancel { id: 3 }.to_vec(), b"\x04\0\0\0\0\0\0\0\x03");
}

#[test]
fn an_id_must_fit_its_kind() {
    for kind in [1, 2, 4] {
        assert_eq!(CallMessage::decode(&[kind, 0, 0, 0, 0, 0, 0, 0, 0]), Err(WireError::Field("id of a call")));
    }
    assert_eq!(CallMessage::decode(&[3, 0, 0, 0, 0, 0, 0, 0, 1]), Err(WireError::Field("id of a call")));
    assert_eq!(CallMessage::decode(&[5, 0, 0, 0, 0, 0, 0, 0, 1]), Err(WireError::UnknownType(5)));
}
