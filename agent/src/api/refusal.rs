//! Refusals of the local API: a status, and JSON that says what to do.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use happy_rpc::{CallError, ErrorCode};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

/// Why a request was refused.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Refused {
    /// What is wrong.
    pub error: Problem,
}

/// What is wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// For programs: one of the codes of a call, or `unauthorized`, `host`, `origin`, `media_type`, `too_large`, `late`, `method`,
    /// `not_websocket`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// A refusal on its way.
#[derive(Debug, Clone)]
pub struct Refusal {
    status: StatusCode,
    body: Refused,
}

impl Refusal {
    /// A refusal with a sentence.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Refusal {
        Refusal { status, body: Refused { error: Problem { code: code.to_owned(), message: message.into() } } }
    }

    /// Nobody may do this without the token.
    pub fn unauthorized() -> Refusal {
        let message = "this needs the token in the file api.token of the home, as `Authorization: Bearer …`; a browser gets in with `happy dashboard`";
        Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// What cannot be read.
    pub fn malformed(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, "malformed", message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, "not_found", message)
    }
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Refusal {
        let status = match error.code {
            ErrorCode::Malformed | ErrorCode::UnknownMethod => StatusCode::BAD_REQUEST,
            ErrorCode::NotPermitted => StatusCode::FORBIDDEN,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::Conflict | ErrorCode::Reused | ErrorCode::Expired => StatusCode::CONFLICT,
            ErrorCode::TooMany | ErrorCode::Busy => StatusCode::TOO_MANY_REQUESTS,
            // What was asked for was understood and cannot be done, such as a program that is not there.
            ErrorCode::Failed => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::Indeterminate => StatusCode::SERVICE_UNAVAILABLE,
        };
        let code = serde_json::to_value(error.code).ok();
        let code = code.as_ref().and_then(serde_json::Value::as_str).unwrap_or("failed");
        Refusal::new(status, code, error.message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What every operation may be refused with, for the document.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "it is read by the macro")]
pub enum AnyRefusal {
    /// The request cannot be read.
    #[response(status = 400)]
    Malformed(#[to_schema] Refused),
    /// The token is missing or wrong.
    #[response(status = 401)]
    Unauthorized(#[to_schema] Refused),
    /// A foreign Host or Origin, or a call that is not permitted.
    #[response(status = 403)]
    Forbidden(#[to_schema] Refused),
    /// There is no such thing.
    #[response(status = 404)]
    NotFound(#[to_schema] Refused),
    /// The request took too long to arrive, or to be done; it may still be done.
    #[response(status = 408)]
    Late(#[to_schema] Refused),
    /// Too much is asked for at once, or of something.
    #[response(status = 429)]
    TooMany(#[to_schema] Refused),
    /// The daemon ends; whether it was done is not known.
    #[response(status = 503)]
    Indeterminate(#[to_schema] Refused),
}

/// What an operation with a body may be refused with besides, and one that cannot be done now.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "it is read by the macro")]
pub enum WriteRefusal {
    /// It cannot be done in the present state.
    #[response(status = 409)]
    Conflict(#[to_schema] Refused),
    /// The body is too large.
    #[response(status = 413)]
    TooLarge(#[to_schema] Refused),
    /// The body is not declared as JSON.
    #[response(status = 415)]
    MediaType(#[to_schema] Refused),
    /// The machine could not do it; the message says why.
    #[response(status = 422)]
    Failed(#[to_schema] Refused),
}
