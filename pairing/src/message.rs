//! Pairing messages (PROTOCOL 11): what stands inside the sealed packets of a pairing.

use crate::{
    Origin, Role,
    bytes::{Malformed, Reader, put_bytes16, put_str8},
    name::is_clean,
};

/// Relays that a machine names; more are not accepted.
pub(crate) const MAX_RELAYS: usize = 8;

/// A message of either side. Statements and the bundle are bytes here; who receives them verifies them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Offer { role: Role, machine_name: String },
    Greeting { device_name: String },
    Added { device_name: String, statement: Vec<u8>, bundle: Vec<u8>, relays: Vec<Origin> },
    Accepted { statement: Vec<u8> },
    Failed(Failure),
    Done,
}

/// Why the machine ended a pairing that had begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    WrongCode = 1,
    Expired = 2,
    Cancelled = 3,
}

impl Message {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Offer { role, machine_name } => {
                out.extend_from_slice(&[0x01, (*role).into()]);
                put_str8(&mut out, machine_name);
            }
            Self::Greeting { device_name } => {
                out.push(0x02);
                put_str8(&mut out, device_name);
            }
            Self::Added { device_name, statement, bundle, relays } => {
                out.push(0x03);
                put_str8(&mut out, device_name);
                put_bytes16(&mut out, statement);
                put_bytes16(&mut out, bundle);
                let relays = &relays[..relays.len().min(MAX_RELAYS)];
                out.push(relays.len() as u8);
                relays.iter().for_each(|relay| put_str8(&mut out, relay.as_str()));
            }
            Self::Accepted { statement } => {
                out.push(0x04);
                put_bytes16(&mut out, statement);
            }
            Self::Failed(failure) => out.extend_from_slice(&[0x05, *failure as u8]),
            Self::Done => out.push(0x06),
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let message = match reader.u8()? {
            0x01 => Self::Offer {
                role: Role::try_from(reader.u8()?).map_err(|_| Malformed)?,
                machine_name: name(&mut reader)?,
            },
            0x02 => Self::Greeting { device_name: name(&mut reader)? },
            0x03 => Self::Added {
                device_name: name(&mut reader)?,
                statement: reader.bytes16()?.to_vec(),
                bundle: reader.bytes16()?.to_vec(),
                relays: relays(&mut reader)?,
            },
            0x04 => Self::Accepted { statement: reader.bytes16()?.to_vec() },
            0x05 => Self::Failed(match reader.u8()? {
                1 => Failure::WrongCode,
                2 => Failure::Expired,
                3 => Failure::Cancelled,
                _ => return Err(Malformed),
            }),
            0x06 => Self::Done,
            _ => return Err(Malformed),
        };
        reader.finish()?;
        Ok(message)
    }
}

fn name(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let name = reader.str8()?;
    if is_clean(name) { Ok(name.to_owned()) } else { Err(Malformed) }
}

fn relays(reader: &mut Reader<'_>) -> Result<Vec<Origin>, Malformed> {
    let count = reader.u8()?;
    if usize::from(count) > MAX_RELAYS {
        return Err(Malformed);
    }
    (0..count).map(|_| Origin::parse(reader.str8()?).map_err(|_| Malformed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all() -> Vec<Message> {
        let relays =
            vec![Origin::parse("https://relay.example").unwrap(), Origin::parse("http://localhost:1").unwrap()];
        vec![
            Message::Offer { role: Role::Viewer, machine_name: "desk".into() },
            Message::Greeting { device_name: "phöne".into() },
            Message::Added { device_name: "phone".into(), statement: vec![1; 300], bundle: vec![2; 277], relays },
            Message::Accepted { statement: vec![] },
            Message::Failed(Failure::WrongCode),
            Message::Failed(Failure::Expired),
            Message::Failed(Failure::Cancelled),
            Message::Done,
        ]
    }

    #[test]
    fn each_message_comes_back_and_no_part_of_it_is_one() {
        for message in all() {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Ok(message));
            for length in 0..bytes.len() {
                assert_eq!(Message::decode(&bytes[..length]), Err(Malformed));
            }
            assert_eq!(Message::decode(&[&bytes[..], &[0]].concat()), Err(Malformed));
        }
    }

    #[test]
    fn names_that_could_move_a_cursor_are_refused() {
        assert_eq!(Message::decode(b"\x02\x03\x1b[J"), Err(Malformed));
        assert_eq!(Message::decode(&[&[2, 65][..], &[b'x'; 65]].concat()), Err(Malformed));
    }

    proptest! {
        #[test]
        fn garbage_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert!(Message::decode(&message.encode()).is_ok());
            }
        }
    }
}
