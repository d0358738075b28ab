//! `GET /v1/updates` (`PROTOCOL 7`): the records of some machines as a stream of events, now and whenever they change.
//!
//! A stream is told by the notices that tell websockets, and only then asks for the records. Notices go to the node where a device is
//! connected and may be lost there, so the stream also looks by itself: seldom, or often where no notice comes.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts as _;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use happy_crypto::DeviceId;
use happy_wire::relay::record_kind;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Shared;
use crate::changes::{MAX_MACHINES, Watching};
use crate::hub::{Counted, Hub};
use crate::listen::Streaming;
use crate::records::unix_ms;
use crate::rest::{self, Refused, refuse};

/// How often all records are looked at without a notice, which may be lost on its way.
const LOOK: Duration = Duration::from_secs(15);
/// And how often where no notice comes, since the device is connected to another node or to none; or when the last look came to nothing.
const LOOK_UNTOLD: Duration = Duration::from_secs(2);
/// Between two looks, however many notices come: a machine that changes its records all the time costs no more than this.
const PAUSE: Duration = Duration::from_millis(100);
/// Without an event for so long a comment says that the stream is alive.
const COMMENT: Duration = Duration::from_secs(15);
/// The most streams of one device.
const MAX_STREAMS: u8 = 4;
/// Streams take this part of the connections at most, rounded up: a token is good for a stream whether its device is connected or not, and at an
/// open relay there are as many devices as somebody likes to make.
const SHARE: u32 = 4;
/// When to come again if there are too many streams, seconds.
const COME_AGAIN: &str = "5";

/// How many streams each device has open, and all of them.
#[derive(Default)]
pub(crate) struct Streams(Mutex<Table>);

#[derive(Default)]
struct Table {
    devices: HashMap<DeviceId, u8>,
    all: u32,
}

/// The right to one of them. The socket holds it until it ends, and not the stream: so whatever ends a stream early, there are never
/// more sockets than streams may be.
pub(crate) struct Right {
    shared: Arc<Shared>,
    device: DeviceId,
    _counted: Counted,
}

impl Right {
    fn new(shared: &Arc<Shared>, device: DeviceId) -> Result<Self, Refused> {
        let full = || {
            let mut refused = refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "this relay has as many streams or connections as it may; come again in a few seconds",
            );
            refused.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(COME_AGAIN));
            refused
        };
        let mut open = shared.streams.0.lock();
        if open.all >= shared.config.max_connections.div_ceil(SHARE) {
            return Err(full());
        }
        if open.devices.get(&device).is_some_and(|count| *count >= MAX_STREAMS) {
            let message = "this device has four such streams open already";
            return Err(refuse(StatusCode::TOO_MANY_REQUESTS, "too_many", message));
        }
        let counted = shared.hub.count_stream().ok_or_else(full)?;
        *open.devices.entry(device).or_default() += 1;
        open.all += 1;
        Ok(Self { shared: shared.clone(), device, _counted: counted })
    }
}

impl Drop for Right {
    fn drop(&mut self) {
        let mut open = self.shared.streams.0.lock();
        open.all -= 1;
        if let Some(count) = open.devices.get_mut(&self.device) {
            *count -= 1;
            if *count == 0 {
                open.devices.remove(&self.device);
            }
        }
    }
}

pub(crate) async fn updates(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    open(&shared, request).await.unwrap_or_else(|refused| *refused)
}

async fn open(shared: &Arc<Shared>, request: Request) -> Result<Response, Refused> {
    let (mut head, _) = request.into_parts();
    let admission = rest::admission(&head.extensions)?;
    let bearer = rest::bearer(shared, &head.headers, &admission).await?;
    let machines = machines(&mut head).await.ok_or_else(|| {
        refuse(StatusCode::BAD_REQUEST, "bad_request", "name 1 to 32 machines, as ?machine=ID&machine=ID")
    })?;
    let right = Right::new(shared, bearer.device)?;
    let left = Duration::from_millis((bearer.expires * 1_000).saturating_sub(unix_ms()));
    let until = Instant::now() + left;
    let stream = Stream {
        shared: shared.clone(),
        reader: bearer.device,
        // It belongs to a device, and may be longer than a page takes.
        _streaming: admission.streams(right, until),
        // Before the first look, so that no change falls between the two.
        watching: shared.hub.watch(&machines),
        machines: machines.into_iter().map(|machine| (machine, [0; 2])).collect(),
        events: VecDeque::from([": these are the records, now and as they change\n\n".to_owned()]),
        looked: Instant::now(),
        look: Instant::now(),
        comment: Instant::now() + COMMENT,
        until,
    };
    let body = Body::from_stream(futures_util::stream::unfold(stream, Stream::next));
    let headers = [
        // Nothing is asked over this socket any more: it has left the lobby, and ends with the stream.
        (header::CONNECTION, "close"),
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, body).into_response())
}

async fn machines(head: &mut axum::http::request::Parts) -> Option<Vec<DeviceId>> {
    let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(head, &()).await.ok()?;
    let named = pairs.iter().filter(|(name, _)| name == "machine");
    let machines: Vec<DeviceId> = named.map(|(_, id)| id.parse().ok()).collect::<Option<_>>()?;
    (1..=MAX_MACHINES).contains(&machines.len()).then_some(machines)
}

struct Stream {
    shared: Arc<Shared>,
    reader: DeviceId,
    _streaming: Streaming,
    watching: Watching,
    /// With the versions that were told last.
    machines: Vec<(DeviceId, [u64; 2])>,
    /// At most two for each machine.
    events: VecDeque<String>,
    /// When some records were looked at last, and when all of them will be.
    looked: Instant,
    look: Instant,
    comment: Instant,
    until: Instant,
}

impl Stream {
    /// The next event. The stream ends with the token and with the relay.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let shared = self.shared.clone();
        loop {
            if let Some(event) = self.events.pop_front() {
                self.comment = Instant::now() + COMMENT;
                return Some((Ok(event.into()), self));
            }
            let due = self.look.min(self.comment).min(self.until);
            let told = async {
                tokio::time::sleep_until(self.looked + PAUSE).await;
                self.watching.told().await;
            };
            let told = tokio::select! {
                biased;
                () = shared.closing.begun() => return None,
                () = tokio::time::sleep_until(due) => false,
                () = told => true,
            };
            let now = Instant::now();
            if self.until <= now {
                return None;
            }
            let all = self.look <= now;
            if told || all {
                self.look(&shared.hub, all).await;
            } else {
                self.events.push_back(": alive\n\n".to_owned());
            }
        }
    }

    /// Looks at the records of all machines, or of those that have changed.
    async fn look(&mut self, hub: &Hub, all: bool) {
        let reader = self.reader;
        let changed = self.watching.take();
        let mut failed = false;
        for (place, (machine, told)) in self.machines.iter_mut().enumerate() {
            if !all && changed & (1 << place) == 0 {
                continue;
            }
            let known = hub.known(machine, &reader).await;
            failed |= known.is_err();
            let Ok(Some(known)) = known else { continue };
            for ((kind, record), told) in record_kind::ALL.iter().zip(&known.records).zip(told) {
                let Some(record) = record.as_ref().filter(|record| record.version != *told) else { continue };
                *told = record.version;
                self.events.push_back(rest::event(machine, *kind, record));
            }
        }
        self.looked = Instant::now();
        if failed || all {
            let pause = if failed || !hub.hears_for(&reader) { LOOK_UNTOLD } else { LOOK };
            self.look = self.looked + pause;
        }
    }
}
