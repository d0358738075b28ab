//! How a browser gets in: by the secret in an address that `happy dashboard` has printed, or by the password.
//!
//! What it gets is for this life of the daemon only, and a page keeps it in its `sessionStorage` and sends it in a header. No cookie:
//! a browser sends those of `127.0.0.1` to every port of it, so to whatever any other user of this machine lets listen there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use happy_rpc::Done;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::guard::{Body, bearer};
use crate::api::refusal::{AnyRefusal, Refusal, WriteRefusal};
use crate::store::Password;

/// After a wrong password nobody may try for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// What a browser shows to get in.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Login {
    /// The secret in the address that `happy dashboard` has printed; it is spent.
    Secret(String),
    /// The password that `happy dashboard --set-password` has set.
    Password(String),
}

/// What it gets.
#[derive(Serialize, ToSchema)]
pub struct LetIn {
    /// In the place of the token, until the daemon ends or nobody has used it for 12 hours.
    token: String,
}

/// Lets a browser in.
#[utoipa::path(
    post, path = "/login", security(()), request_body = Login,
    responses((status = 200, body = LetIn), AnyRefusal, WriteRefusal)
)]
pub async fn login(State(api): State<Arc<Api>>, Body(login): Body<Login>) -> Result<Json<LetIn>, Refusal> {
    let token = match login {
        Login::Secret(secret) => api.keys.redeem(&secret, Instant::now()).ok_or_else(|| {
            api.figures.unauthorized();
            let message =
                "this address was used already or is older than two minutes; `happy dashboard` prints another";
            Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
        })?,
        Login::Password(password) => {
            check_password(&api, password).await?;
            api.keys.let_in(Instant::now())
        }
    };
    Ok(Json(LetIn { token: token.to_string() }))
}

/// One at a time: a hash takes 19 MiB, and whoever guesses is not to do so on all processors.
async fn check_password(api: &Arc<Api>, password: String) -> Result<(), Refusal> {
    let Ok(turn) = api.guessing.clone().try_acquire_owned() else {
        return Err(Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "busy",
            "somebody else types a password; try again in a second",
        ));
    };
    let path = api.daemon.home().dashboard_password();
    let checked = tokio::task::spawn_blocking(move || {
        Password::open(&path).map(|known| known.is_some_and(|known| known.is(&zeroize::Zeroizing::new(password))))
    });
    match checked.await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => {
            api.figures.unauthorized();
            // Also when whoever asked has hung up.
            tokio::spawn(async move {
                tokio::time::sleep(PAUSE).await;
                drop(turn);
            });
            let message =
                "the password is wrong, or none was set; `happy dashboard` on that machine lets you in without";
            Err(Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", message))
        }
        Ok(Err(trouble)) => {
            tracing::warn!(%trouble, "the password of the dashboard cannot be read");
            Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "failed", trouble.what))
        }
        Err(_) => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "indeterminate", "the daemon ends")),
    }
}

/// Lets the browser in no more. The token in the home stays good.
#[utoipa::path(delete, path = "/login", security(("token" = [])), responses((status = 200, body = Done), AnyRefusal))]
pub async fn logout(State(api): State<Arc<Api>>, headers: HeaderMap) -> Json<Done> {
    if let Some(token) = bearer(&headers) {
        api.keys.leave(token);
    }
    Json(Done {})
}
