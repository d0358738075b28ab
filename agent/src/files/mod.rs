//! What `file.*` does (`PROTOCOL 10.4`): looking into folders, reading parts of files, writing files in one step.
//!
//! | module | what it is |
//! |---|---|
//! | [`roots`] | which folders are open, and opening what lies in them and nothing else |
//! | [`read`], [`write`], [`list`] | the calls |
//! | [`error`] | what the file system says, in sentences |
//!
//! Everything here blocks; [`Files::run`] does it on a thread of its own, a few at once and for a bounded time.

pub mod error;
pub mod list;
pub mod read;
pub mod roots;
pub mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use happy_rpc::{CallError, ErrorCode};
use tokio::sync::Semaphore;

use roots::Roots;

/// Files that are looked at at once: a disk serves no more, and a network disk that hangs holds no more threads.
const AT_ONCE: usize = 8;
/// How long a call waits for its turn, and then for the disk.
const PATIENCE: Duration = Duration::from_secs(20);

/// The files of this machine. Cheap to clone.
#[derive(Clone)]
pub struct Files {
    places: Arc<Semaphore>,
    /// The folders that the settings open; none: the home and the folders of sessions.
    chosen: Option<Vec<PathBuf>>,
    /// Never opened: it has the keys.
    own: PathBuf,
}

impl Files {
    /// With what the settings say, and the folder that is never opened.
    pub fn new(chosen: Option<Vec<PathBuf>>, own: PathBuf) -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)), chosen, own }
    }

    /// The folders that are open while sessions run in these.
    ///
    /// # Errors
    /// When the home of happy cannot be looked at, since then nothing would keep it closed.
    pub fn roots(&self, sessions: impl IntoIterator<Item = PathBuf>) -> Result<Roots, CallError> {
        let home = std::env::home_dir().filter(|home| home.is_absolute());
        let open = match &self.chosen {
            Some(chosen) => chosen.clone(),
            // A session may run in `/`; that does not open everything.
            None => home.iter().cloned().chain(sessions).filter(|path| path.parent().is_some()).collect(),
        };
        Roots::new(open, home, &self.own)
    }

    /// Does something that blocks.
    ///
    /// # Errors
    /// What it gives, or that the disk does not answer.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let turn = tokio::time::timeout(PATIENCE, self.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = turn else {
            return Err(CallError::new(ErrorCode::Busy, "too many files are looked at; try again in a moment"));
        };
        let work = tokio::task::spawn_blocking(move || {
            // Given back when the disk has answered, however long that takes.
            let _place = place;
            work()
        });
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(CallError::new(ErrorCode::Failed, "it could not be done: this machine is ending")),
            Err(_) => Err(CallError::new(
                ErrorCode::Indeterminate,
                format!(
                    "the disk did not answer within {} seconds, and the machine goes on trying; look before you try again",
                    PATIENCE.as_secs()
                ),
            )),
        }
    }
}
