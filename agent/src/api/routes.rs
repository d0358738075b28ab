//! The operations, each with its row in the document that `/openapi.json` gives.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, Path, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::{Json, Router, middleware};
use happy_rpc::{
    Device, DeviceList, Done, Machine, MachineInfo, Prompt, PromptAnswer, PromptAnswered, PromptList, Session,
    SessionCreate, SessionKill, SessionPages, SessionState,
};
use serde::Serialize;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::api::connection::Place;
use crate::api::guard::{self, Body};
use crate::api::refusal::{AnyRefusal, Refusal, WriteRefusal};
use crate::api::term::{self, TermParams};
use crate::api::{Api, events, figures, login};

/// Where the dashboard is.
pub const DASHBOARD: &str = "/dashboard";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Happy Remote: the local API",
        description = "What the person at this machine can do over HTTP. docs/LOCAL.md says how it is protected.",
        license(name = "MIT OR Apache-2.0"),
    ),
    components(schemas(happy_rpc::Attached, happy_rpc::Glance)),
    modifiers(&Token),
)]
struct Document;

struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "What stands in the file `api.token` of the home. A browser, which cannot set headers for a websocket, offers the subprotocol \
                 `happy-token.TOKEN` besides `happy-terminal.v1`.",
            ))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// The whole API, with the app.
pub fn router(api: Arc<Api>) -> Router {
    let with_token = OpenApiRouter::new()
        .routes(routes!(sessions, create_session))
        .routes(routes!(session, end_session))
        .routes(routes!(terminal))
        .routes(routes!(prompts, answer_prompt))
        .routes(routes!(machine))
        .routes(routes!(devices))
        .routes(routes!(stream_of_events))
        .routes(routes!(metrics))
        .routes(routes!(openapi))
        .routes(routes!(login::logout))
        .layer(middleware::from_fn_with_state(api.clone(), guard::with_token));
    let open = OpenApiRouter::with_openapi(Document::openapi()).routes(routes!(health)).routes(routes!(login::login));
    let (router, document) = open.merge(with_token).split_for_parts();
    let document = document.to_json().unwrap_or_default();
    router
        .fallback(app)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(Extension(Described(document.into())))
        .layer(middleware::from_fn_with_state(api.clone(), guard::everywhere))
        .with_state(api)
}

/// The document, as it is sent.
#[derive(Clone)]
struct Described(Arc<str>);

/// How the daemon is.
#[derive(Serialize, ToSchema)]
struct Health {
    /// Always `ok`: one that is not does not answer.
    status: String,
    /// Of the agent.
    version: String,
    /// The process.
    pid: u32,
    /// Unix milliseconds.
    started_at: u64,
    /// Whether this machine is logged in at a relay.
    relay_connected: bool,
    /// Sessions whose program runs.
    sessions_running: usize,
}

/// Whether the daemon is well. Everybody on this machine may ask.
#[utoipa::path(get, path = "/health", security(()), responses((status = 200, body = Health), AnyRefusal))]
async fn health(State(api): State<Arc<Api>>) -> Json<Health> {
    // As last heard of: who asks every second is not to wake every holder.
    let running = api.daemon.sessions().known().iter().filter(|s| s.state == SessionState::Running).count();
    Json(Health {
        status: "ok".to_owned(),
        version: crate::VERSION.to_owned(),
        pid: std::process::id(),
        started_at: api.daemon.started_at(),
        relay_connected: api.daemon.network().is_up(),
        sessions_running: running,
    })
}

/// All sessions, oldest first.
#[utoipa::path(get, path = "/sessions", security(("token" = [])), responses((status = 200, body = Vec<Session>), AnyRefusal))]
async fn sessions(State(api): State<Arc<Api>>) -> Result<Json<Vec<Session>>, Refusal> {
    all_sessions(&api).await.map(Json)
}

async fn all_sessions(api: &Api) -> Result<Vec<Session>, Refusal> {
    let mut pages = SessionPages::default();
    while pages.take(api.caller.ask(pages.next()).await?) {}
    Ok(pages.into_sessions())
}

/// Starts a program in a new terminal.
#[utoipa::path(
    post, path = "/sessions", security(("token" = [])), request_body = SessionCreate,
    responses((status = 201, body = Session), AnyRefusal, WriteRefusal)
)]
async fn create_session(State(api): State<Arc<Api>>, Body(create): Body<SessionCreate>) -> Result<Response, Refusal> {
    let session = api.caller.ask(create).await?;
    Ok((StatusCode::CREATED, Json(session)).into_response())
}

/// The id in a path.
fn id_of(path: Result<Path<String>, PathRejection>) -> Result<Uuid, Refusal> {
    let Path(id) = path.map_err(|error| Refusal::malformed(error.body_text()))?;
    id.parse()
        .map_err(|_| Refusal::not_found("there is no session of this id; a session is named by its whole id here"))
}

/// One session.
#[utoipa::path(
    get, path = "/sessions/{id}", security(("token" = [])), params(("id" = Uuid, Path, description = "Its id.")),
    responses((status = 200, body = Session), AnyRefusal)
)]
async fn session(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Session>, Refusal> {
    let id = id_of(path)?;
    let found = all_sessions(&api).await?.into_iter().find(|session| session.id == id);
    found.map(Json).ok_or_else(|| Refusal::not_found("there is no such session"))
}

/// Ends the program of a session; takes a session that has ended off the list.
#[utoipa::path(
    delete, path = "/sessions/{id}", security(("token" = [])), params(("id" = Uuid, Path, description = "Its id.")),
    responses((status = 200, body = Done), AnyRefusal, WriteRefusal)
)]
async fn end_session(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Done>, Refusal> {
    let session = id_of(path)?;
    Ok(Json(api.caller.ask(SessionKill { session }).await?))
}

/// Attaches to a session, on a websocket with the subprotocol `happy-terminal.v1`. Binary messages are those of PROTOCOL 10.1; the first text
/// is the `Attached`, later ones are answers to `{"id": number, "method": "terminal.resize" and the like, "params": {…}}`.
#[utoipa::path(
    get, path = "/sessions/{id}/term", security(("token" = [])),
    params(("id" = Uuid, Path, description = "Its id."), TermParams),
    responses(
        (status = 101, description = "A websocket from here on."),
        (status = 426, description = "The request asks for no websocket.", body = crate::api::refusal::Refused),
        AnyRefusal, WriteRefusal,
    )
)]
async fn terminal(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<TermParams>, QueryRejection>,
    place: Option<Extension<Place>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let session = id_of(path)?;
    let Query(params) = query.map_err(|error| Refusal::malformed(error.body_text()))?;
    let upgrade = upgrade.map_err(|error| {
        Refusal::new(
            StatusCode::UPGRADE_REQUIRED,
            "not_websocket",
            format!("this is a websocket: {}", error.body_text()),
        )
    })?;
    term::attach(&api, session, params, upgrade, place.map(|Extension(place)| place)).await
}

/// The questions of programs that wait for a person, the oldest first.
#[utoipa::path(get, path = "/prompts", security(("token" = [])), responses((status = 200, body = Vec<Prompt>), AnyRefusal))]
async fn prompts(State(api): State<Arc<Api>>) -> Result<Json<Vec<Prompt>>, Refusal> {
    Ok(Json(api.caller.ask(PromptList::default()).await?))
}

/// Answers one of them, if it still waits and nobody else has.
#[utoipa::path(
    post, path = "/prompts", security(("token" = [])), request_body = PromptAnswer,
    responses((status = 200, body = PromptAnswered), AnyRefusal, WriteRefusal)
)]
async fn answer_prompt(
    State(api): State<Arc<Api>>,
    Body(answer): Body<PromptAnswer>,
) -> Result<Json<PromptAnswered>, Refusal> {
    Ok(Json(api.caller.ask(answer).await?))
}

/// What this machine is.
#[utoipa::path(get, path = "/machine", security(("token" = [])), responses((status = 200, body = Machine), AnyRefusal))]
async fn machine(State(api): State<Arc<Api>>) -> Result<Json<Machine>, Refusal> {
    Ok(Json(api.caller.ask(MachineInfo {}).await?))
}

/// The devices that this machine knows.
#[utoipa::path(get, path = "/devices", security(("token" = [])), responses((status = 200, body = Vec<Device>), AnyRefusal))]
async fn devices(State(api): State<Arc<Api>>) -> Result<Json<Vec<Device>>, Refusal> {
    Ok(Json(api.caller.ask(DeviceList {}).await?))
}

/// What happens from now on, as server-sent events, each the JSON of an event (PROTOCOL 10.3), and `session.glances` with the last lines
/// of sessions. With the `Last-Event-ID` of an earlier stream, also what came after that.
#[utoipa::path(
    get, path = "/events", security(("token" = [])),
    params(("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that the client has.")),
    responses((status = 200, description = "It goes on until one side ends it.", body = String, content_type = "text/event-stream"), AnyRefusal)
)]
async fn stream_of_events(
    State(api): State<Arc<Api>>,
    place: Option<Extension<Place>>,
    headers: HeaderMap,
) -> Response {
    events::stream(&api, &headers, place.map(|Extension(place)| place))
}

/// Figures for Prometheus.
#[utoipa::path(
    get, path = "/metrics", security(("token" = [])),
    responses((status = 200, body = String, content_type = "text/plain"), AnyRefusal)
)]
async fn metrics(State(api): State<Arc<Api>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], figures::render(&api).await).into_response()
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", security(("token" = [])),
    responses((status = 200, body = Object, content_type = "application/json"), AnyRefusal)
)]
async fn openapi(Extension(Described(document)): Extension<Described>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}

/// Every other path is the app's. It is the same for everybody and holds no secret.
async fn app(State(api): State<Arc<Api>>, request: Request) -> Response {
    let not_found =
        || Refusal::not_found("there is nothing at this path; /openapi.json says what there is").into_response();
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return not_found();
    }
    let path = match request.uri().path() {
        "/" => return Redirect::temporary(DASHBOARD).into_response(),
        DASHBOARD => "/",
        // Only there the app knows that it is no phone.
        "/index.html" => return not_found(),
        other => other,
    };
    api.app.answer(path, request.headers()).await.unwrap_or_else(not_found)
}

async fn method_not_allowed() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method", "this path does not answer to this method")
}
