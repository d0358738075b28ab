//! How far the program says it is (`docs/TERMINAL.md`, Progress), told at a pace.

use std::time::Duration;

use happy_rpc::{Progress, ProgressState};
use happy_screen::ProgressChange;
use tokio::time::sleep;

use super::server::Holder;

/// A change is told at once, and the next one not before so long: each goes to the daemon and on to every device, and programs tell
/// of their progress as often as they print. The last one is always told.
pub const PACE: Duration = Duration::from_millis(500);

/// What the program says, and what of that was told.
#[derive(Debug, Default)]
pub struct Telling {
    now: Option<Progress>,
    told: Option<Progress>,
}

impl Telling {
    /// Goes on where another program was.
    pub fn resume(now: Option<Progress>) -> Self {
        Self { now, told: now }
    }

    /// What the program has said last.
    pub fn now(&self) -> Option<Progress> {
        self.now
    }

    /// What was told last.
    pub fn told(&self) -> Option<Progress> {
        self.told
    }

    /// The program has said something. Whether there is something to tell.
    pub fn on_change(&mut self, change: ProgressChange) -> bool {
        self.now = change.apply(self.now.map(of_rpc)).map(to_rpc);
        self.now != self.told
    }

    /// It is told what there is. Whether that is something else.
    pub fn tell(&mut self) -> bool {
        std::mem::replace(&mut self.told, self.now) != self.now
    }
}

fn to_rpc(progress: happy_screen::Progress) -> Progress {
    let state = match progress.state {
        happy_screen::ProgressState::Normal => ProgressState::Normal,
        happy_screen::ProgressState::Error => ProgressState::Error,
        happy_screen::ProgressState::Indeterminate => ProgressState::Indeterminate,
        happy_screen::ProgressState::Paused => ProgressState::Paused,
    };
    Progress { state, percent: progress.percent }
}

fn of_rpc(progress: Progress) -> happy_screen::Progress {
    let state = match progress.state {
        ProgressState::Normal => happy_screen::ProgressState::Normal,
        ProgressState::Error => happy_screen::ProgressState::Error,
        ProgressState::Indeterminate => happy_screen::ProgressState::Indeterminate,
        ProgressState::Paused => happy_screen::ProgressState::Paused,
    };
    happy_screen::Progress { state, percent: progress.percent }
}

/// Tells what there is to tell; waits, and wakes nobody, while the program says nothing else.
pub async fn tell(holder: &Holder) {
    let wakes = holder.state.borrow().wakes();
    loop {
        wakes.progress.notified().await;
        holder.state.borrow_mut().tell_progress();
        sleep(PACE).await;
    }
}
