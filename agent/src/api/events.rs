//! `/events`: what happens on this machine, as server-sent events.
//!
//! A request is answered only once it is subscribed, so whoever asks for the lists after the answer has begun misses nothing. An event
//! of the log (`PROTOCOL 10.3`) carries its place as its id, and a client that comes back with the last one is told the rest.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use happy_rpc::{Event, EventPlace, Glance, Told};
use serde::Deserialize;
use tokio::sync::{broadcast, mpsc};

use crate::api::Api;
use crate::api::connection::Place;

/// Pieces that wait for one client; one that is slower is told to ask for the lists again.
const QUEUE: usize = 16;
/// Last lines are told together, so often at most: once for each frame that a screen shows. Longer would be time from event to glass.
const GLANCES_EVERY: Duration = Duration::from_millis(16);
/// So that a connection that is gone is noticed, at both ends.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Answers with the stream. `place` is held as long as it goes on.
pub fn stream(api: &Arc<Api>, headers: &HeaderMap, place: Option<Place>) -> Response {
    let (out, pieces) = mpsc::channel(QUEUE);
    let told = api.daemon.subscribe_local();
    let last = headers.get("last-event-id").and_then(|id| place_of(id.to_str().ok()?));
    let feed = Feed { api: api.clone(), out, told, _place: place };
    tokio::spawn(feed.run(last));
    let pieces = futures_util::stream::unfold(pieces, |mut pieces| async {
        pieces.recv().await.map(|piece: Bytes| (Ok::<_, std::convert::Infallible>(piece), pieces))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces)).into_response()
}

struct Feed {
    api: Arc<Api>,
    out: mpsc::Sender<Bytes>,
    told: broadcast::Receiver<Arc<[u8]>>,
    _place: Option<Place>,
}

/// The client is gone.
struct Gone;

impl Feed {
    async fn run(mut self, last: Option<EventPlace>) {
        let _ = self.feed(last).await;
    }

    async fn feed(&mut self, last: Option<EventPlace>) -> Result<(), Gone> {
        // The head of the answer goes out with the first piece.
        self.say(": here\n\n".to_owned()).await?;
        if let Some(last) = last {
            self.catch_up(last).await?;
        }
        let (known, mut glances) = self.api.daemon.sessions().glances();
        let mut waiting = known;
        let mut next_glances = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = self.out.closed() => return Err(Gone),
                told = self.told.recv() => match told {
                    Ok(body) => if let Some(piece) = piece_of(&body) {
                        self.say(piece).await?;
                    },
                    Err(broadcast::error::RecvError::Lagged(_)) => self.list_again().await?,
                    Err(broadcast::error::RecvError::Closed) => return Err(Gone),
                },
                glance = glances.recv() => match glance {
                    Ok(glance) => add(&mut waiting, glance),
                    // All that is known is newer than what was missed.
                    Err(broadcast::error::RecvError::Lagged(_)) => (waiting, glances) = self.api.daemon.sessions().glances(),
                    Err(broadcast::error::RecvError::Closed) => return Err(Gone),
                },
                () = tokio::time::sleep_until(next_glances), if !waiting.is_empty() => {
                    let body = serde_json::json!({ "event": "session.glances", "data": std::mem::take(&mut waiting) });
                    self.say(format!("data: {body}\n\n")).await?;
                    next_glances = tokio::time::Instant::now() + GLANCES_EVERY;
                },
                () = tokio::time::sleep(SIGN_OF_LIFE) => self.say(": here\n\n".to_owned()).await?,
            }
        }
    }

    /// Tells what came after a place. What is told meanwhile may come twice; its place says so.
    async fn catch_up(&self, mut last: EventPlace) -> Result<(), Gone> {
        loop {
            let followed = self.api.daemon.events_after(Some(last), None);
            if !followed.complete {
                return self.list_again().await;
            }
            for told in &followed.missed {
                if let Some(piece) = piece_of(&told.to_body()) {
                    self.say(piece).await?;
                }
            }
            if !followed.more {
                return Ok(());
            }
            last = EventPlace { log: followed.log, number: followed.number };
        }
    }

    async fn list_again(&self) -> Result<(), Gone> {
        let told = Told { event: Event::ListAgain {}, at: None };
        self.say(piece_of(&told.to_body()).unwrap_or_default()).await
    }

    async fn say(&self, piece: String) -> Result<(), Gone> {
        self.out.send(piece.into()).await.map_err(|_| Gone)
    }
}

/// The newest line of a session takes the place of an older one that was not told.
fn add(waiting: &mut Vec<Glance>, glance: Glance) {
    match waiting.iter_mut().find(|other| other.session == glance.session) {
        Some(other) => *other = glance,
        None => waiting.push(glance),
    }
}

/// An event as it is sent; none when it is no business of the API, such as how a pairing goes on.
fn piece_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        event: String,
        at: Option<EventPlace>,
    }
    let named: Named = serde_json::from_slice(body).ok()?;
    if !["session.", "device.", "prompt."].iter().any(|family| named.event.starts_with(family)) {
        return None;
    }
    let mut piece = String::new();
    if let Some(at) = named.at {
        // Writing to a string does not fail.
        let _ = writeln!(piece, "id: {}:{}", at.log, at.number);
    }
    // JSON has no line ends.
    let _ = write!(piece, "data: {}\n\n", std::str::from_utf8(body).ok()?);
    Some(piece)
}

fn place_of(id: &str) -> Option<EventPlace> {
    let (log, number) = id.split_once(':')?;
    Some(EventPlace { log: log.parse().ok()?, number: number.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use happy_rpc::Told;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_event_carries_its_place_and_what_is_private_is_not_told() {
        let at = EventPlace { log: Uuid::new_v4(), number: 7 };
        let told = Told { event: Event::SessionRemoved { session: Uuid::nil() }, at: Some(at) };
        let piece = piece_of(&told.to_body()).unwrap();
        let (id, data) = piece.trim_end().split_once('\n').unwrap();
        assert_eq!(place_of(id.strip_prefix("id: ").unwrap()), Some(at));
        assert_eq!(serde_json::from_str::<Told>(data.strip_prefix("data: ").unwrap()).unwrap(), told);
        assert_eq!(piece_of(br#"{"event":"pair.changed","data":{}}"#), None);
        for nonsense in ["", "7", "x:7", &format!("{}:x", at.log)] {
            assert_eq!(place_of(nonsense), None);
        }
    }
}
