//! The daemon's socket: who may connect, the first message, and what this machine's own command line asks for.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use happy_rpc::{CallError, ErrorCode, Event};
use happy_wire::Code;
use happy_wire::call::CallMessage;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};

use crate::daemon::Daemon;
use crate::daemon::local::{self, LocalRequest, PairAgain};
use crate::daemon::proxy;
use crate::daemon::socket::{self, Control, Greeted, Greeting, Hello};
use crate::service::{CallName, Caller, INSIDE, Line, Who};
use crate::store::file::PRIVATE;
use crate::trouble::Trouble;

/// Connections at once: a command line in each of a hundred windows, and some to spare.
const MAX_CLIENTS: usize = 128;
/// Messages that wait for one client, at most 256 KiB each and 32 KiB in practice.
pub const OUT_QUEUE: usize = 64;
/// A client says its first message at once.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// A program that reads no input for so long, with an inbox full of it, loses the channel rather than holding up the client's
/// other requests for ever.
const INPUT_TIME: Duration = Duration::from_secs(30);
/// After an error such as too many open files, accepting waits for so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Frames on their way to a client.
pub type Out = mpsc::Sender<(u32, Vec<u8>)>;

/// Takes the place of the socket. The caller holds the daemon's lock, so a file that is there was left by a daemon that is gone.
///
/// # Errors
/// When the socket cannot be made.
pub fn bind(path: &Path) -> Result<UnixListener, Trouble> {
    let bound = || -> io::Result<UnixListener> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        // Until here the folder's 0700 protects it.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(PRIVATE))?;
        Ok(listener)
    };
    bound().map_err(|error| Trouble::file("make the daemon's socket", path, &error))
}

/// Accepts clients until the task is dropped.
pub async fn serve(listener: UnixListener, daemon: Arc<Daemon>) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!("too many clients are connected");
            continue;
        };
        let daemon = daemon.clone();
        tokio::spawn(async move {
            if let Err(error) = greet(daemon, stream).await {
                tracing::debug!(%error, "a client's connection ended");
            }
            drop(place);
        });
    }
}

async fn greet(daemon: Arc<Daemon>, stream: UnixStream) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    if peer.uid() != rustix::process::geteuid().as_raw() {
        tracing::warn!(uid = peer.uid(), "another user tried to connect");
        return Ok(());
    }
    let inside = match peer.pid() {
        // It reads files of many processes. Who cannot be asked about is let in as nobody.
        Some(pid) => match daemon.run_blocking(move |daemon| daemon.sessions().around(pid)).await {
            Some(inside) => inside,
            None => return Ok(()),
        },
        None => None,
    };
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(64 * 1024, reader);
    let first = tokio::time::timeout(HELLO_TIME, socket::read_frame(&mut reader)).await??;
    let Some((socket::CALLS, body)) = first else { return Ok(()) };
    let target = match read_hello(&body) {
        Ok(hello) if hello.target.is_some() && inside.is_some() => {
            let what = format!("{INSIDE} speak to other machines; do it from another terminal of this machine");
            let refused = CallError::new(ErrorCode::NotPermitted, what);
            let target = hello.target.unwrap_or_default();
            daemon.auditor().local(inside, "machine", &target, Some(&refused)).await;
            Err(refused)
        }
        hello => hello.and_then(|hello| hello.target.map(|target| find(&daemon, &target)).transpose()),
    };
    let target = match target {
        Ok(target) => target,
        Err(error) => return say(&mut writer, &Greeting::Error(error)).await,
    };
    match target {
        None => {
            let greeted = Greeted {
                device: daemon.device_id().to_string(),
                name: daemon.name().to_owned(),
                version: crate::VERSION.to_owned(),
                link_up: true,
            };
            say(&mut writer, &Greeting::Ok(greeted)).await?;
            let out = start_writer(writer);
            serve_local(daemon, inside, reader, out).await
        }
        Some(target) => {
            // Subscribed before the state of the link is told, so that no change is missed between the two.
            let news = daemon.subscribe_links();
            let greeted = Greeted {
                device: target.device.to_string(),
                name: target.name,
                version: crate::VERSION.to_owned(),
                link_up: daemon.network().links_up().contains(&target.device),
            };
            say(&mut writer, &Greeting::Ok(greeted)).await?;
            let out = start_writer(writer);
            proxy::serve(daemon, target.device, news, reader, out).await
        }
    }
}

fn read_hello(body: &[u8]) -> Result<Hello, CallError> {
    let hello: Hello = serde_json::from_slice(body)
        .map_err(|error| CallError::new(ErrorCode::Malformed, format!("the first message cannot be read: {error}")))?;
    if hello.happy == socket::VERSION {
        return Ok(hello);
    }
    Err(CallError::new(
        ErrorCode::UnknownMethod,
        format!("this daemon is version {}; the command line is of another version", crate::VERSION),
    ))
}

/// The machine that somebody wants to speak to.
///
/// # Errors
/// When there is none, or it has to be paired again first.
pub fn find(daemon: &Daemon, target: &str) -> Result<crate::store::Peer, CallError> {
    let peer = daemon.roster().find_machine(target)?;
    let why = match daemon.must_pair_again(&peer.device) {
        None => return Ok(peer),
        Some(PairAgain::NoKeys) => {
            format!(
                "`{}` was paired with an older version, or the keys for it are lost: it has to be paired again",
                peer.name
            )
        }
        Some(PairAgain::NotBelieved) => format!(
            "`{}` does not know the keys of this machine any more: this home was restored from an old copy, or somebody else has used \
             a copy of it. It has to be paired again; if a copy may be in strange hands, remove this machine there first",
            peer.name
        ),
    };
    Err(CallError::new(ErrorCode::Failed, why))
}

async fn say(writer: &mut OwnedWriteHalf, greeting: &Greeting) -> io::Result<()> {
    let mut frame = Vec::new();
    socket::put_frame(&mut frame, socket::CALLS, &serde_json::to_vec(greeting).unwrap_or_default());
    writer.write_all(&frame).await
}

fn start_writer(mut writer: OwnedWriteHalf) -> Out {
    let (out, mut queue) = mpsc::channel::<(u32, Vec<u8>)>(OUT_QUEUE);
    tokio::spawn(async move {
        let mut batch = Vec::new();
        while let Some((channel, message)) = queue.recv().await {
            batch.clear();
            socket::put_frame(&mut batch, channel, &message);
            // Whatever waits already goes out in the same write.
            while batch.len() < 64 * 1024
                && let Ok((channel, message)) = queue.try_recv()
            {
                socket::put_frame(&mut batch, channel, &message);
            }
            if writer.write_all(&batch).await.is_err() {
                return;
            }
        }
    });
    out
}

async fn serve_local(
    daemon: Arc<Daemon>,
    inside: Option<uuid::Uuid>,
    mut reader: BufReader<OwnedReadHalf>,
    out: Out,
) -> io::Result<()> {
    let who = inside.map_or(Who::Local, Who::Inside);
    let caller = Caller::new(daemon.clone(), who, Line::Local(out.clone()));
    let events = tokio::spawn(pass_on_events(daemon.subscribe_local(), out.clone()));
    // Closed when the client has gone.
    let (_connected, gone) = watch::channel(());
    let outcome = read_local(&daemon, &caller, &mut reader, &out, &gone).await;
    events.abort();
    caller.gone();
    outcome
}

async fn pass_on_events(mut events: broadcast::Receiver<Arc<[u8]>>, out: Out) {
    loop {
        let body = match events.recv().await {
            Ok(body) => body.to_vec(),
            // It was too slow; it is told so and asks for the lists again.
            Err(broadcast::error::RecvError::Lagged(_)) => Event::ListAgain {}.to_body(),
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if out.send((socket::CALLS, CallMessage::Event(&body).to_vec())).await.is_err() {
            return;
        }
    }
}

async fn read_local(
    daemon: &Arc<Daemon>,
    caller: &Arc<Caller>,
    reader: &mut BufReader<OwnedReadHalf>,
    out: &Out,
    gone: &watch::Receiver<()>,
) -> io::Result<()> {
    let mut next_channel = 1;
    while let Some((channel, message)) = socket::read_frame(reader).await? {
        match channel {
            socket::CALLS => match CallMessage::decode(&message) {
                Ok(CallMessage::Request { id, body }) if LocalRequest::is_named_by(body) => {
                    tokio::spawn(answer_local(
                        daemon.clone(),
                        caller.inside(),
                        body.to_vec(),
                        id,
                        out.clone(),
                        gone.clone(),
                    ));
                }
                Ok(CallMessage::Request { id, body }) => caller.request(CallName::Local(id), body),
                // What runs is finished; the caller just does not wait for it.
                Ok(CallMessage::Cancel { .. }) => {}
                Ok(_) | Err(_) => return Err(malformed()),
            },
            socket::CONTROL => match Control::decode(&message).map_err(|_| malformed())? {
                Control::Open { tag, label, .. } => {
                    let answer = match caller.open(next_channel.into(), &label) {
                        Ok(()) => Control::Opened { tag, channel: next_channel },
                        Err((code, reason)) => Control::Refused { tag, code: code.0, reason: reason.into() },
                    };
                    next_channel += 1;
                    let _ = out.send((socket::CONTROL, answer.to_vec())).await;
                }
                Control::Close { channel, .. } => caller.closed(channel),
                _ => return Err(malformed()),
            },
            channel => {
                // A channel that is not open was closed by this side a moment ago.
                let Some(inbox) = caller.inbox(channel) else { continue };
                if tokio::time::timeout(INPUT_TIME, inbox.send(message)).await.is_err() {
                    caller.close(channel, Code::TOO_MANY, "the program does not read its input");
                }
            }
        }
    }
    Ok(())
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message out of place")
}

async fn answer_local(
    daemon: Arc<Daemon>,
    inside: Option<uuid::Uuid>,
    body: Vec<u8>,
    id: u64,
    out: Out,
    gone: watch::Receiver<()>,
) {
    let mut again = false;
    let request = LocalRequest::parse(&body);
    if let Ok(request) = &request
        && request.is_for_person()
    {
        let refused = inside.map(|_| {
            let what = format!("{INSIDE} do this; do it from another terminal of this machine");
            CallError::new(ErrorCode::NotPermitted, what)
        });
        daemon.auditor().local(inside, request.method(), "", refused.as_ref()).await;
        if let Some(refused) = refused {
            let body = happy_rpc::refusal(&refused);
            let _ = out.send((socket::CALLS, CallMessage::Response { id, body: &body }.to_vec())).await;
            return;
        }
    }
    let body = match request {
        Err(error) => happy_rpc::refusal(&error),
        Ok(request) => match request {
            LocalRequest::PairStart(params) => local::answer(&daemon.pairing().start(&daemon, params).await),
            LocalRequest::PairStatus(_) => local::answer(&Ok(daemon.pairing().state())),
            LocalRequest::PairCode(params) => local::answer(&daemon.pairing().type_code(params).await),
            LocalRequest::PairCancel(_) => local::answer(&Ok(daemon.pairing().cancel().await)),
            LocalRequest::Join(params) => local::answer(&daemon.join(params).await),
            LocalRequest::Machines(_) => local::answer(&Ok(daemon.machines())),
            LocalRequest::Devices(_) => local::answer(&Ok(daemon.devices())),
            LocalRequest::RevokeAll(_) => {
                let renewed = daemon.revoke_all().await;
                again = renewed.is_ok();
                local::answer(&renewed.map(|device| local::Renewed { device: device.to_string() }))
            }
            LocalRequest::QueueGive(params) => local::answer(&daemon.queue_give(params).await),
            LocalRequest::QueueList(_) => local::answer(&daemon.queue_list().await),
            LocalRequest::QueueWait(params) => local::answer(&daemon.queue_wait(params).await),
            LocalRequest::QueueCancel(params) => local::answer(&daemon.queue_cancel(params).await),
            LocalRequest::QueueClear(_) => local::answer(&daemon.queue_clear().await),
            LocalRequest::QueueSessions(params) => local::answer(&daemon.queue_sessions(params)),
            LocalRequest::HookAsk(local::HookAsk { session, .. })
            | LocalRequest::HookCall(local::HookCall { session, .. })
                if inside.is_some_and(|own| own != session) =>
            {
                let what = "a program asks in the name of its own session only";
                happy_rpc::refusal(&CallError::new(ErrorCode::NotPermitted, what))
            }
            LocalRequest::HookAsk(local::HookAsk { session, question, choices, wait_ms }) => {
                let wait = Duration::from_millis(wait_ms);
                let asked = daemon.sessions().ask_people(session, &question, &choices, wait, gone).await;
                let chosen = |(choice, answered): (u32, happy_rpc::PromptAnswered)| local::HookAnswer {
                    choice,
                    by: answered.by,
                };
                local::answer(&asked.map(|answer| answer.map(chosen)).map_err(Into::into))
            }
            LocalRequest::HookCall(params) => {
                let called = daemon.sessions().call_people(params.session, &params.text).await;
                local::answer(&called.map(|()| happy_rpc::Done {}).map_err(Into::into))
            }
            LocalRequest::DashboardOpen(_) => local::answer(&daemon.dashboard()),
            LocalRequest::RelayEnrolled(params) => local::answer(&daemon.relay_enrolled(&params)),
            LocalRequest::Status(_) => local::answer(&Ok(daemon.status().await)),
            LocalRequest::Stop(_) => {
                daemon.begin_stop(happy_rpc::StopSource::Cli);
                local::answer(&Ok(happy_rpc::Done {}))
            }
        },
    };
    let _ = out.send((socket::CALLS, CallMessage::Response { id, body: &body }.to_vec())).await;
    if again {
        daemon.start_again();
    }
}
