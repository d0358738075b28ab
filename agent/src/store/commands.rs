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

/// Lists of commands of one device with outcomes that are kept: one for each browser tab that lost its storage, and some.
const MAX_LIVES: u64 = 16;
/// Lives of one device that are remembered by name, with outcomes or without: that of a person who clears the browser's storage a
/// hundred times a day is among them for a month. A name has some 50 bytes.
const MAX_NAMES: u64 = 4096;
/// What a life that was silent for so long has not asked for is forgotten; its commands have expired long before. Its name is the first to go
/// when there are too many.
const SILENT_MS: u64 = 30 * 24 * 3600 * 1000;
/// The longest outcome that is kept, bytes: sixteen times that of a new session.
const MAX_OUTCOME: usize = 16 * 1024;
/// A caller only estimates the clock of this machine, so a command may be wanted for so much longer than the protocol allows.
const CLOCK_SLACK_MS: u64 = 60 * 1000;
/// After every time that a clock gives: SQLite has no larger number.
const NEVER: u64 = i64::MAX as u64;
/// How long a step waits for another one of this process; there is no other process.
const BUSY: Duration = Duration::from_secs(5);
/// What this version writes.
const VERSION: i64 = 2;

const SCHEMA: &str = "
    CREATE TABLE lives (
        device BLOB NOT NULL,
        life TEXT NOT NULL,
        done INTEGER NOT NULL,
        heard INTEGER NOT NULL,
        forgotten INTEGER NOT NULL DEFAULT 0,
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

/// Version 1 forgot nothing by itself.
const FROM_1_TO_2: &str = "ALTER TABLE lives ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0";

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
            let steps = match version {
                0 => Some(SCHEMA),
                1 => Some(FROM_1_TO_2),
                _ => None,
            };
            if let Some(steps) = steps {
                let transaction = database.unchecked_transaction()?;
                transaction.execute_batch(steps)?;
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
    /// What the caller is told. When the file cannot be used it is to ask again: nothing begins.
    pub fn begin(
        &mut self,
        device: &[u8; 32],
        command: &Command,
        what: &[u8; 32],
        now: u64,
    ) -> Result<Found, CallError> {
        let process = self.process;
        // Read first: what was done is told, whether the disk takes anything or not, and whatever the clocks say now.
        let known = look_up(&self.database, &process, device, command, what).map_err(|error| self.busy(&error))?;
        if let Some(decision) = known {
            if let Err(error) = self.step(|transaction| hear(transaction, device, command, now)) {
                tracing::warn!(%error, "what a device is done with is not stored");
            }
            return decision;
        }
        if command.until > now.saturating_add(MAX_AHEAD_MS + CLOCK_SLACK_MS) {
            let message = "the command is wanted later than the protocol allows; see whether both clocks are right";
            return Err(CallError::new(ErrorCode::Malformed, message));
        }
        let decided = match command.until < now {
            true => self.step(|transaction| expire(transaction, &process, device, command, what, now)),
            false => self.step(|transaction| begin(transaction, &process, device, command, what, now)),
        };
        decided.map_err(|error| self.busy(&error))?
    }

    /// Writes down how a command ended, before its caller is told. Gives what is to be told.
    ///
    /// # Errors
    /// When it cannot be written; its caller is told that nobody can know.
    pub fn finish(&mut self, device: &[u8; 32], command: &Command, outcome: Vec<u8>) -> Result<Vec<u8>, CallError> {
        let kept = if outcome.len() <= MAX_OUTCOME { outcome.clone() } else { too_long() };
        let put = self.step(|transaction| put(transaction, device, command, &kept));
        put.map_err(|error| CallError::new(ErrorCode::Indeterminate, self.unusable(&error)))?;
        Ok(outcome)
    }

    fn step<T>(&mut self, step: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let transaction = self.database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = step(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    fn busy(&self, error: &rusqlite::Error) -> CallError {
        CallError::new(ErrorCode::Busy, self.unusable(error))
    }

    fn unusable(&self, error: &rusqlite::Error) -> String {
        format!("this machine cannot use {}: {error}", self.path.display())
    }
}

type Decision = Result<Found, CallError>;
/// Of a command: what shall be done, the life of the daemon that began it, and the outcome.
type Written = (Vec<u8>, Vec<u8>, Option<Vec<u8>>);

/// What is known of a command; changes nothing. None when it was not begun.
fn look_up(
    database: &Connection,
    process: &[u8; 16],
    device: &[u8; 32],
    command: &Command,
    what: &[u8; 32],
) -> rusqlite::Result<Option<Decision>> {
    let Command { life, number, .. } = command;
    let Known { done, forgotten } = known(database, device, life)?.unwrap_or_default();
    if *number <= done {
        let message = "a command of this name is done; the calling device goes on from an old copy of itself";
        return Ok(Some(Err(CallError::new(ErrorCode::Reused, message))));
    }
    let found: Option<Written> = database
        .prepare_cached("SELECT what, process, outcome FROM commands WHERE device = ?1 AND life = ?2 AND number = ?3")?
        .query_row(params![device, life, number], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let found = match found {
        Some((other, ..)) if other != what => {
            let message = "another command had this name; the calling device goes on from an old copy of itself";
            return Ok(Some(Err(CallError::new(ErrorCode::Reused, message))));
        }
        Some((.., Some(outcome))) => Found::Outcome(outcome),
        Some((_, by, None)) if by == process => Found::Running,
        // PROTOCOL 10.2: the daemon ended between the intent and the outcome. No later life has its name, so it stays so.
        Some((.., None)) => {
            let message = "the machine ended while it ran the command; it was done, or not, or in part";
            Found::Outcome(unknown(message))
        }
        // PROTOCOL 10.2: it may have begun before its life was forgotten, so it never begins again.
        None if *number <= forgotten => {
            let message = "the machine has forgotten what became of the command; it was done, or not, or in part";
            Found::Outcome(unknown(message))
        }
        None => return Ok(None),
    };
    Ok(Some(Ok(found)))
}

/// A command that was not begun begins.
fn begin(
    transaction: &Transaction<'_>,
    process: &[u8; 16],
    device: &[u8; 32],
    command: &Command,
    what: &[u8; 32],
    now: u64,
) -> rusqlite::Result<Decision> {
    forget_silent(transaction, process, device, &command.life, now)?;
    if !hear(transaction, device, command, now)? {
        drop_silent_name(transaction, device, now)?;
        if !hear(transaction, device, command, now)? {
            let message = "this device has had too many lists of commands here of late";
            return Ok(Err(CallError::new(ErrorCode::TooMany, message)));
        }
    }
    if !make_room(transaction, process, device, &command.life)? {
        // It has room again when the device has had answers, so it may ask again.
        return Ok(Err(CallError::new(ErrorCode::Busy, "too many commands of this device are not done")));
    }
    insert(transaction, process, device, command, what)?;
    Ok(Ok(Found::New))
}

/// A command that was not begun comes too late. Nothing is forgotten for it: without room it is told so, and that is not kept.
fn expire(
    transaction: &Transaction<'_>,
    process: &[u8; 16],
    device: &[u8; 32],
    command: &Command,
    what: &[u8; 32],
    now: u64,
) -> rusqlite::Result<Decision> {
    let message = "the command came later than it was wanted and was not done";
    let outcome = happy_rpc::refusal(&CallError::new(ErrorCode::Expired, message));
    if hear(transaction, device, command, now)? && has_room(transaction, device, &command.life)? {
        insert(transaction, process, device, command, what)?;
        put(transaction, device, command, &outcome)?;
    }
    Ok(Ok(Found::Outcome(outcome)))
}

fn insert(
    transaction: &Transaction<'_>,
    process: &[u8; 16],
    device: &[u8; 32],
    command: &Command,
    what: &[u8; 32],
) -> rusqlite::Result<()> {
    transaction
        .prepare_cached("INSERT INTO commands (device, life, number, what, process) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![device, command.life, command.number, what, process])?;
    Ok(())
}

/// What is remembered of a life beside the outcomes.
#[derive(Default)]
struct Known {
    /// The device has had the outcomes up to this number.
    done: u64,
    /// This machine has forgotten the outcomes up to this number.
    forgotten: u64,
}

fn known(database: &Connection, device: &[u8; 32], life: &str) -> rusqlite::Result<Option<Known>> {
    database
        .prepare_cached("SELECT done, forgotten FROM lives WHERE device = ?1 AND life = ?2")?
        .query_row(params![device, life], |row| Ok(Known { done: row.get(0)?, forgotten: row.get(1)? }))
        .optional()
}

/// Notes that a life was heard of and what is done of it. False when the device has too many lives.
fn hear(transaction: &Transaction<'_>, device: &[u8; 32], command: &Command, now: u64) -> rusqlite::Result<bool> {
    let Command { life, done, .. } = command;
    let known = known(transaction, device, life)?;
    if known.is_none() {
        let lives: u64 = transaction
            .prepare_cached("SELECT count(*) FROM lives WHERE device = ?1")?
            .query_row([device], |row| row.get(0))?;
        if lives >= MAX_NAMES {
            return Ok(false);
        }
    }
    let Known { done: before, forgotten } = known.unwrap_or_default();
    let done = before.max(*done);
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO lives (device, life, done, heard, forgotten) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![device, life, done, now, forgotten])?;
    transaction
        .prepare_cached("DELETE FROM commands WHERE device = ?1 AND life = ?2 AND number <= ?3")?
        .execute(params![device, life, done])?;
    Ok(true)
}

/// Forgets the outcomes of lives that were silent for long, but not of the one that is speaking: it may still ask for what it was not told.
/// Their names stay, for a clock that was far ahead once must not let a command begin twice.
fn forget_silent(
    transaction: &Transaction<'_>,
    process: &[u8; 16],
    device: &[u8; 32],
    speaks: &str,
    now: u64,
) -> rusqlite::Result<()> {
    let silent_since = now.saturating_sub(SILENT_MS);
    while forget_oldest(transaction, process, device, speaks, silent_since)? {}
    Ok(())
}

/// Makes room for the name of one more life: the one goes that was silent for the longest, and for long, and of which nothing else is kept.
fn drop_silent_name(transaction: &Transaction<'_>, device: &[u8; 32], now: u64) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "DELETE FROM lives WHERE device = ?1 AND life =
             (SELECT life FROM lives AS silent WHERE device = ?1 AND heard < ?2
              AND NOT EXISTS (SELECT 1 FROM commands WHERE device = ?1 AND life = silent.life)
              ORDER BY heard, life LIMIT 1)",
        )?
        .execute(params![device, now.saturating_sub(SILENT_MS)])?;
    Ok(())
}

/// Makes room for one more command of this life; false when there is none. PROTOCOL 10.2: the outcomes go that are the least likely to be
/// asked for, those of the life that was silent for the longest. It is one that the device has lost, as a rule.
fn make_room(
    transaction: &Transaction<'_>,
    process: &[u8; 16],
    device: &[u8; 32],
    life: &str,
) -> rusqlite::Result<bool> {
    while !has_room(transaction, device, life)? {
        if !forget_oldest(transaction, process, device, life, NEVER)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether there is room for one more command of this life.
fn has_room(transaction: &Transaction<'_>, device: &[u8; 32], life: &str) -> rusqlite::Result<bool> {
    let (commands, others): (u64, u64) = transaction
        .prepare_cached(
            "SELECT count(*), count(DISTINCT CASE WHEN life <> ?2 THEN life END) FROM commands WHERE device = ?1",
        )?
        .query_row(params![device, life], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(commands < MAX_COMMANDS && others < MAX_LIVES)
}

/// Forgets the outcomes of the life that was silent for the longest, but not of the one that speaks, and of none in which something runs:
/// that will have an outcome; and only of one that was last heard before `heard_before`. False when there is none. What is forgotten never
/// begins again: the life keeps its name, and the largest number that was begun.
fn forget_oldest(
    transaction: &Transaction<'_>,
    process: &[u8; 16],
    device: &[u8; 32],
    speaks: &str,
    heard_before: u64,
) -> rusqlite::Result<bool> {
    let oldest: Option<(String, u64)> = transaction
        .prepare_cached(
            "SELECT life, max(number) FROM commands JOIN lives USING (device, life)
             WHERE device = ?1 AND life <> ?2 AND heard < ?4
             GROUP BY life
             HAVING sum(outcome IS NULL AND process = ?3) = 0
             ORDER BY heard, life LIMIT 1",
        )?
        .query_row(params![device, speaks, process, heard_before], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((life, last)) = oldest else { return Ok(false) };
    transaction
        .prepare_cached("UPDATE lives SET forgotten = ?3 WHERE device = ?1 AND life = ?2")?
        .execute(params![device, life, last])?;
    transaction
        .prepare_cached("DELETE FROM commands WHERE device = ?1 AND life = ?2")?
        .execute(params![device, life])?;
    Ok(true)
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
        let far = Command { until: NOW + MAX_AHEAD_MS + 60_001, ..command(2) };
        assert_eq!(stage.begin(&far), Err(ErrorCode::Malformed));
        // The caller has only an estimate of the clock here.
        assert_eq!(stage.begin(&Command { until: NOW + MAX_AHEAD_MS + 60_000, ..command(2) }), Ok(Found::New));
    }

    #[test]
    fn what_was_done_is_told_when_nothing_can_be_written_and_whatever_the_clock_says() {
        let mut stage = Stage::new();
        for number in 1..=3 {
            assert_eq!(stage.begin(&command(number)), Ok(Found::New));
        }
        stage.finish(&command(1), b"done");
        let mut stage = stage.restart();
        assert_eq!(stage.begin(&command(4)), Ok(Found::New));
        stage.commands.database.pragma_update(None, "query_only", true).unwrap();
        // The clock was ten days ahead when the first was given, or is years ahead now.
        for at in [NOW - 10 * DAY, NOW, NOW + 1000 * DAY] {
            assert_eq!(stage.begin_at(&command(1), at), Ok(Found::Outcome(b"done".to_vec())), "{at}");
            assert_eq!(code(stage.begin_at(&command(2), at)), Some(ErrorCode::Indeterminate), "{at}");
            assert_eq!(stage.begin_at(&command(4), at), Ok(Found::Running), "{at}");
        }
        assert_eq!(stage.begin(&command(5)), Err(ErrorCode::Busy), "it is asked for again");
        stage.commands.database.pragma_update(None, "query_only", false).unwrap();
        assert_eq!(stage.begin(&command(5)), Ok(Found::New));
    }

    #[test]
    fn for_a_command_that_comes_too_late_nothing_is_forgotten() {
        let mut stage = Stage::new();
        stage.lives(MAX_LIVES);
        let at = NOW + DAY;
        let late = Command { until: at - 1, ..of_life(99, 1, at) };
        assert_eq!(code(stage.begin_at(&late, at)), Some(ErrorCode::Expired));
        for life in 1..=MAX_LIVES {
            let asked = stage.begin_at(&of_life(life, 1, at), at);
            assert_eq!(asked, Ok(Found::Outcome(b"done".to_vec())), "{life}");
        }
    }

    #[test]
    fn a_clock_that_was_a_month_ahead_once_lets_nothing_begin_twice() {
        let mut stage = Stage::new();
        for number in 1..=2 {
            assert_eq!(stage.begin(&command(number)), Ok(Found::New));
            stage.finish(&command(number), b"done");
        }
        let runs = of_life(1, 1, NOW);
        assert_eq!(stage.begin(&runs), Ok(Found::New));
        let ahead = NOW + 31 * DAY;
        assert_eq!(stage.begin_at(&of_life(2, 1, ahead), ahead), Ok(Found::New));
        assert_eq!(code(stage.begin(&command(1))), Some(ErrorCode::Indeterminate));
        assert_eq!(code(stage.begin(&command(2))), Some(ErrorCode::Indeterminate));
        assert_eq!(stage.begin(&command(3)), Ok(Found::New));
        assert_eq!(stage.begin(&runs), Ok(Found::Running));
        stage.finish(&runs, b"done");
        assert_eq!(stage.begin(&runs), Ok(Found::Outcome(b"done".to_vec())));
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
        // Another device has room.
        assert_eq!(stage.commands.begin(&[8; 32], &command(1), &WHAT, NOW).unwrap(), Found::New);
    }

    /// The first command of a life that speaks at this time.
    fn of_life(life: u64, number: u64, at: u64) -> Command {
        Command { life: format!("{life:022}"), until: at + 1000, ..command(number) }
    }

    impl Stage {
        fn begin_at(&mut self, command: &Command, at: u64) -> Result<Found, ErrorCode> {
            self.commands.begin(&PHONE, command, &WHAT, at).map_err(|error| error.code)
        }

        /// So many lives that have had an answer and not said so, one a second.
        fn lives(&mut self, lives: u64) {
            for life in 1..=lives {
                let (command, at) = (of_life(life, 1, NOW + life * 1000), NOW + life * 1000);
                assert_eq!(self.begin_at(&command, at), Ok(Found::New));
                self.finish(&command, b"done");
            }
        }
    }

    #[test]
    fn a_device_that_loses_its_lists_again_and_again_is_never_locked_out() {
        let mut stage = Stage::new();
        stage.lives(3 * MAX_LIVES);
        let at = NOW + DAY;
        // Those that spoke last are kept; asking for an outcome forgets nothing.
        for life in 2 * MAX_LIVES + 1..=3 * MAX_LIVES {
            let asked = stage.begin_at(&of_life(life, 1, at), at);
            assert_eq!(asked, Ok(Found::Outcome(b"done".to_vec())), "{life}");
        }
    }

    #[test]
    fn what_was_forgotten_never_begins_again_and_what_is_new_does() {
        let mut stage = Stage::new();
        let first = of_life(99, 1, NOW);
        for number in [1, 2, 4] {
            let command = of_life(99, number, NOW);
            assert_eq!(stage.begin(&command), Ok(Found::New));
            stage.finish(&command, b"done");
        }
        stage.lives(MAX_LIVES + 1);
        let mut stage = stage.restart();
        for number in 1..=4 {
            let asked = stage.begin(&of_life(99, number, NOW + DAY));
            assert_eq!(code(asked), Some(ErrorCode::Indeterminate), "{number}");
        }
        // The list is not lost after all, and goes on where it was.
        assert_eq!(stage.begin(&of_life(99, 5, NOW)), Ok(Found::New));
        stage.finish(&of_life(99, 5, NOW), b"done");
        assert_eq!(stage.begin(&of_life(99, 5, NOW)), Ok(Found::Outcome(b"done".to_vec())));
        assert_eq!(code(stage.begin(&first)), Some(ErrorCode::Indeterminate));
        let done = Command { done: 4, ..of_life(99, 6, NOW) };
        assert_eq!(stage.begin(&done), Ok(Found::New));
        assert_eq!(stage.begin(&first), Err(ErrorCode::Reused));
    }

    #[test]
    fn the_life_that_was_silent_for_the_longest_is_forgotten_first() {
        let mut stage = Stage::new();
        stage.lives(MAX_LIVES);
        let at = NOW + DAY;
        // The first one speaks.
        assert_eq!(stage.begin_at(&of_life(1, 1, at), at), Ok(Found::Outcome(b"done".to_vec())));
        assert_eq!(stage.begin_at(&of_life(99, 1, at), at), Ok(Found::New));
        assert_eq!(stage.begin_at(&of_life(1, 1, at), at), Ok(Found::Outcome(b"done".to_vec())));
        assert_eq!(stage.begin_at(&of_life(3, 1, at), at), Ok(Found::Outcome(b"done".to_vec())));
        assert_eq!(code(stage.begin_at(&of_life(2, 1, at), at)), Some(ErrorCode::Indeterminate));
    }

    #[test]
    fn a_life_in_which_something_runs_is_not_forgotten() {
        let mut stage = Stage::new();
        for life in 0..MAX_LIVES {
            assert_eq!(stage.begin(&of_life(life, 1, NOW)), Ok(Found::New));
        }
        let one_more = of_life(99, 1, NOW);
        assert_eq!(stage.begin(&one_more), Err(ErrorCode::Busy));
        stage.finish(&of_life(7, 1, NOW), b"done");
        assert_eq!(stage.begin(&one_more), Ok(Found::New));
        assert_eq!(stage.begin(&of_life(6, 1, NOW)), Ok(Found::Running));
        // What ran in an earlier life of the daemon runs no more.
        let mut stage = stage.restart();
        assert_eq!(stage.begin(&of_life(100, 1, NOW)), Ok(Found::New));
        assert_eq!(code(stage.begin(&of_life(0, 1, NOW))), Some(ErrorCode::Indeterminate));
    }

    #[test]
    fn outcomes_that_nobody_asks_for_make_room_for_another_list() {
        let mut stage = Stage::new();
        for number in 1..=MAX_COMMANDS {
            assert_eq!(stage.begin(&of_life(1, number, NOW)), Ok(Found::New));
            stage.finish(&of_life(1, number, NOW), b"done");
        }
        assert_eq!(stage.begin(&of_life(1, MAX_COMMANDS + 1, NOW)), Err(ErrorCode::Busy), "it speaks still");
        assert_eq!(stage.begin(&of_life(2, 1, NOW)), Ok(Found::New));
        assert_eq!(code(stage.begin(&of_life(1, MAX_COMMANDS, NOW))), Some(ErrorCode::Indeterminate));
        assert_eq!(stage.begin(&of_life(1, MAX_COMMANDS + 1, NOW)), Ok(Found::New));
    }

    #[test]
    fn names_of_lives_have_a_bound_and_are_forgotten_after_a_month() {
        let mut stage = Stage::new();
        let fill = |transaction: &Transaction<'_>| {
            for life in 0..MAX_NAMES {
                hear(transaction, &PHONE, &of_life(life, 1, NOW), NOW)?;
            }
            Ok(())
        };
        stage.commands.step(fill).unwrap();
        let new = |at| of_life(MAX_NAMES, 1, at);
        assert_eq!(stage.begin_at(&new(NOW), NOW), Err(ErrorCode::TooMany));
        assert_eq!(stage.begin(&of_life(7, 1, NOW)), Ok(Found::New), "one that is known");
        stage.finish(&of_life(7, 1, NOW), b"done");
        let later = NOW + 30 * DAY;
        assert_eq!(stage.begin_at(&new(later), later), Err(ErrorCode::TooMany));
        // One that speaks is not forgotten, however long it was silent: what it was not told it may still ask for.
        let later = later + 1;
        assert_eq!(stage.begin_at(&of_life(7, 1, NOW), later), Ok(Found::Outcome(b"done".to_vec())));
        assert_eq!(stage.begin_at(&new(later), later), Ok(Found::New));
        let names = |stage: &Stage, life: u64| known(&stage.commands.database, &PHONE, &of_life(life, 1, NOW).life);
        assert!(names(&stage, 0).unwrap().is_none(), "the oldest one had to go");
        assert!(names(&stage, 1).unwrap().is_some(), "and no other");
    }

    #[test]
    fn a_file_of_the_version_before_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("commands.db");
        file::make_private(&path).unwrap();
        let old = Connection::open(&path).unwrap();
        old.execute_batch(&SCHEMA.replace("        forgotten INTEGER NOT NULL DEFAULT 0,\n", "")).unwrap();
        assert!(old.prepare("SELECT forgotten FROM lives").is_err());
        old.pragma_update(None, "user_version", 1).unwrap();
        let insert = "INSERT INTO lives VALUES (?1, ?2, 0, ?3)";
        old.execute(insert, params![PHONE, command(1).life, NOW]).unwrap();
        let insert = "INSERT INTO commands VALUES (?1, ?2, 1, ?3, ?4, ?5)";
        old.execute(insert, params![PHONE, command(1).life, WHAT, [9u8; 16], b"done"]).unwrap();
        drop(old);
        for _ in 0..2 {
            let mut commands = CommandsFile::open(&path, [1; 16]).unwrap();
            let found = commands.begin(&PHONE, &command(1), &WHAT, NOW).unwrap();
            assert_eq!(found, Found::Outcome(b"done".to_vec()));
        }
        let newer = Connection::open(&path).unwrap();
        newer.pragma_update(None, "user_version", VERSION + 1).unwrap();
        drop(newer);
        assert!(CommandsFile::open(&path, [1; 16]).err().unwrap().what.contains("newer version"));
    }

    #[test]
    fn a_long_outcome_is_told_once() {
        let mut stage = Stage::new();
        assert_eq!(stage.begin(&command(1)), Ok(Found::New));
        stage.finish(&command(1), &[b'x'; 16 * 1024 + 1]);
        assert_eq!(stage.begin(&command(2)), Ok(Found::New));
        stage.finish(&command(2), &[b'x'; 16 * 1024]);
        assert_eq!(stage.begin(&command(2)), Ok(Found::Outcome(vec![b'x'; 16 * 1024])));
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
