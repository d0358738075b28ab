//! Commands: calls that take effect at most once, ever, however often they are asked and whoever dies in between (`PROTOCOL 10.2`).

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use happy_crypto::DeviceId;
use happy_rpc::{CallError, Command, ErrorCode};
use tokio::sync::watch;

use crate::store::{CommandsFile, Found, unix_ms};

/// The person at this machine, among devices.
const LOCAL: [u8; 32] = [0; 32];

/// A command of a device: device, life, number, and what shall be done, so that nobody is given the outcome of another one.
type Key = ([u8; 32], String, u64, [u8; 32]);
/// Resolves to the outcome of a command that runs. A sender that is dropped before means that nobody can know.
type Outcome = watch::Receiver<Option<Arc<[u8]>>>;

/// The commands of this machine.
pub struct Once {
    file: Mutex<CommandsFile>,
    running: Mutex<HashMap<Key, Outcome>>,
}

impl Once {
    /// Goes on with what is written there.
    pub fn new(file: CommandsFile) -> Arc<Once> {
        Arc::new(Once { file: Mutex::new(file), running: Mutex::default() })
    }

    /// Runs a command, unless it was begun before; `what` is a hash of what shall be done. Gives the body of the response either way.
    pub async fn run(
        self: &Arc<Self>,
        device: Option<DeviceId>,
        command: Command,
        what: [u8; 32],
        run: impl Future<Output = Vec<u8>>,
    ) -> Vec<u8> {
        let device = device.map_or(LOCAL, |device| *device.as_bytes());
        let key: Key = (device, command.life.clone(), command.number, what);
        // Registered first: whoever asks again must find either the outcome or somebody to wait for.
        let (done, waits) = watch::channel(None);
        let other = {
            let mut running = self.running();
            match running.get(&key) {
                Some(other) => Some(other.clone()),
                None => {
                    running.insert(key.clone(), waits);
                    None
                }
            }
        };
        if let Some(other) = other {
            return wait(other).await;
        }
        let _registered = Registered { once: self, key };
        let begun = self.on_disk({
            let command = command.clone();
            move |file| file.begin(&device, &command, &what, unix_ms())
        });
        let body = match begun.await {
            Ok(Found::Outcome(body)) => body,
            Err(refused) => happy_rpc::refusal(&refused),
            Ok(Found::New) => {
                let outcome = run.await;
                let finished = self.on_disk(move |file| file.finish(&device, &command, outcome)).await;
                finished
                    .unwrap_or_else(|error| unknown(&format!("whether it was done is not known: {}", error.message)))
            }
            // It ran in this life of the daemon and its outcome could not be written.
            Ok(Found::Running) => unknown("whether it was done is not known: its outcome could not be written"),
        };
        done.send_replace(Some(body.clone().into()));
        body
    }

    async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        step: impl FnOnce(&mut CommandsFile) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let once = self.clone();
        let step = move || step(&mut once.file.lock().unwrap_or_else(PoisonError::into_inner));
        // It is asked for again, and then told what became of it.
        let ending = |_| CallError::new(ErrorCode::Busy, "this machine is ending");
        tokio::task::spawn_blocking(step).await.map_err(ending)?
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Key, Outcome>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a command off the list of those that run, however its task ends.
struct Registered<'a> {
    once: &'a Once,
    key: Key,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.once.running().remove(&self.key);
    }
}

async fn wait(mut other: Outcome) -> Vec<u8> {
    match other.wait_for(Option::is_some).await {
        Ok(body) => body.as_ref().map(|body| body.to_vec()).unwrap_or_default(),
        Err(_) => unknown("whether it was done is not known: it ended before it could say"),
    }
}

fn unknown(message: &str) -> Vec<u8> {
    happy_rpc::refusal(&CallError::new(ErrorCode::Indeterminate, message))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    fn stage() -> (tempfile::TempDir, Arc<Once>) {
        let folder = tempfile::tempdir().unwrap();
        let file = CommandsFile::open(&folder.path().join("commands.db"), [1; 16]).unwrap();
        (folder, Once::new(file))
    }

    fn command(number: u64) -> Command {
        Command { life: "A".repeat(22), number, done: 0, until: unix_ms() + 60_000, given_at: 1 }
    }

    #[tokio::test]
    async fn who_asks_while_it_runs_gets_the_same_answer_and_nothing_runs_twice() {
        let (_folder, once) = stage();
        let ran = Arc::new(AtomicU32::new(0));
        let (go, gone) = oneshot::channel::<()>();
        let work = |gone: Option<oneshot::Receiver<()>>| {
            let ran = ran.clone();
            async move {
                ran.fetch_add(1, Ordering::Relaxed);
                if let Some(gone) = gone {
                    gone.await.unwrap();
                }
                b"done".to_vec()
            }
        };
        let first = tokio::spawn({
            let (once, work) = (once.clone(), work(Some(gone)));
            async move { once.run(None, command(1), [0; 32], work).await }
        });
        while ran.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let second = tokio::spawn({
            let (once, work) = (once.clone(), work(None));
            async move { once.run(None, command(1), [0; 32], work).await }
        });
        let other = once.run(None, command(1), [9; 32], work(None)).await;
        assert!(String::from_utf8(other).unwrap().contains("reused"), "it waits for nobody else's outcome");
        go.send(()).unwrap();
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (b"done".to_vec(), b"done".to_vec()));
        assert_eq!(once.run(None, command(1), [0; 32], work(None)).await, b"done");
        assert_eq!(ran.load(Ordering::Relaxed), 1);
        assert_eq!(once.run(None, command(2), [0; 32], work(None)).await, b"done");
        assert_eq!(ran.load(Ordering::Relaxed), 2);
        assert!(once.running().is_empty());
    }

    #[tokio::test]
    async fn who_waits_for_a_task_that_is_killed_is_told_that_nobody_knows() {
        let (_folder, once) = stage();
        let (begun, has_begun) = oneshot::channel::<()>();
        let first = tokio::spawn({
            let once = once.clone();
            let work = async move {
                begun.send(()).unwrap();
                std::future::pending().await
            };
            async move { once.run(None, command(1), [0; 32], work).await }
        });
        has_begun.await.unwrap();
        let second = once.run(None, command(1), [0; 32], std::future::pending());
        let kill = async {
            tokio::task::yield_now().await;
            first.abort();
        };
        let (second, ()) = tokio::join!(second, kill);
        assert!(String::from_utf8(second).unwrap().contains("indeterminate"));
        let third = once.run(None, command(1), [0; 32], async { b"again".to_vec() }).await;
        assert!(String::from_utf8(third).unwrap().contains("indeterminate"), "it may have run");
    }
}
