//! What is checked of every request before anything is done.
//!
//! Any web page can make a browser send requests to localhost, under a name of its own choosing, and any user of this machine can
//! connect. So the `Host` must be one of ours to the letter, which ends DNS rebinding; an `Origin` must be ours; what changes something must
//! be declared as JSON, which no page may send elsewhere without asking first, and nobody who asks is answered; and everything but what
//! everybody may know needs the token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use crate::api::Api;
use crate::api::connection::Place;
use crate::api::refusal::Refusal;

/// A request that is not done by then is answered so.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// The largest body: that of a call.
pub const MAX_BODY: usize = happy_link::MAX_BODY;
/// What a browser, which can set no header for a websocket, puts before the token among its subprotocols.
pub const TOKEN_PROTOCOL: &str = "happy-token.";

/// The outermost layer: names, origins, the time, and headers of every answer.
pub async fn everywhere(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let mut response = match check(&api, &request) {
        Ok(()) => match tokio::time::timeout(REQUEST_TIME, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                "late",
                "the request was not done within 30 s; it may still be done",
            )
            .into_response(),
        },
        Err(refusal) => refusal.into_response(),
    };
    api.figures.answered(response.status());
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        // The app's files come with their own.
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

fn check(api: &Api, request: &Request) -> Result<(), Refusal> {
    let headers = request.headers();
    let host = once(headers, &header::HOST).unwrap_or_default();
    // What stands in the first line counts more than the header, for some.
    if request.uri().authority().is_some() || !api.names.iter().any(|name| name.eq_ignore_ascii_case(host)) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "host",
            "this address answers to 127.0.0.1 and localhost with its port, and to the names in `api_names` of settings.json",
        ));
    }
    if headers.contains_key(header::ORIGIN) {
        let origin = once(headers, &header::ORIGIN).unwrap_or_default();
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")).unwrap_or_default();
        // Not any of our names: a page of the one is foreign to the other.
        if !authority.eq_ignore_ascii_case(host) {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "origin", "pages of other origins may do nothing here"));
        }
    }
    let is_write = !matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE);
    if is_write && !is_json(headers) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media_type",
            "the body must be declared as `Content-Type: application/json`",
        ));
    }
    Ok(())
}

/// The layer of everything that needs the token.
pub async fn with_token(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if !matches!(site, None | Some(b"same-origin" | b"none")) {
        return Refusal::new(StatusCode::FORBIDDEN, "origin", "pages of other sites may do nothing here")
            .into_response();
    }
    match bearer(headers) {
        Some(token) if api.keys.admits(token, Instant::now()) => {}
        _ => {
            api.figures.unauthorized();
            return Refusal::unauthorized().into_response();
        }
    }
    // A connection that has shown it may stay.
    if let Some(place) = request.extensions().get::<Place>()
        && !place.prove()
    {
        return Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many", "too many connections are open; close some")
            .into_response();
    }
    next.run(request).await
}

/// The token that a request shows.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    if let Some(authorization) = once(headers, &header::AUTHORIZATION) {
        let (scheme, token) = authorization.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim());
    }
    let offered = once(headers, &header::SEC_WEBSOCKET_PROTOCOL)?;
    offered.split(',').find_map(|protocol| protocol.trim().strip_prefix(TOKEN_PROTOCOL))
}

/// A header that stands there once: of two, somebody else may have believed the other.
fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).into_iter();
    values.next().filter(|_| values.next().is_none())?.to_str().ok()
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = once(headers, &header::CONTENT_TYPE).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json")
}

/// The body of a request, read from JSON.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &Arc<Api>) -> Result<Self, Refusal> {
        let declared = once(request.headers(), &header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        let too_large = || {
            let message = format!("a body has at most {MAX_BODY} bytes");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
        };
        if declared.is_some_and(|length| length > MAX_BODY as u64) {
            return Err(too_large());
        }
        let body = axum::body::to_bytes(request.into_body(), MAX_BODY).await;
        let body = body.map_err(|error| match is_length_limit(&error) {
            true => too_large(),
            false => Refusal::malformed("the body did not come to its end"),
        })?;
        let read = serde_json::from_slice(&body);
        read.map(Body).map_err(|error| Refusal::malformed(format!("the body cannot be read: {error}")))
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    use std::error::Error;
    let mut error = error.source();
    while let Some(cause) = error {
        if cause.to_string().contains("length limit") {
            return true;
        }
        error = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_token_is_found_where_programs_and_browsers_can_put_it() {
        assert_eq!(bearer(&headers(&[("authorization", "Bearer abc")])), Some("abc"));
        assert_eq!(bearer(&headers(&[("authorization", "bearer abc")])), Some("abc"));
        assert_eq!(bearer(&headers(&[("sec-websocket-protocol", "happy-terminal.v1, happy-token.abc")])), Some("abc"));
        for none in [
            &[][..],
            &[("authorization", "Basic abc")],
            &[("authorization", "abc")],
            &[("authorization", "Bearer a"), ("authorization", "Bearer abc")],
            &[("authorization", "Basic x"), ("sec-websocket-protocol", "happy-token.abc")],
            &[("cookie", "token=abc")],
            &[("sec-websocket-protocol", "happy-terminal.v1")],
        ] {
            assert_eq!(bearer(&headers(none)), None, "{none:?}");
        }
    }

    #[test]
    fn what_a_page_may_send_without_asking_is_no_json() {
        assert!(is_json(&headers(&[("content-type", "application/json; charset=utf-8")])));
        for other in
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain; application/json"]
        {
            assert!(!is_json(&headers(&[("content-type", other)])), "{other}");
        }
        assert!(!is_json(&headers(&[])));
    }
}
