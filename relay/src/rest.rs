//! What REST answers about machine records (`PROTOCOL 7`, Tokens and REST).
//!
//! Whoever asks shows a token that it got over its websocket. It is looked for in one header and nowhere else.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use happy_crypto::DeviceId;
use happy_wire::relay::{MAX_SEALED_RECORD, record_kind};
use serde_json::{Value, json};

use crate::Shared;
use crate::config::authority;
use crate::http::{error, json_response};
use crate::listen::Admission;
use crate::pauses::TooSoon;
use crate::records::{self, Known, Put, Record};
use crate::token::{Bearer, TokenError};

/// Two records as base64url, and the JSON around them.
const MAX_BODY: usize = 2 * (MAX_SEALED_RECORD * 4 / 3 + 128);

/// An answer that is an error. Boxed, since it is large and rare.
pub(crate) type Refused = Box<Response>;

pub(crate) fn refuse(status: StatusCode, code: &str, message: &str) -> Refused {
    Box::new(error(status, code, message))
}

pub(crate) fn unavailable() -> Refused {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "records are not at hand now; come again in a few seconds")
}

/// The right to exist of the socket over which a request came.
pub(crate) fn admission(extensions: &Extensions) -> Result<Arc<Admission>, Refused> {
    // `listen` gives it to every request.
    extensions.get().cloned().ok_or_else(unavailable)
}

/// Whom the token of a request speaks for. One that is none counts as a failed login of where it comes from, and ends the socket, so that the next
/// one has to come through the lobby.
pub(crate) async fn bearer(shared: &Shared, headers: &HeaderMap, admission: &Admission) -> Result<Bearer, Refused> {
    let refuse = |code, message| Err(refuse(StatusCode::UNAUTHORIZED, code, message));
    let text = |name| headers.get(name).and_then(|value: &axum::http::HeaderValue| value.to_str().ok());
    let scheme_and_token = text(header::AUTHORIZATION).and_then(|value| value.split_once(' '));
    let token = scheme_and_token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token);
    let Some(token) = token else {
        return refuse("token_missing", "send a token as `Authorization: Bearer …`; the websocket gives one");
    };
    let mut names = shared.names.read().clone();
    if names.is_empty() {
        names = text(header::HOST).and_then(authority).into_iter().collect();
    }
    match shared.hub.bearer(token.trim(), &names).await {
        Err(_) => Err(unavailable()),
        Ok(Ok(bearer)) => Ok(bearer),
        Ok(Err(TokenError::Expired)) => refuse("token_expired", "the token has expired; ask the websocket for another"),
        Ok(Err(TokenError::Invalid)) => {
            admission.failed_token(shared);
            let refused = refuse("token_invalid", "the token is not one of this relay's");
            refused.map_err(|mut refused| {
                refused.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                refused
            })
        }
    }
}

fn as_json(kind: u8, record: &Record) -> Value {
    json!({ "kind": kind, "version": record.version, "sealed": BASE64URL.encode(&record.sealed) })
}

/// A record as an event of `/v1/updates`.
pub(crate) fn event(machine: &DeviceId, kind: u8, record: &Record) -> String {
    let mut data = as_json(kind, record);
    data["id"] = machine.to_string().into();
    format!("event: record\ndata: {data}\n\n")
}

fn records_of(known: &Known) -> Vec<Value> {
    let with_kinds = record_kind::ALL.iter().zip(&known.records);
    with_kinds.filter_map(|(kind, record)| Some(as_json(*kind, record.as_ref()?))).collect()
}

/// `POST /v1/machines`: a machine puts its own records.
pub(crate) async fn put_machine(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    put(&shared, request).await.unwrap_or_else(|refused| *refused)
}

async fn put(shared: &Shared, request: Request) -> Result<Response, Refused> {
    let (head, body) = request.into_parts();
    let machine = bearer(shared, &head.headers, &*admission(&head.extensions)?).await?.device;
    let records = read_records(body).await?;
    let mut status = StatusCode::OK;
    for (kind, record) in records {
        match shared.hub.put_record_of(&machine, kind, record).await.map_err(too_soon)? {
            Put::Stored { .. } | Put::Same => {}
            Put::Conflict(_) => status = StatusCode::CONFLICT,
            Put::Refused => return Err(unavailable()),
        }
    }
    let known = shared.hub.known(&machine, &machine).await.map_err(|_| unavailable())?.unwrap_or_default();
    let mut answer = json!({ "id": machine.to_string(), "records": records_of(&known) });
    if status == StatusCode::CONFLICT {
        let message = "the version does not follow the stored one, which stands in `records`";
        answer["error"] = json!({ "code": "conflict", "message": message });
    }
    Ok(json_response(status, answer.to_string()))
}

/// A client over HTTP is told to wait, and not made to: it would hold the socket meanwhile.
fn too_soon(TooSoon(wait): TooSoon) -> Refused {
    let mut refused = refuse(StatusCode::TOO_MANY_REQUESTS, "too_many", "these records change too often");
    // Whole seconds, and 0 would be no pause.
    let seconds = wait.as_secs().max(1);
    refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    refused
}

async fn read_records(body: Body) -> Result<Vec<(u8, Record)>, Refused> {
    let bytes = to_bytes(body, MAX_BODY).await.map_err(|_| {
        refuse(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "a record has at most 4,096 bytes, and there are two")
    })?;
    records_in(&bytes).ok_or_else(|| {
        let message = "the body is {\"records\": [{\"kind\": 1 or 2, \"version\": 1 or more, \"sealed\": base64url}]}";
        refuse(StatusCode::BAD_REQUEST, "bad_request", message)
    })
}

/// The records in a body with their kinds: one or two. None when it is anything else.
pub(crate) fn records_in(body: &[u8]) -> Option<Vec<(u8, Record)>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let list = body.get("records")?.as_array().filter(|list| (1..=record_kind::ALL.len()).contains(&list.len()))?;
    list.iter().map(read_record).collect()
}

fn read_record(one: &Value) -> Option<(u8, Record)> {
    let kind = u8::try_from(one.get("kind")?.as_u64()?).ok().filter(|kind| records::place(*kind).is_some())?;
    let version = one.get("version")?.as_u64().filter(|version| *version > 0)?;
    let sealed = BASE64URL.decode(one.get("sealed")?.as_str()?).ok()?;
    (1..=MAX_SEALED_RECORD).contains(&sealed.len()).then(|| (kind, Record { version, sealed: sealed.into() }))
}

/// `GET /v1/machines/{id}`.
pub(crate) async fn get_machine(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    get(&shared, &id, &request.into_parts().0).await.unwrap_or_else(|refused| *refused)
}

async fn get(shared: &Shared, id: &str, head: &Parts) -> Result<Response, Refused> {
    let reader = bearer(shared, &head.headers, &*admission(&head.extensions)?).await?.device;
    // A machine that names somebody else and one that does not exist are not told apart.
    let nothing = || refuse(StatusCode::NOT_FOUND, "not_found", "there is no such machine, or not for this device");
    let machine: DeviceId = id.parse().map_err(|_| nothing())?;
    let known = shared.hub.known(&machine, &reader).await.map_err(|_| unavailable())?.ok_or_else(nothing)?;
    let last_seen = Some(known.last_seen).filter(|ms| *ms > 0);
    let answer = json!({ "id": id, "here": known.here, "last_seen": last_seen, "records": records_of(&known) });
    Ok(json_response(StatusCode::OK, answer.to_string()))
}
