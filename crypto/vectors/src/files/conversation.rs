//! PROTOCOL 6: a conversation after the pairing, with turns, gaps, late messages and repetitions.

use happy_crypto::{OpenError, Ratchet};

use super::{
    handshake::{pair, turn},
    world::{World, cut},
};
use crate::{
    Randomness,
    json::Json,
    object,
    page::{self, Key},
};

/// Who does something.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    I,
    R,
}

enum Step {
    /// Somebody seals this text; messages count from 0.
    Send(Side, &'static [u8]),
    /// The message with this number arrives at the other side and opens.
    Arrive(usize),
    /// It arrives once more and is told apart as a repetition.
    Repeat(usize),
}

use Side::{I, R};
use Step::{Arrive, Repeat, Send};

const STEPS: &[Step] = &[
    Send(I, b"the first message, which comes late"),
    Send(I, b"the second overtakes it"),
    Arrive(1),
    Send(R, b"R turns the ratchet"),
    Send(R, b""),
    Arrive(2),
    Repeat(2),
    Send(I, b"I turns it too, and this one is late"),
    Send(I, b"and so is this"),
    Send(I, b"two were skipped"),
    Arrive(6),
    Arrive(4),
    // Of the older chain, and then nothing is missing there.
    Arrive(0),
    Repeat(0),
    Send(R, b"a new chain, which says that the old one had two messages"),
    Arrive(7),
    Send(I, b"a message that never arrives"),
    Send(I, b"the last of this chain"),
    Arrive(9),
    Send(R, b"the turn in which message 8 stays missing"),
    Arrive(10),
    // Two chains later: R's empty message, and I's from the skipped part.
    Arrive(3),
    Arrive(5),
    Repeat(5),
    Send(I, &[0xFF; 100]),
    Arrive(11),
];

/// One side twice: ours and the page's.
struct Both {
    ours: Ratchet,
    page: page::Ratchet,
}

struct Message {
    from: Side,
    plaintext: &'static [u8],
    bytes: Vec<u8>,
}

pub fn vectors() -> Json {
    let shaken = pair(&World::new());
    let ([initiator, responder], _) = shaken.page.ratchets();
    let mut i = Both { ours: shaken.at_phone.ratchet, page: initiator };
    let mut r = Both { ours: shaken.at_machine.ratchet, page: responder };

    let mut rng = Randomness::new("happy vectors: the conversation");
    let mut messages: Vec<Message> = Vec::new();
    let mut steps = Vec::new();
    for step in STEPS {
        match *step {
            Send(from, plaintext) => {
                let side = if from == I { &mut i } else { &mut r };
                let (bytes, json) = send(&mut rng, side, messages.len(), from, plaintext);
                messages.push(Message { from, plaintext, bytes });
                steps.push(json);
            }
            Arrive(number) => {
                let message = &messages[number];
                let to = if message.from == I { &mut r } else { &mut i };
                let with = arrive(to, message);
                steps.push(object! { "arrives": number as u64, "opens with header key": with });
            }
            Repeat(number) => {
                let message = &messages[number];
                let to = if message.from == I { &mut r } else { &mut i };
                assert_eq!(to.ours.decrypt(&message.bytes, &mut Vec::new()), Err(OpenError::Repeated));
                assert!(to.page.receive(&message.bytes).is_none());
                steps.push(object! { "arrives": number as u64, "refused as": "a repetition" });
            }
        }
    }
    shaken.page.beginning("PROTOCOL 6").with("steps", steps)
}

fn send(rng: &mut Randomness, side: &mut Both, number: usize, from: Side, plaintext: &[u8]) -> (Vec<u8>, Json) {
    let mut bytes = Vec::new();
    side.ours.encrypt(rng, plaintext, &mut bytes).expect("it may send");
    let (new_key, salt, randomness) = page_draws(rng, &side.page);
    let sent = side.page.send(new_key, &salt, plaintext);
    assert_eq!(bytes, sent.bytes);
    let json = object! {
        "sends": number as u64,
        "from": if from == I { "I" } else { "R" },
        "plaintext": plaintext,
        "randomness": randomness,
        "new ratchet scalar": new_key.map(|key| key.secret()),
        "root step": sent.turn.as_ref().map(turn),
        "salt": salt,
        "ratchet key": &sent.header[..32],
        "PN": sent.previous_length,
        "N": sent.number,
        "chain key": sent.chain_key,
        "message key": sent.message_key,
        "header key": sent.header_key,
        "header cipher key": sent.header_cipher.0,
        "header cipher nonce": sent.header_cipher.1,
        "header": &sent.header,
        "body cipher key": sent.body_cipher.0,
        "body cipher nonce": sent.body_cipher.1,
        "message": &bytes,
    };
    (bytes, json)
}

fn arrive(to: &mut Both, message: &Message) -> &'static str {
    let mut opened = Vec::new();
    to.ours.decrypt(&message.bytes, &mut opened).expect("it is genuine");
    assert_eq!(opened, message.plaintext);
    let by_page = to.page.receive(&message.bytes).expect("it is genuine");
    assert_eq!(by_page.plaintext, message.plaintext);
    by_page.with
}

/// What a message takes of what was drawn, and all of that: the new ratchet key if the ratchet is due, and the salt.
pub fn page_draws(rng: &mut Randomness, ratchet: &page::Ratchet) -> (Option<Key>, [u8; 16], Vec<u8>) {
    let randomness = rng.drawn();
    let new_key = ratchet.is_due().then(|| Key::new(cut(&randomness, 0)));
    let at = if new_key.is_some() { 32 } else { 0 };
    assert_eq!(randomness.len(), at + 16);
    (new_key, cut(&randomness, at), randomness)
}
