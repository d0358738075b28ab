//! Recording sessions: where files lie, and what they are called.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use happy_rpc::{RecordOptions, Session};
use uuid::Uuid;

use super::{ControlError, MAX_CWD, Sessions, ask, json_length};
use crate::holder::protocol::{Refusal, Request, refusal};
use crate::holder::recording::{LIMIT, Order};
use crate::holder::spec::unix_ms;

/// The folder below the home.
const FOLDER: &str = "recordings";

/// Characters of a session's name that its file has.
const MAX_NAME: usize = 40;

impl Sessions {
    /// Begins to record what a session prints.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn record(&self, id: Uuid, record: RecordOptions) -> Result<Session, ControlError> {
        let session = self.session(id).ok_or(ControlError::NoSession)?;
        super::tmux::host(&self.shared, id).await.map_err(|error| ControlError::Guest(error.to_string()))?;
        let order = order(&self.shared.config.home, id, &session.name, record).map_err(|error| {
            let why = crate::trouble::reason(&error);
            Refusal::new(refusal::CONFLICT, format!("the folder of the recordings cannot be made: {why}"))
        })?;
        match self.ask_recorder(id, Request::Record(order.clone())).await {
            // A client of tmux that was about to go since nobody looked.
            Err(ControlError::Refused(refused)) if refused.code == refusal::DETACHED => {
                super::tmux::until_gone(&self.shared, id).await;
                super::tmux::host(&self.shared, id).await.map_err(|error| ControlError::Guest(error.to_string()))?;
                self.ask_recorder(id, Request::Record(order)).await
            }
            recorded => recorded,
        }
    }

    /// Ends the recording of a session.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn stop_recording(&self, id: Uuid) -> Result<Session, ControlError> {
        self.ask_recorder(id, Request::StopRecording).await
    }

    async fn ask_recorder(&self, id: Uuid, request: Request) -> Result<Session, ControlError> {
        match ask(&self.shared.holder(id)?, request).await {
            Ok(_) => self.session(id).ok_or(ControlError::NoSession),
            Err(ControlError::Refused(refused)) if refused.code == refusal::UNKNOWN => Err(ControlError::Refused(
                Refusal::new(refused.code, "the session was begun by an older version of happy, which does not record"),
            )),
            Err(error) => Err(error),
        }
    }
}

/// What a holder is told. Makes the folder, if that is where the file goes.
pub(super) fn order(home: &Path, id: Uuid, name: &str, record: RecordOptions) -> io::Result<Order> {
    let limit = record.limit.unwrap_or(LIMIT);
    let to = match record.to {
        // Lists show it.
        Some(to) if json_length(&to.to_string_lossy()) > MAX_CWD => {
            return Err(io::Error::new(io::ErrorKind::InvalidFilename, "the path of the recording is too long"));
        }
        Some(to) => to,
        None => {
            let folder = home.join(FOLDER);
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            free_path(&folder, &file_stem(id, name, unix_ms() / 1000))
        }
    };
    Ok(Order { to, limit })
}

/// A path that nothing has yet; the holder looks once more.
fn free_path(folder: &Path, stem: &str) -> PathBuf {
    let numbered = (2..100).map(|number| format!("{stem}-{number}.cast"));
    let mut paths = [format!("{stem}.cast")].into_iter().chain(numbered).map(|name| folder.join(name));
    let free = paths.find(|path| path.symlink_metadata().is_err());
    free.unwrap_or_else(|| folder.join(format!("{stem}-{}.cast", Uuid::new_v4())))
}

/// `NAME-20261122T114700Z-1a2b3c4d`: found by what it is of, sorted by when it was made.
fn file_stem(id: Uuid, name: &str, unix: u64) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "._+".contains(c) { c } else { '-' };
    let name: String = name.chars().map(plain).take(MAX_NAME).collect();
    let name = name.trim_matches(['-', '.']);
    let id: String = id.to_string().chars().take(8).collect();
    let name = if name.is_empty() { "session" } else { name };
    format!("{name}-{}-{id}", utc(unix))
}

/// A time as `20261122T114700Z`.
fn utc(unix: u64) -> String {
    let (days, second) = (unix / 86_400, unix % 86_400);
    // Days in years that begin in March, so that the day that may be missing is the last one (Hinnant, `civil_from_days`).
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year + month / 10, if month < 10 { month + 3 } else { month - 9 });
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (unix, wanted) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_709_251_199, "20240229T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
            (1_795_348_020, "20261122T114700Z"),
        ] {
            assert_eq!(utc(unix), wanted);
        }
    }

    #[test]
    fn a_file_is_called_after_its_session_and_nothing_in_that_leads_elsewhere() {
        for (name, wanted) in [
            ("claude", "claude"),
            ("../../etc/passwd", "etc-passwd"),
            ("\u{1b}[2Jx\0", "2Jx"),
            ("日本 語", "日本-語"),
            ("...", "session"),
            ("", "session"),
            (&"ä".repeat(300), &"ä".repeat(MAX_NAME)),
        ] {
            assert_eq!(file_stem(Uuid::nil(), name, 0), format!("{wanted}-19700101T000000Z-00000000"));
        }
        let folder = tempfile::tempdir().unwrap();
        let first = free_path(folder.path(), "x");
        std::os::unix::fs::symlink("nowhere", &first).unwrap();
        assert_eq!(free_path(folder.path(), "x"), folder.path().join("x-2.cast"));
    }
}
