use happy_wire::frame::{Class, DATA_OVERHEAD, FrameHeader, MAX_BULK_RECORD, MAX_FRAME, Record};
use happy_wire::{Code, WireError};
use proptest::prelude::*;

use crate::{bytes, text};

/// A record that owns what it points to.
#[derive(Debug, Clone)]
struct Owned {
    kind: u8,
    channel: u32,
    class: Class,
    last: bool,
    number: u64,
    code: u16,
    text: String,
    bytes: Vec<u8>,
}

impl Owned {
    fn record(&self) -> Record<'_> {
        let Self { channel, class, last, number, code, text, bytes, .. } = self;
        match self.kind {
            0 => Record::Open { channel: *channel, class: *class, limit: *number, label: text },
            1 => Record::Data { channel: *channel, last: *last, bytes },
            2 => Record::Limit { channel: *channel, limit: *number },
            3 => Record::Close { channel: *channel, code: Code(*code), reason: text },
            4 => Record::Ping(*number),
            5 => Record::Pong(*number),
            6 => Record::Resume,
            _ => Record::Goodbye { code: Code(*code), reason: text },
        }
    }
}

prop_compose! {
    fn owned(kinds: std::ops::Range<u8>)(
        kind in kinds, channel in any::<u32>(), class in 0..3_u8, last in any::<bool>(), number in any::<u64>(),
        code in any::<u16>(), text in text(), bytes in bytes(300),
    ) -> Owned {
        Owned { kind, channel, class: Class::try_from(class).unwrap(), last, number, code, text, bytes }
    }
}

/// Records that may stand in one frame, and its header.
fn frame() -> impl Strategy<Value = (FrameHeader, Vec<Owned>)> {
    let numbered = (any::<u64>().prop_map(Some), any::<u64>(), proptest::collection::vec(owned(0..4), 0..8));
    let unnumbered = (Just(None), any::<u64>(), proptest::collection::vec(owned(4..8), 0..8));
    prop_oneof![numbered, unnumbered]
        .prop_map(|(number, acknowledgement, records)| (FrameHeader { number, acknowledgement }, records))
}

fn encode(header: &FrameHeader, records: &[Record<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    header.encode(&mut out);
    records.iter().for_each(|record| record.encode(&mut out));
    out
}

/// The header and the records up to the first error, and that error.
fn decode(bytes: &[u8]) -> Result<(FrameHeader, Vec<Record<'_>>, Option<WireError>), WireError> {
    let (header, records) = FrameHeader::decode(bytes)?;
    let (mut good, mut error) = (Vec::new(), None);
    for record in records {
        match record {
            Ok(record) => {
                assert_eq!(error, None, "a record after an error");
                good.push(record);
            }
            Err(found) => error = Some(found),
        }
    }
    Ok((header, good, error))
}

proptest! {
    #[test]
    fn frames_read_back((header, owned) in frame(), padding in 0..40_usize) {
        let mut records: Vec<_> = owned.iter().map(Owned::record).collect();
        if padding > 0 {
            records.push(Record::Padding(padding));
        }
        let encoded = encode(&header, &records);
        prop_assert_eq!(decode(&encoded), Ok((header, records, None)));
    }

    /// A cut frame gives the whole records before the cut and then an error, unless the cut is between two records.
    #[test]
    fn a_cut_frame_never_gives_another_record((header, owned) in frame()) {
        let records: Vec<_> = owned.iter().map(Owned::record).collect();
        let encoded = encode(&header, &records);
        let bounds: Vec<_> = (0..=records.len()).map(|n| encode(&header, &records[..n]).len()).collect();
        for cut in 0..encoded.len() {
            let whole = bounds.iter().filter(|bound| **bound <= cut).count();
            match decode(&encoded[..cut]) {
                Err(error) => prop_assert!(whole == 0 && error == WireError::Cut),
                Ok((_, good, error)) => {
                    prop_assert_eq!(&good[..], &records[..whole - 1]);
                    let expected = (!bounds.contains(&cut)).then_some(WireError::Cut);
                    prop_assert_eq!(error, expected);
                }
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_back(kind in 0..3_u8, rest in bytes(200), records in bytes(60)) {
        // Small type bytes, so that records are met often.
        let small: Vec<u8> = records.iter().map(|byte| byte % 10).collect();
        for tail in [&rest, &small] {
            let bytes = [&[kind], &rest[..rest.len().min(16)], tail].concat();
            if let Ok((header, records, None)) = decode(&bytes) {
                prop_assert_eq!(encode(&header, &records), bytes);
            }
        }
    }

    /// What changes state that both sides share must be numbered, and only that.
    #[test]
    fn records_stand_in_their_kind_of_frame_only(record in owned(0..8), number in any::<u64>()) {
        let reliable = record.kind < 4;
        let header = FrameHeader { number: (!reliable).then_some(number), acknowledgement: 0 };
        let encoded = encode(&header, &[record.record()]);
        prop_assert_eq!(decode(&encoded), Ok((header, vec![], Some(WireError::Field("record in the wrong kind of frame")))));
    }
}

const NUMBERED: FrameHeader = FrameHeader { number: Some(1), acknowledgement: 2 };
const UNNUMBERED: FrameHeader = FrameHeader { number: None, acknowledgement: 2 };

#[test]
fn frames_look_as_the_page_says() {
    let cat = |parts: &[&[u8]]| parts.concat();
    assert_eq!(encode(&UNNUMBERED, &[]), cat(&[&[0], &[0, 0, 0, 0, 0, 0, 0, 2]]));
    assert_eq!(encode(&NUMBERED, &[]), cat(&[&[1], &[0, 0, 0, 0, 0, 0, 0, 1], &[0, 0, 0, 0, 0, 0, 0, 2]]));
    let records: [(Record<'_>, Vec<u8>); 9] = [
        (Record::Padding(3), vec![0, 0, 0]),
        (
            Record::Open { channel: 3, class: Class::Bulk, limit: 4, label: "ab" },
            vec![1, 0, 0, 0, 3, 2, 0, 0, 0, 0, 0, 0, 0, 4, 2, b'a', b'b'],
        ),
        (Record::Data { channel: 3, last: true, bytes: b"hi" }, vec![2, 0, 0, 0, 3, 1, 0, 2, b'h', b'i']),
        (Record::Limit { channel: 3, limit: 4 }, vec![3, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4]),
        (Record::Close { channel: 3, code: Code(4400), reason: "x" }, vec![4, 0, 0, 0, 3, 0x11, 0x30, 1, b'x']),
        (Record::Ping(1), vec![5, 0, 0, 0, 0, 0, 0, 0, 1]),
        (Record::Pong(1), vec![6, 0, 0, 0, 0, 0, 0, 0, 1]),
        (Record::Resume, vec![7]),
        (Record::Goodbye { code: Code(4000), reason: "x" }, vec![8, 0x0f, 0xa0, 1, b'x']),
    ];
    for (record, bytes) in records {
        let mut out = Vec::new();
        record.encode(&mut out);
        assert_eq!(out, bytes, "{record:?}");
    }
    let mut data = Vec::new();
    Record::Data { channel: 1, last: false, bytes: &[] }.encode(&mut data);
    assert_eq!(data.len(), DATA_OVERHEAD);
}

#[test]
fn a_bulk_record_leaves_room_in_a_frame() {
    let data = vec![0; MAX_BULK_RECORD];
    let record = Record::Data { channel: 1, last: true, bytes: &data };
    assert!(encode(&NUMBERED, &[record, Record::Limit { channel: 0, limit: 0 }]).len() <= MAX_FRAME);
}

#[test]
fn what_the_table_does_not_list_is_refused() {
    let error = |header: &FrameHeader, tail: &[u8]| decode(&[&encode(header, &[])[..], tail].concat()).unwrap().2;
    assert_eq!(FrameHeader::decode(&[2, 0, 0, 0, 0, 0, 0, 0, 0]).err(), Some(WireError::Field("kind of frame")));
    assert_eq!(error(&NUMBERED, &[0, 0, 1]), Some(WireError::Field("padding")));
    assert_eq!(error(&NUMBERED, &[10]), Some(WireError::UnknownType(10)));
    assert_eq!(error(&NUMBERED, &[2, 0, 0, 0, 1, 2, 0, 0]), Some(WireError::Field("flags of data")));
    assert_eq!(
        error(&NUMBERED, &[1, 0, 0, 0, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        Some(WireError::Field("class of channel"))
    );
    assert_eq!(error(&UNNUMBERED, &[8, 0, 0, 1, 0xff]), Some(WireError::Field("text")));
}
