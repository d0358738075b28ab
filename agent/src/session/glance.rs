//! The last lines of all sessions, for who looks at an overview. Nobody pays for them while nobody does: holders are asked to tell
//! them when the first one subscribes, and asked to be quiet when the last one is gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use happy_rpc::{Event, Glance};
use tokio::sync::broadcast;
use uuid::Uuid;

use super::{Shared, ask};
use crate::holder::protocol::{Request, Status};
use crate::holder::spec::unix_ms;

/// Lines on their way to one subscriber: one that is slower is told of the newest only, when it asks for all again.
const LINES: usize = 1_024;

/// Holders are asked anew so often, since one that goes on as another program has forgotten it, and nobody told of new sessions
/// that came too fast. Also how long they go on to tell for nobody.
const ASK_AGAIN: Duration = Duration::from_secs(3);

/// What is known, and who wants to know.
pub(super) struct Glances {
    sender: broadcast::Sender<Glance>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    lines: BTreeMap<Uuid, Glance>,
    /// A task asks the holders.
    is_asking: bool,
}

impl Default for Glances {
    fn default() -> Self {
        Self { sender: broadcast::channel(LINES).0, known: Mutex::default() }
    }
}

impl Glances {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget(&self, id: Uuid) {
        self.known().lines.remove(&id);
    }
}

/// All that is known, and what comes.
pub(super) fn subscribe(shared: &Arc<Shared>) -> (Vec<Glance>, broadcast::Receiver<Glance>) {
    let glances = &shared.glances;
    let mut known = glances.known();
    let receiver = glances.sender.subscribe();
    if !std::mem::replace(&mut known.is_asking, true) {
        tokio::spawn(ask_holders(Arc::downgrade(shared)));
    }
    (known.lines.values().cloned().collect(), receiver)
}

impl Shared {
    /// Takes in the last line that a holder has told.
    pub(super) fn glanced(&self, id: Uuid, status: &Status) {
        let Some(line) = &status.line else { return };
        let mut known = self.glances.known();
        if known.lines.get(&id).is_some_and(|glance| glance.line == *line) {
            return;
        }
        let glance = Glance { session: id, line: line.clone(), at: unix_ms() };
        known.lines.insert(id, glance.clone());
        // Under the lock, so that nobody is told an older line after a newer one.
        let _ = self.glances.sender.send(glance);
    }
}

/// Asks all holders to tell, and those that come, until nobody listens.
async fn ask_holders(shared: std::sync::Weak<Shared>) {
    let Some(mut events) = shared.upgrade().map(|shared| shared.events.subscribe()) else { return };
    loop {
        let Some(now) = shared.upgrade() else { return };
        let on = {
            let mut known = now.glances.known();
            known.is_asking = now.glances.sender.receiver_count() > 0;
            if !known.is_asking {
                // What is not followed grows old.
                known.lines.clear();
            }
            known.is_asking
        };
        now.watch_all(on).await;
        drop(now);
        if !on {
            return;
        }
        let pause = tokio::time::sleep(ASK_AGAIN);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                event = events.recv() => match event {
                    Ok(Event::SessionChanged(session)) => {
                        let Some(now) = shared.upgrade() else { return };
                        if !now.glances.known().lines.contains_key(&session.id) {
                            now.watch(session.id);
                        }
                    }
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => break,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
            }
        }
    }
}

impl Shared {
    async fn watch_all(self: &Arc<Self>, on: bool) {
        let holders: Vec<_> = self.entries().values().filter_map(|entry| entry.holder.clone()).collect();
        let asked = holders.into_iter().map(|holder| async move { ask(&holder, Request::Watch { on }).await });
        // A holder of before refuses, and one that is gone is told of elsewhere.
        let mut answers = tokio::task::JoinSet::from_iter(asked);
        while answers.join_next().await.is_some() {}
    }

    /// Asks one holder, without waiting for it.
    fn watch(&self, id: Uuid) {
        let Ok(holder) = self.holder(id) else { return };
        tokio::spawn(async move { ask(&holder, Request::Watch { on: true }).await });
    }
}
