//! What the fuzz targets reach of the inside. Nothing else may use it.

use std::mem;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::bus::batch;
use crate::http::Upgrade;
use crate::websocket::{self, Fault, Message, Reader};
use crate::{rest, token};

pub use crate::config::{authority, web_origin};

/// Reads a batch (`PROTOCOL 15`) and writes what was read. None when it has no head of this version.
pub fn batch_again(bytes: &[u8]) -> Option<Vec<u8>> {
    let batch = batch::Batch::read(bytes)?;
    let mut again = Vec::new();
    batch::begin(&mut again, batch.from, batch.unix_ms);
    batch.map_while(Result::ok).for_each(|record| batch::push(&mut again, &record));
    Some(again)
}

/// What a websocket brings, in its order. Behind the last four nothing more is read.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are those of `websocket`")]
pub enum Brought {
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Text,
    Close(u16),
    Broken,
    TooLarge,
}

/// Reads a websocket that comes in parts, as a connection does: what is no whole frame yet is kept until more comes. Says too how much was
/// kept at most, besides the part itself: of frames, and of messages in fragments.
pub fn websocket<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Brought>, usize, usize) {
    let (mut reader, mut kept) = (Reader::default(), Vec::new());
    let (mut brought, mut most_kept, mut most_held) = (Vec::new(), 0, 0);
    for part in parts {
        kept.extend_from_slice(part);
        let mut all = mem::take(&mut kept);
        let mut rest = &mut all[..];
        loop {
            let next = reader.next(&mut rest);
            most_held = most_held.max(reader.held());
            let (one, last) = match next {
                Ok(None) => break,
                Ok(Some(Message::Binary(body))) => (Brought::Binary(body.into_owned()), false),
                Ok(Some(Message::Ping(body))) => (Brought::Ping(body.to_vec()), false),
                Ok(Some(Message::Text)) => (Brought::Text, true),
                Ok(Some(Message::Close(code))) => (Brought::Close(code), true),
                Err(Fault::Broken) => (Brought::Broken, true),
                Err(Fault::TooLarge) => (Brought::TooLarge, true),
            };
            brought.push(one);
            if last {
                return (brought, most_kept, most_held);
            }
        }
        kept.extend_from_slice(rest);
        most_kept = most_kept.max(kept.len());
    }
    (brought, most_kept, most_held)
}

/// What the relay would write for these, as far as it writes such things, and the binary messages that it finds in that again.
pub fn websocket_again(brought: &[Brought]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let mut out = Vec::new();
    for one in brought {
        match one {
            Brought::Binary(body) => websocket::put_message(&mut out, body),
            Brought::Ping(body) => websocket::put_pong(&mut out, body),
            Brought::Close(code) => websocket::put_close(&mut out, *code, ""),
            Brought::Text | Brought::Broken | Brought::TooLarge => {}
        }
    }
    let found = websocket::messages(&out).map(<[u8]>::to_vec).collect();
    (out, found)
}

/// Whether a request with these headers becomes a websocket: the name that it dialled and the answer to its key, or the code of the
/// refusal. None when they are no headers. Pages of `origin` may connect.
pub fn upgrade(headers: &[(&[u8], &[u8])], origin: &str) -> Option<Result<(String, Vec<u8>), &'static str>> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    let read = Upgrade::read(&map, &[origin.to_owned()]);
    Some(read.map(|upgrade| (upgrade.host, upgrade.accept.as_bytes().to_vec())).map_err(|unfit| unfit.code))
}

/// The node that a token names, when it is one by its form, and whether it is signed with this key for this relay.
pub fn token(text: &str, key: &[u8; 32], relay: &str) -> Option<(String, bool)> {
    let token = token::read(text).ok()?;
    let signed = token.verify(key, &[relay.to_owned()]).is_ok();
    Some((token.node, signed))
}

/// Kind, version and length of each record in a body for `POST /v1/machines`.
pub fn records(body: &[u8]) -> Option<Vec<(u8, u64, usize)>> {
    let records = rest::records_in(body)?;
    Some(records.into_iter().map(|(kind, record)| (kind, record.version, record.sealed.len())).collect())
}
