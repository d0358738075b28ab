//! What a stranger sends to a relay before anybody knows it, compared with models that read slowly and all at once.

use happy_relay::inside::{self, Brought, web_origin};
use happy_wire::relay::{MAX_FRAME, MAX_SEALED_RECORD, SUBPROTOCOL};

use crate::choose;
use crate::session::people;

/// The longest head of a frame from a device.
const MAX_HEAD: usize = 14;
/// What one input may grow to.
const MAX_BYTES: usize = 256 * 1024;
/// The web origin that is allowed besides the relay's own.
const ORIGIN: &str = "https://app.example";

/// The first byte chooses: frames in orders, frames as they are, the head of a request, a token, the records in a body.
pub fn websocket(data: &[u8]) {
    let (kind, bytes) = choose(data);
    match kind % 5 {
        0 => ordered(bytes),
        1 => {
            let (cut, bytes) = choose(bytes);
            frames(bytes, cut);
        }
        2 => upgrade(bytes),
        3 => token(&String::from_utf8_lossy(bytes)),
        _ => {
            for (kind, version, length) in inside::records(bytes).unwrap_or_default() {
                assert!((1..=2).contains(&kind) && version > 0 && (1..=MAX_SEALED_RECORD).contains(&length));
            }
        }
    }
}

/// Orders of five bytes: the first byte of a frame, a length, what its head is like, and what fills it. So a short input makes frames and messages at all
/// bounds. What they bring does not depend on their masks.
fn ordered(orders: &[u8]) {
    let (cut, orders) = choose(orders);
    let mut masked = [[0; 4], [0x80, 1, 0xfe, 0x55]].map(|mask| (mask, Vec::new()));
    for order in orders.chunks_exact(5) {
        let [first, high, low, how, fill] = [0, 1, 2, 3, 4].map(|at| order[at]);
        let length = usize::from(u16::from_be_bytes([high, low]));
        // Beyond what two bytes say, near the largest frame.
        let length = if how & 4 == 0 { length } else { MAX_FRAME - 64 + length % 128 };
        if masked[0].1.len() + length > MAX_BYTES {
            break;
        }
        for (mask, bytes) in &mut masked {
            put_frame(bytes, first, (length, how), *mask, fill);
        }
    }
    let brought = masked.map(|(_, bytes)| frames(&bytes, cut));
    assert_eq!(brought[0], brought[1], "the mask is no part of a message");
}

/// Appends a frame. Bits 0 and 1 of `how` choose the form of the length, where it fits; without a mask (bits 3 to 7 set) it is broken.
fn put_frame(bytes: &mut Vec<u8>, first: u8, (length, how): (usize, u8), mask: [u8; 4], fill: u8) {
    let is_masked = if how >> 3 == 0x1f { 0 } else { 0x80 };
    bytes.push(first);
    match (how & 3, length) {
        (0, 0..126) => bytes.push(is_masked | length as u8),
        (0 | 1, 0..0x1_0000) => {
            bytes.push(is_masked | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(is_masked | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    // The first two are the code of a Close.
    let body = [3, 0xe8].into_iter().chain(std::iter::repeat(fill));
    bytes.extend(body.take(length).zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// However they are cut, the same bytes bring what the model says, and no more is kept than one frame and one message.
fn frames(bytes: &[u8], cut: u8) -> Vec<Brought> {
    let expected = model(bytes);
    let whole = inside::websocket([bytes]).0;
    assert_eq!(whole, expected, "at once");
    let (brought, kept, held) = inside::websocket(Cut { bytes, seed: cut.into() });
    assert_eq!(brought, expected, "cut by {cut}");
    assert!(kept < MAX_HEAD + MAX_FRAME, "{kept} bytes of a frame are kept");
    assert!(held <= MAX_FRAME, "{held} bytes of a message are kept");
    let (written, found) = inside::websocket_again(&brought);
    let bodies = brought.iter().filter_map(|one| if let Brought::Binary(body) = one { Some(body) } else { None });
    assert!(bodies.eq(&found), "what is written is found again");
    // RFC 6455, 5.1: what a server writes has no mask, so that a server which reads it refuses it.
    assert!(written.is_empty() || inside::websocket([&written[..]]).0 == [Brought::Broken]);
    brought
}

/// Parts of lengths that follow from a seed: some of single bytes, some of many.
struct Cut<'a> {
    bytes: &'a [u8],
    seed: u32,
}

impl<'a> Iterator for Cut<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // From 1 byte to 32 KiB, each magnitude as likely as any other.
        let random = self.seed >> 16;
        let length = 1 + (random as usize >> (random % 16));
        let (part, rest) = self.bytes.split_at(length.min(self.bytes.len()));
        self.bytes = rest;
        Some(part).filter(|part| !part.is_empty())
    }
}

/// RFC 6455, 5.2 and `PROTOCOL 7`, read with everything at hand.
fn model(mut bytes: &[u8]) -> Vec<Brought> {
    let (mut brought, mut parts) = (Vec::new(), None::<Vec<u8>>);
    let last = loop {
        let Some([first, second]) = bytes.first_chunk().copied() else { return brought };
        let (is_last, reserved, code) = (first >= 0x80, first & 0x70, first & 0x0f);
        if reserved != 0 || ![0, 1, 2, 8, 9, 10].contains(&code) || second < 0x80 {
            break Brought::Broken;
        }
        let wide = [0, 2, 8][usize::from(second & 0x7f).saturating_sub(125)];
        let Some(wide_length) = bytes.get(2..2 + wide) else { return brought };
        let length = match wide {
            0 => u64::from(second & 0x7f),
            _ => wide_length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        if code >= 8 && (!is_last || length > 125) {
            break Brought::Broken;
        }
        if length > MAX_FRAME as u64 {
            break Brought::TooLarge;
        }
        let (length, head) = (length as usize, 2 + wide + 4);
        let Some(mask) = bytes.get(2 + wide..head) else { return brought };
        if code == 0 && parts.as_ref().is_some_and(|parts| parts.len() + length > MAX_FRAME) {
            break Brought::TooLarge;
        }
        let Some(body) = bytes.get(head..head + length) else { return brought };
        let mut body: Vec<u8> = body.iter().enumerate().map(|(n, byte)| byte ^ mask[n % 4]).collect();
        bytes = &bytes[head + length..];
        match (code, parts.take()) {
            (8, _) => break close(&body),
            (9, before) => {
                parts = before;
                brought.push(Brought::Ping(body));
            }
            (10, before) => parts = before,
            (1, None) => break Brought::Text,
            (2, None) if is_last => brought.push(Brought::Binary(body)),
            (2, None) => parts = Some(body),
            (0, Some(mut whole)) => {
                whole.append(&mut body);
                match is_last {
                    true => brought.push(Brought::Binary(whole)),
                    false => parts = Some(whole),
                }
            }
            _ => break Brought::Broken,
        }
    };
    brought.push(last);
    brought
}

/// RFC 6455, 5.5.1 and 7.4.
fn close(body: &[u8]) -> Brought {
    match body {
        [] => Brought::Close(1000),
        [_] => Brought::Broken,
        [_, _, text @ ..] if std::str::from_utf8(text).is_err() => Brought::Broken,
        [high, low, ..] => Brought::Close(match u16::from_be_bytes([*high, *low]) {
            code if !(1000..5000).contains(&code) => 1002,
            code if [1004, 1005, 1006].contains(&code) || (1015..3000).contains(&code) => 1002,
            code => code,
        }),
    }
}

/// A header in each line, as `name:value`. Whether they become a websocket is what the model says.
fn upgrade(lines: &[u8]) {
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let headers: Vec<(&[u8], &[u8])> = lines
        .map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            (&line[..colon], line.get(colon + 1..).unwrap_or_default())
        })
        .collect();
    match inside::upgrade(&headers, ORIGIN) {
        None => {}
        Some(Ok((host, accept))) => {
            assert!(upgrades(&headers), "a request that should have been refused");
            assert!(accept.len() == 28 && host == host.to_ascii_lowercase());
        }
        Some(Err(code)) => assert!(!upgrades(&headers), "refused: {code}"),
    }
}

/// `PROTOCOL 7`, Websocket, and RFC 6455, 4.2.1.
fn upgrades(headers: &[(&[u8], &[u8])]) -> bool {
    let all = |name: &str| {
        let named = headers.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name.as_bytes()));
        named.map(|(_, value)| *value).collect::<Vec<_>>()
    };
    let legible = |value: &[u8]| {
        let text = value.iter().all(|byte| *byte == b'\t' || (b' '..=b'~').contains(byte));
        text.then(|| String::from_utf8_lossy(value).into_owned())
    };
    let once = |name: &str| if let [value] = all(name)[..] { legible(value) } else { None };
    let lists = |name: &str, item: &str| {
        let items = all(name).into_iter().filter_map(legible);
        items
            .flat_map(|value| value.split(',').map(|item| item.trim().to_ascii_lowercase()).collect::<Vec<_>>())
            .any(|other| other == item)
    };
    let key_is_whole = once("sec-websocket-key").is_some_and(|key| {
        let digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
        key.len() == 24 && key.ends_with("==") && key.as_bytes()[..22].iter().all(digit)
    });
    let host = once("host").and_then(|host| inside::authority(&host));
    let from_where = once("origin").and_then(|origin| web_origin(&origin));
    let origin_is_ours = all("origin").is_empty()
        || from_where.is_some_and(|origin| {
            let at = origin.trim_start_matches("https://").trim_start_matches("http://").to_owned();
            origin == ORIGIN || Some(at) == host
        });
    lists("upgrade", "websocket")
        && lists("connection", "upgrade")
        && lists("sec-websocket-protocol", SUBPROTOCOL)
        && once("sec-websocket-version").as_deref() == Some("13")
        && key_is_whole
        && host.is_some()
        && origin_is_ours
}

/// Nothing here is signed, so no text is a token of the machine.
fn token(text: &str) {
    let key = people().machine.device_id();
    if let Some((_, signed)) = inside::token(text, key.as_bytes(), "relay.example") {
        assert!(!signed && text.len() <= 1_024);
        assert_eq!(text.matches('.').count(), 2);
    }
}
