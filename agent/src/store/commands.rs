//! `commands.db`: which commands this machine has begun, and how they ended (`PROTOCOL 10.2`).
//!
//! SQLite, in its own file: each step is on the disk when its function returns, and a step that a crash interrupts was not made. The intent
//! names the life of the daemon that wrote it, so the next one knows that what it finds unfinished will never be finished.

use std::path::{Path, PathBuf};
use std::time::Duration;

use happy_rpc::{CallError, Command, ErrorCode, MAX_AHEAD_MS, MAX_COMMANDS};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::store::file;
use crate::trouble::Trouble;

/// Lists of commands of one device: one for each browser tab that lost its storage, and some.
const MAX_LIVES: u64 = 16;
/// A life that was silent for so long is forgotten. Its commands have expired long before.
const SILENT_MS: u64 = 30 * 24 * 3600 * 1000;
/// The longest outcome that is kept, bytes: sixteen times that of a new session.
const MAX_OUTCOME: usize = 16 * 1024;
/// How long a step waits for another one of this process; there is no other process.
const BUSY: Duration = Duration::from_secs(5);
/// What this version writes.
const VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE lives (
        device BLOB NOT NULL,
        life TEXT NOT NULL,
        done INTEGER NOT NULL,
        heard INTEGER NOT NULL,
        PRIMARY KEY (device, life)
    ) WITHOUT ROWID;
    CREATE TABLE commands (
        device BLOB NOT NULL,
        life TEXT NOT NULL,
        number INTEGER NOT NULL,
        what BLOB NOT NULL,
        process BLOB NOT NULL,
        outcome BLOB,
        PRIMARY KEY (device, life, number)
    ) WITHOUT ROWID;
";

/// What was found of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing: the intent is written now, and it has to run.
    New,
    /// This life of the daemon runs it.
    Running,
    /// How it ended, as the body of a response.
    Outcome(Vec<u8>),
}

/// The open file.
pub struct CommandsFile {
    path: PathBuf,
    database: Connection,
    /// Names this life of the daemon.
    process: [u8; 16],
}

impl CommandsFile {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// When it cannot be read or written, or a later version wrote it.
    pub fn open(path: &Path, process: [u8; 16]) -> Result<CommandsFile, Trouble> {
        let made = || -> rusqlite::Result<(Connection, i64)> {
            let database = Connection::open(path)?;
            database.busy_timeout(BUSY)?;
            // With the log, a commit is one write and one sync.
            database.pragma_update(None, "journal_mode", "WAL")?;
            database.pragma_update(None, "synchronous", "FULL")?;
            let version = database.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if version == 0 {
                let transaction = database.unchecked_transaction()?;
                transaction.execute_batch(SCHEMA)?;
                transaction.pragma_update(None, "user_version", VERSION)?;
                transaction.commit()?;
            }
            Ok((database, version))
        };
        file::make_private(path)?;
        let (database, version) = made().map_err(|error| trouble(path, &error))?;
        if version > VERSION {
            return Err(Trouble::new(
                format!("The file {} was written by a newer version of happy.", path.display()),
                "Upgrade happy on this machine.",
            ));
        }
        Ok(CommandsFile { path: path.to_owned(), database, process })
    }

    /// Looks a command up, and writes down that it begins if it does. `what` is a hash of what shall be done, `now` Unix milliseconds.
    ///
    /// # Errors
    /// What the caller is told.
    pub fn begin(
        &mut self,
        device: &[u8; 32],
        command: &Command,
        what: &[u8; 32],
        now: u64,
    ) -> Result<Found, CallError> {
        let process = self.process;
        self.step(|transaction| begin(transaction, &process, device, command, what, now))?
    }

    /// Writes down how a command ended, before its caller is told. Gives what is to be told.
    ///
    /// # Errors
    /// When it cannot be written; its caller is told that nobody can know.
    pub fn finish(&mut self, device: &[u8; 32], command: &Command, outcome: Vec<u8>) -> Result<Vec<u8>, CallError> {
        let kept = if outcome.len() <= MAX_OUTCOME { outcome.clone() } else { too_long() };
        self.step(|transaction| put(transaction, device, command, &kept))?;
        Ok(outcome)
    }

    fn step<T>(&mut self, step: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, CallError> {
        let all = || {
            let transaction = self.database.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = step(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        all().map_err(|error: rusqlite::Error| {
            let message = format!("this machine cannot write {}: {error}", self.path.display());
            CallError::new(ErrorCode::Failed, message)
        })
    }
}

type Decision = Result<Found, CallError>;

fn begin(
    transaction: &Transaction<'_>,
    process: &[u8; 16],
    device: &[u8; 32],
    command: &Command,
    what: &[u8; 32],
    now: u64,
) -> rusqlite::Result<Decision> {
    let Command { life, number, .. } = command;
    if command.until > now.saturating_add(MAX_AHEAD_MS) {
        let message = "the command is wanted later than the protocol allows; see whether both clocks are right";
        return Ok(Err(CallError::new(ErrorCode::Malformed, message)));
    }
    forget_silent(transaction, device, life, now)?;
    let Some(done) = hear(transaction, device, command, now)? else {
        return Ok(Err(too_many("this device has too many lists of commands here")));
    };
    if *number <= done {
        let message = "a command of this name is done; the calling device goes on from an old copy of itself";
        return Ok(Err(CallError::new(ErrorCode::Reused, message)));
    }
    let found: Option<(Vec<u8>, Option<Vec<u8>>)> = transaction
        .prepare_cached(
            "SELECT process, outcome FROM commands WHERE device = ?1 AND life = ?2 AND number = ?3 AND what = ?4",
        )?
        .query_row(params![device, life, number, what], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let outcome = match found {
        None if is_known(transaction, device, command)? => {
            let message = "another command had this name; the calling device goes on from an old copy of itself";
            return Ok(Err(CallError::new(ErrorCode::Reused, message)));
        }
        Some((_, Some(outcome))) => return Ok(Ok(Found::Outcome(outcome))),
        Some((by, None)) if by == process => return Ok(Ok(Found::Running)),
        // PROTOCOL 10.2: the daemon ended between the intent and the outcome.
        Some((_, None)) => unknown("the machine ended while it ran the command; it was done, or not, or in part"),
        None => {
            if count(transaction, device)? >= MAX_COMMANDS {
                // It has room again when the device has had answers, so it may ask again.
                let message = "too many commands of this device are not done";
                return Ok(Err(CallError::new(ErrorCode::Busy, message)));
            }
            transaction
                .prepare_cached(
                    "INSERT INTO commands (device, life, number, what, process) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .execute(params![device, life, number, what, process])?;
            if command.until >= now {
                return Ok(Ok(Found::New));
            }
            let message = "the command came later than it was wanted and was not done";
            happy_rpc::refusal(&CallError::new(ErrorCode::Expired, message))
        }
    };
    put(transaction, device, command, &outcome)?;
    Ok(Ok(Found::Outcome(outcome)))
}

fn is_known(transaction: &Transaction<'_>, device: &[u8; 32], command: &Command) -> rusqlite::Result<bool> {
    transaction
        .prepare_cached("SELECT 1 FROM commands WHERE device = ?1 AND life = ?2 AND number = ?3")?
        .exists(params![device, command.life, command.number])
}

/// Notes that a life was heard of and what is done of it; gives up to where it is done. None when the device has too many lives.
fn hear(
    transaction: &Transaction<'_>,
    device: &[u8; 32],
    command: &Command,
    now: u64,
) -> rusqlite::Result<Option<u64>> {
    let Command { life, done, .. } = command;
    let known: Option<u64> = transaction
        .prepare_cached("SELECT done FROM lives WHERE device = ?1 AND life = ?2")?
        .query_row(params![device, life], |row| row.get(0))
        .optional()?;
    if known.is_none() {
        let lives: u64 = transaction
            .prepare_cached("SELECT count(*) FROM lives WHERE device = ?1")?
            .query_row([device], |row| row.get(0))?;
        if lives >= MAX_LIVES {
            return Ok(None);
        }
    }
    let done = known.unwrap_or(0).max(*done);
    transaction
        .prepare_cached("INSERT OR REPLACE INTO lives (device, life, done, heard) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![device, life, done, now])?;
    transaction
        .prepare_cached("DELETE FROM commands WHERE device = ?1 AND life = ?2 AND number <= ?3")?
        .execute(params![device, life, done])?;
    Ok(Some(done))
}

/// Not the life that is speaking: it may still ask for what it was not told.
fn forget_silent(transaction: &Transaction<'_>, device: &[u8; 32], speaks: &str, now: u64) -> rusqlite::Result<()> {
    let silent_since = now.saturating_sub(SILENT_MS);
    transaction
        .prepare_cached(
            "DELETE FROM commands WHERE device = ?1
             AND life IN (SELECT life FROM lives WHERE device = ?1 AND heard < ?2 AND life <> ?3)",
        )?
        .execute(params![device, silent_since, speaks])?;
    transaction
        .prepare_cached("DELETE FROM lives WHERE device = ?1 AND heard < ?2 AND life <> ?3")?
        .execute(params![device, silent_since, speaks])?;
    Ok(())
}

fn count(transaction: &Transaction<'_>, device: &[u8; 32]) -> rusqlite::Result<u64> {
    transaction.prepare_cached("SELECT count(*) FROM commands WHERE device = ?1")?.query_row([device], |row| row.get(0))
}

fn put(transaction: &Transaction<'_>, device: &[u8; 32], command: &Command, outcome: &[u8]) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("UPDATE commands SET outcome = ?4 WHERE device = ?1 AND life = ?2 AND number = ?3")?
        .execute(params![device, command.life, command.number, outcome])?;
    Ok(())
}

fn unknown(message: &str) -> Vec<u8> {
    happy_rpc::refusal(&CallError::new(ErrorCode::Indeterminate, message))
}

fn too_long() -> Vec<u8> {
    unknown("the command was run; its answer was too long to be kept for a second time")
}

fn too_many(message: &str) -> CallError {
    CallError::new(ErrorCode::TooMany, message)
}

fn trouble(path: &Path, error: &rusqlite::Error) -> Trouble {
    let path = path.display();
    Trouble::new(
        format!("The file {path} cannot be used: {error}."),
        "If the disk is full, make room. If the file is damaged, move it aside: then a command that was sent before may run once more.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600 * 1000;
    const NOW: u64 = 1_800_000_000_000;
    const PHONE: [u8; 32] = [7; 32];
    const WHAT: [u8; 32] = [3; 32];

    struct Stage {
        folder: tempfile::TempDir,
        commands: CommandsFile,
    }

    impl Stage {
        fn new() -> Stage {
            let folder = tempfile::tempdir().unwrap();
            let commands = CommandsFile::open(&folder.path().join("commands.db"), [1; 16]).unwrap();
            Stage { folder, commands }
        }

        /// The daemon is killed and started again.
        fn restart(self) -> Stage {
            let Stage { folder, commands } = self;
            let process = [commands.process[0] + 1; 16];
            drop(commands);
            let commands = CommandsFile::open(&folder.path().join("commands.db"), process).unwrap();
            Stage { folder, commands }
        }

        fn begin(&mut self, command: &Command) -> Result<Found, ErrorCode> {
            self.commands.begin(&PHONE, command, &WHAT, NOW).map_err(|error| error.code)
        }

        fn finish(&mut self, command: &Command, outcome: &[u8]) {
            assert_eq!(self.commands.finish(&PHONE, command, outcome.to_vec()).unwrap(), outcome);
        }
    }

    fn command(number: u64) -> Command {
        Command { life: "A".repeat(22), number, done: 0, until: NOW + 1000, given_at: NOW }
    }

    fn code(found: Result<Found, ErrorCode>) -> Option<ErrorCode> {
        let Ok(Found::Outcome(body)) = found else { panic!("{found:?}") };
        let text = String::from_utf8(body).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        serde_json::from_value(value["error"]["code"].clone()).ok()
    }

    #[test]
    fn a_command_begins_once_and_its_outcome_is_told_again() {
        let mut stage = Stage::new();
        assert_eq!(stage.begin(&command(1)), Ok(Found::New));
        assert_eq!(stage.begin(&command(1)), Ok(Found::Running));
        stage.finish(&command(1), b"done");
        assert_eq!(stage.begin(&command(1)), Ok(Found::Outcome(b"done".to_vec())));
        let mut stage = stage.restart();
        assert_eq!(stage.begin(&command(1)), Ok(Found::Outcome(b"done".to_vec())));
        // Another device, and another list, are other commands.
        let other = stage.commands.begin(&[8; 32], &command(1), &WHAT, NOW);
        assert_eq!(other.map_err(|error| error.code), Ok(Found::New));
        assert_eq!(stage.begin(&Command { life: "B".repeat(22), ..command(1) }), Ok(Found::New));
    }

    #[test]
    fn what_was_under_way_when_the_daemon_ended_is_indeterminate_and_stays_so() {
        let mut stage = Stage::new();
        assert_eq!(stage.begin(&command(1)), Ok(Found::New));
        let mut stage = stage.restart();
        assert_eq!(code(stage.begin(&command(1))), Some(ErrorCode::Indeterminate));
        let mut stage = stage.restart();
        assert_eq!(code(stage.begin(&command(1))), Some(ErrorCode::Indeterminate));
    }

    #[test]
    fn a_command_that_comes_too_late_is_not_done_even_if_the_clock_goes_back() {
        let mut stage = Stage::new();
        let late = Command { until: NOW - 1, ..command(1) };
        assert_eq!(code(stage.begin(&late)), Some(ErrorCode::Expired));
        let again = stage.commands.begin(&PHONE, &late, &WHAT, NOW - DAY).map_err(|error| error.code);
        assert_eq!(code(again), Some(ErrorCode::Expired));
        let far = Command { until: NOW + MAX_AHEAD_MS + 1, ..command(2) };
        assert_eq!(stage.begin(&far), Err(ErrorCode::Malformed));
    }

    #[test]
    fn what_is_done_is_forgotten_and_does_not_run_again() {
        let mut stage = Stage::new();
        for number in 1..=3 {
            assert_eq!(stage.begin(&command(number)), Ok(Found::New));
            stage.finish(&command(number), b"done");
        }
        assert_eq!(stage.begin(&Command { done: 2, ..command(4) }), Ok(Found::New));
        assert_eq!(stage.begin(&command(2)), Err(ErrorCode::Reused));
        assert_eq!(stage.begin(&command(3)), Ok(Found::Outcome(b"done".to_vec())));
    }

    #[test]
    fn a_name_that_belongs_to_another_command_is_refused() {
        let mut stage = Stage::new();
        assert_eq!(stage.begin(&command(1)), Ok(Found::New));
        stage.finish(&command(1), b"done");
        let other = stage.commands.begin(&PHONE, &command(1), &[4; 32], NOW).map_err(|error| error.code);
        assert_eq!(other, Err(ErrorCode::Reused));
        assert_eq!(stage.begin(&command(1)), Ok(Found::Outcome(b"done".to_vec())));
    }

    #[test]
    fn commands_and_lives_are_bounded() {
        let mut stage = Stage::new();
        for number in 1..=MAX_COMMANDS {
            assert_eq!(stage.begin(&command(number)), Ok(Found::New));
        }
        assert_eq!(stage.begin(&command(MAX_COMMANDS + 1)), Err(ErrorCode::Busy));
        assert_eq!(stage.begin(&Command { done: 1, ..command(MAX_COMMANDS + 1) }), Ok(Found::New));
        let mut stage = Stage::new();
        let of_life =
            |life: char, at: u64| Command { life: life.to_string().repeat(22), until: at + 1000, ..command(1) };
        for life in 'a'..='p' {
            assert_eq!(stage.begin(&of_life(life, NOW)), Ok(Found::New));
        }
        assert_eq!(stage.begin(&of_life('q', NOW)), Err(ErrorCode::TooMany));
        // When they have been silent for long enough there is room.
        let later = NOW + SILENT_MS + 1;
        // But one that speaks is not forgotten: what it was not told it may still ask for.
        stage.commands.finish(&PHONE, &of_life('a', NOW), b"done".to_vec()).unwrap();
        let asked = stage.commands.begin(&PHONE, &of_life('a', NOW), &WHAT, later).unwrap();
        assert_eq!(asked, Found::Outcome(b"done".to_vec()));
        assert_eq!(stage.commands.begin(&PHONE, &of_life('q', later), &WHAT, later).unwrap(), Found::New);
    }

    #[test]
    fn a_long_outcome_is_told_once() {
        let mut stage = Stage::new();
        assert_eq!(stage.begin(&command(1)), Ok(Found::New));
        stage.finish(&command(1), &[b'x'; MAX_OUTCOME + 1]);
        assert_eq!(code(stage.begin(&command(1))), Some(ErrorCode::Indeterminate), "not that it failed: it ran");
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("commands.db");
        std::fs::write(
            &path,
            b"this is not a database, whatever its name says, and it is long enough to look like one",
        )
        .unwrap();
        let before = std::fs::read(&path).unwrap();
        let trouble = CommandsFile::open(&path, [1; 16]).err().unwrap();
        assert!(trouble.to_string().contains("commands.db"), "{trouble}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
