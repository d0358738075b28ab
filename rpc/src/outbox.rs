//! The commands that a person has given on a device and whose outcome the device does not have yet, or has not shown for long.
//!
//! Nothing here waits, sends or stores. Whoever owns an [`Outbox`] stores [`Outbox::to_bytes`] after each change, says so with
//! [`Outbox::stored`], sends what [`Outbox::next`] gives, and tells what came of it. A restart in between costs nothing: what may have been
//! sent is asked for again under its old number, and the machine knows what it has done. So that nobody takes back, or calls expired,
//! what a machine may have done already, a command is sent only when it is stored that it may have been ([`Outbox::claim`]).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{CallError, Command, ErrorCode, Request};

/// Commands that wait or are shown. A person who has given so many without an answer has to wait.
pub const MAX_ENTRIES: usize = 256;
/// What they may weigh in all, bytes of JSON: four of the largest.
pub const MAX_BYTES: usize = 1024 * 1024;
/// How long an outcome is shown, ms.
pub const SHOWN_MS: u64 = 24 * 3600 * 1000;
/// How long a machine that has too much to do is left alone, ms.
const BUSY_MS: u64 = 3_000;
/// What this version writes.
const VERSION: u32 = 1;

/// What became of a command so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum EntryState {
    /// It is not stored yet: a crash now would lose it.
    Draft,
    /// It waits for a connection, or for its turn.
    Queued,
    /// It is on its way.
    Sent,
    /// The machine has it.
    Delivered,
    /// The machine has done it.
    Done,
    /// The machine has refused it, or could not do it.
    Failed {
        /// Why.
        error: CallError,
    },
    /// The machine ended while it ran it: it was done, or not, or in part.
    Indeterminate {
        /// What the machine says.
        error: CallError,
    },
    /// Its time passed before it was begun.
    Expired,
    /// The person took it back before it was sent.
    Cancelled,
}

impl EntryState {
    fn waits(&self) -> bool {
        matches!(self, EntryState::Draft | EntryState::Queued)
    }

    /// Whether nothing will change any more.
    pub fn is_final(&self) -> bool {
        !matches!(self, EntryState::Draft | EntryState::Queued | EntryState::Sent | EntryState::Delivered)
    }
}

/// One command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Entry {
    /// Its number in this outbox.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub number: u64,
    /// For which machine, as its device id.
    pub machine: String,
    /// What it is about: the commands of one machine about the same session, or about none, go one after the other.
    #[cfg_attr(feature = "typescript", ts(type = "string | null"))]
    pub session: Option<Uuid>,
    /// What shall be done.
    #[cfg_attr(feature = "typescript", ts(type = "unknown"))]
    pub request: Request,
    /// When it was given, Unix ms by this device's clock.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub given_at: u64,
    /// Later it shall not begin, Unix ms by this device's clock.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub until: u64,
    /// What became of it.
    pub state: EntryState,
    /// When that was known for good, Unix ms.
    #[cfg_attr(feature = "typescript", ts(type = "number | null"))]
    pub ended_at: Option<u64>,
    /// It is about to be sent, or was in some life of this device: the machine may know it.
    asked: bool,
    /// Which claim says so in this life; it counts when that is stored. 0 for what was read as asked.
    #[serde(skip)]
    claim: u64,
    /// The machine had too much to do: it is not asked again before, Unix ms.
    #[serde(skip)]
    not_before: u64,
}

impl Entry {
    /// Whether the machine may know it, as far as this device has noted: it is no longer taken back.
    pub fn is_asked(&self) -> bool {
        self.asked
    }
}

/// Why a command was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxError {
    /// Too many wait, or too much.
    Full,
}

impl std::fmt::Display for OutboxError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("too much waits to be sent already; take something back, or wait for the connection")
    }
}

impl std::error::Error for OutboxError {}

/// The bytes that were stored are none of an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnOutbox;

impl std::fmt::Display for NotAnOutbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the stored list of commands cannot be read")
    }
}

impl std::error::Error for NotAnOutbox {}

/// The commands of a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outbox {
    version: u32,
    life: String,
    next: u64,
    /// The list was restored from an old copy: its numbers belong to other commands.
    #[serde(default)]
    reused: bool,
    entries: Vec<Entry>,
    /// Claims that were made in this life.
    #[serde(skip)]
    claims: u64,
    #[serde(skip)]
    stored: Mark,
}

/// How far a stored outbox reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    /// It holds every command up to this.
    taken: u64,
    /// And every claim up to this.
    claims: u64,
    /// The first command of each machine whose outcome it does not hold.
    open: Vec<(String, u64)>,
}

impl Mark {
    /// Up to which number the outcomes of this machine's commands are known.
    fn done(&self, machine: &str) -> u64 {
        self.open.iter().find(|(of, _)| of == machine).map_or(self.taken, |(_, first)| first - 1)
    }
}

impl Outbox {
    /// An empty one. `life` is 16 random bytes as base64url.
    pub fn new(life: String) -> Self {
        Self { version: VERSION, life, next: 1, reused: false, entries: Vec::new(), claims: 0, stored: Mark::default() }
    }

    /// An empty one without a life: [`Self::begin_anew`] gives it one.
    pub fn nameless() -> Self {
        Self { reused: true, ..Self::new(String::new()) }
    }

    /// Reads what was stored. What was on its way is sent again.
    ///
    /// # Errors
    /// [`NotAnOutbox`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NotAnOutbox> {
        let mut outbox: Self = serde_json::from_slice(bytes).map_err(|_| NotAnOutbox)?;
        let in_order = outbox.entries.is_sorted_by(|one, other| one.number < other.number);
        let numbered = outbox.entries.last().is_none_or(|last| last.number < outbox.next);
        if outbox.version != VERSION || outbox.entries.len() > MAX_ENTRIES || !in_order || !numbered {
            return Err(NotAnOutbox);
        }
        for entry in outbox.entries.iter_mut().filter(|entry| !entry.state.is_final()) {
            entry.state = EntryState::Queued;
        }
        outbox.stored = outbox.mark();
        Ok(outbox)
    }

    /// The number that the next command gets.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// The next command gets this number at least, so that the lists for several machines can be counted as one.
    pub fn count_from(&mut self, number: u64) {
        self.next = self.next.max(number);
    }

    /// The bytes to store.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain data with string keys: serialising it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// How far the bytes reach that [`Self::to_bytes`] gives now.
    pub fn mark(&self) -> Mark {
        let mut open: Vec<(String, u64)> = Vec::new();
        for entry in self.entries.iter().filter(|entry| !entry.state.is_final()) {
            if !open.iter().any(|(machine, _)| *machine == entry.machine) {
                open.push((entry.machine.clone(), entry.number));
            }
        }
        Mark { taken: self.next - 1, claims: self.claims, open }
    }

    /// Bytes that reach so far are stored and will be there after a crash: the commands in them may be sent, and the outcomes in them
    /// need not be asked for again.
    pub fn stored(&mut self, mark: Mark) {
        if mark.taken < self.stored.taken || mark.claims < self.stored.claims {
            // Later bytes are stored already.
            return;
        }
        self.stored = mark;
        let taken = self.stored.taken;
        for entry in self.entries.iter_mut().filter(|entry| entry.number <= taken) {
            if entry.state == EntryState::Draft {
                entry.state = EntryState::Queued;
            }
        }
    }

    /// Whether the machine may know of the command.
    fn may_be_known(&self, entry: &Entry) -> bool {
        entry.asked && entry.claim <= self.stored.claims
    }

    /// The commands whose turn it is at this machine: of those about one session, and of those about none, the first.
    fn turns(&self, machine: &str) -> Vec<u64> {
        let mut busy: Vec<Option<Uuid>> = Vec::new();
        let open = self.entries.iter().filter(|entry| entry.machine == machine && !entry.state.is_final());
        let is_turn = |entry: &&Entry| {
            let is_free = !busy.contains(&entry.session);
            busy.push(entry.session);
            is_free && entry.state.waits()
        };
        open.filter(is_turn).map(|entry| entry.number).collect()
    }

    /// The machine can be reached: the commands whose turn it is are about to be sent. True when that is news, which has to be stored before
    /// [`Self::next`] gives them. Calling it before storing anything else saves a write.
    pub fn claim(&mut self, machine: &str) -> bool {
        let turns = self.turns(machine);
        let claim = self.claims + 1;
        let mut news = false;
        for entry in self.entries.iter_mut().filter(|entry| turns.contains(&entry.number) && !entry.asked) {
            (entry.asked, entry.claim, news) = (true, claim, true);
        }
        self.claims += u64::from(news);
        news
    }

    /// What there is, in the order in which it was given.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Takes a command, to be begun within `within` ms. It is not sent before [`Self::stored`].
    ///
    /// # Errors
    /// [`OutboxError`].
    pub fn add(
        &mut self,
        now: u64,
        machine: &str,
        session: Option<Uuid>,
        request: Request,
        within: u64,
    ) -> Result<u64, OutboxError> {
        let number = self.next;
        let entry = Entry {
            number,
            machine: machine.to_owned(),
            session,
            request,
            given_at: now,
            until: now.saturating_add(within),
            state: EntryState::Draft,
            ended_at: None,
            asked: false,
            claim: 0,
            not_before: 0,
        };
        let weight = |entry: &Entry| serde_json::to_vec(entry).map_or(0, |json| json.len());
        let weighs = weight(&entry);
        let open = self.entries.iter().filter(|entry| !entry.state.is_final());
        if weighs + open.map(weight).sum::<usize>() > MAX_BYTES {
            return Err(OutboxError::Full);
        }
        while self.entries.len() >= MAX_ENTRIES || weighs + self.entries.iter().map(weight).sum::<usize>() > MAX_BYTES {
            // What has ended is only shown, and makes room.
            let ended = self.entries.iter().position(|entry| entry.state.is_final()).ok_or(OutboxError::Full)?;
            self.entries.remove(ended);
        }
        self.next += 1;
        self.entries.push(entry);
        Ok(number)
    }

    /// The next command to send to a machine, and the body of its request. `ahead` is by how many ms the machine's clock is ahead of
    /// this device's, as far as anybody knows.
    ///
    /// Of the commands about one session one is on its way at a time, so that they take effect in order.
    pub fn next(&mut self, machine: &str, now: u64, ahead: i64) -> Option<(u64, Vec<u8>)> {
        self.expire(now);
        let turns = self.turns(machine);
        let can = |entry: &&Entry| {
            entry.state == EntryState::Queued
                && entry.not_before <= now
                && self.may_be_known(entry)
                && turns.contains(&entry.number)
        };
        let number = self.entries.iter().find(can)?.number;
        let (life, done) = (self.life.clone(), self.stored.done(machine).min(number - 1));
        let entry = self.entry_mut(number)?;
        entry.state = EntryState::Sent;
        let until = entry.until.saturating_add_signed(ahead);
        let command = Command { life, number, done, until, given_at: entry.given_at };
        Some((number, command.name(&entry.request)))
    }

    /// The machine has the request.
    pub fn delivered(&mut self, number: u64) {
        if let Some(entry) = self.entry_mut(number).filter(|entry| entry.state == EntryState::Sent) {
            entry.state = EntryState::Delivered;
        }
    }

    /// The machine has answered. False when nobody waited for that.
    pub fn answered(&mut self, number: u64, now: u64, body: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Answer {
            error: Option<CallError>,
        }
        let mut reused = false;
        let Some(entry) = self.entry_mut(number).filter(|entry| !entry.state.is_final()) else { return false };
        let unreadable = |_| Answer {
            error: Some(CallError::new(ErrorCode::Indeterminate, "the answer of the machine cannot be read")),
        };
        entry.state = match serde_json::from_slice(body).unwrap_or_else(unreadable) {
            Answer { error: None } => EntryState::Done,
            Answer { error: Some(error) } => match error.code {
                ErrorCode::Indeterminate => EntryState::Indeterminate { error },
                ErrorCode::Expired => EntryState::Expired,
                ErrorCode::Reused => {
                    reused = true;
                    EntryState::Failed { error }
                }
                // It is asked again when it has less to do. It knows best whether the time has passed, or whether it was asked before.
                ErrorCode::Busy => {
                    entry.not_before = now + BUSY_MS;
                    EntryState::Queued
                }
                _ => EntryState::Failed { error },
            },
        };
        entry.ended_at = entry.state.is_final().then_some(now);
        self.reused |= reused;
        true
    }

    /// Whether commands can be taken only after [`Self::begin_anew`].
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// This list was restored from an old copy, as far as anybody can tell: what is given from now on belongs to another life, which has
    /// a new name. What still waits was given in the old one and fails; the person gives it again if it is still wanted.
    pub fn begin_anew(&mut self, life: String, now: u64) {
        (self.life, self.reused) = (life, false);
        let message =
            "this device was restored from an old copy of itself; give the command again if it is still wanted";
        self.give_up(&CallError::new(ErrorCode::Reused, message), now);
    }

    /// No command on the list is asked for any more, for this reason: what was never sent has failed, of the rest nobody knows.
    pub fn give_up(&mut self, error: &CallError, now: u64) {
        for entry in self.entries.iter_mut().filter(|entry| !entry.state.is_final()) {
            let error = error.clone();
            entry.state = match entry.asked {
                true => EntryState::Indeterminate { error },
                false => EntryState::Failed { error },
            };
            entry.ended_at = Some(now);
        }
    }

    /// No answer came and none will come over this connection: it is asked again over the next.
    pub fn unanswered(&mut self, number: u64) {
        if let Some(entry) = self.entry_mut(number).filter(|entry| !entry.state.is_final()) {
            entry.state = EntryState::Queued;
        }
    }

    /// Takes a command back. False when it was sent already, or has ended.
    pub fn cancel(&mut self, number: u64, now: u64) -> bool {
        let can = |entry: &&Entry| entry.number == number && entry.state.waits() && !self.may_be_known(entry);
        if !self.entries.iter().any(|entry| can(&entry)) {
            return false;
        }
        let Some(entry) = self.entry_mut(number) else { return false };
        entry.state = EntryState::Cancelled;
        entry.ended_at = Some(now);
        true
    }

    /// Takes a command that has ended off the list. False while it has not.
    pub fn dismiss(&mut self, number: u64) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.number != number || !entry.state.is_final());
        self.entries.len() != before
    }

    /// A machine is no longer known here: nothing of its commands is kept.
    pub fn forget(&mut self, machine: &str) {
        self.entries.retain(|entry| entry.machine != machine);
    }

    /// Time has passed. What was never sent and is late has expired; of what was sent only the machine knows. What ended a day ago is
    /// dropped. True when anything changed.
    pub fn expire(&mut self, now: u64) -> bool {
        let is_late = |entry: &&Entry| entry.state.waits() && entry.until < now && !self.may_be_known(entry);
        let late: Vec<u64> = self.entries.iter().filter(is_late).map(|entry| entry.number).collect();
        for entry in self.entries.iter_mut().filter(|entry| late.contains(&entry.number)) {
            entry.state = EntryState::Expired;
            entry.ended_at = Some(now);
        }
        let changed = !late.is_empty();
        let before = self.entries.len();
        self.entries.retain(|entry| entry.ended_at.is_none_or(|ended| now < ended.saturating_add(SHOWN_MS)));
        changed || self.entries.len() != before
    }

    /// This device's clock was set back by so many ms: what waits is wanted until the same moment as before. Nothing of the kind for a clock
    /// that seems to have been set forward: it may be that the device slept, and the time has passed.
    pub fn clock_set_back(&mut self, by: u64) {
        for entry in self.entries.iter_mut().filter(|entry| !entry.state.is_final()) {
            entry.until = entry.until.saturating_sub(by);
            entry.not_before = entry.not_before.saturating_sub(by);
        }
    }

    fn entry_mut(&mut self, number: u64) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.number == number)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{Call, Done, SessionKill};

    const NOW: u64 = 1_800_000_000_000;

    fn outbox() -> Outbox {
        Outbox::new("A".repeat(22))
    }

    fn kill(number: u128) -> (Option<Uuid>, Request) {
        let session = Uuid::from_u128(number);
        (Some(session), SessionKill { session }.into())
    }

    fn add(outbox: &mut Outbox, session: u128) -> u64 {
        let (session, request) = kill(session);
        let number = outbox.add(NOW, "m", session, request, 60_000).unwrap();
        outbox.stored(outbox.mark());
        number
    }

    /// What is sent when the machine can be reached: what is about to be is stored first.
    fn send(outbox: &mut Outbox, now: u64) -> Option<(u64, Vec<u8>)> {
        outbox.claim("m");
        outbox.stored(outbox.mark());
        outbox.next("m", now, 0)
    }

    fn state(outbox: &Outbox, number: u64) -> EntryState {
        outbox.entries().iter().find(|entry| entry.number == number).unwrap().state.clone()
    }

    fn done() -> Vec<u8> {
        SessionKill::answer(&Ok(Done {}))
    }

    fn refused(code: ErrorCode) -> Vec<u8> {
        crate::refusal(&CallError::new(code, "why"))
    }

    #[test]
    fn commands_about_one_session_go_one_after_the_other_and_others_beside_them() {
        let mut outbox = outbox();
        let [one, two, other] = [1, 1, 2].map(|session| add(&mut outbox, session));
        let mut sent = || std::iter::from_fn(|| send(&mut outbox, NOW)).map(|(number, _)| number).collect::<Vec<_>>();
        assert_eq!(sent(), [one, other]);
        outbox.delivered(one);
        assert_eq!(state(&outbox, one), EntryState::Delivered);
        assert!(outbox.answered(one, NOW, &done()));
        assert!(!outbox.answered(one, NOW, &done()), "there is one answer");
        assert_eq!(send(&mut outbox, NOW).unwrap().0, two);
        assert_eq!(outbox.next("another machine", NOW, 0), None);
    }

    #[test]
    fn a_command_is_not_sent_before_it_is_stored() {
        let mut outbox = outbox();
        let (session, request) = kill(1);
        let before = outbox.mark();
        let number = outbox.add(NOW, "m", session, request, 60_000).unwrap();
        outbox.stored(before);
        assert_eq!(outbox.next("m", NOW, 0), None);
        assert_eq!(state(&outbox, number), EntryState::Draft);
        outbox.stored(outbox.mark());
        assert_eq!(state(&outbox, number), EntryState::Queued);
        assert_eq!(outbox.next("m", NOW, 0), None, "nor before it is stored that it may have been sent");
        assert!(outbox.claim("m"));
        assert!(!outbox.claim("m"), "once is enough");
        assert_eq!(outbox.next("m", NOW, 0), None);
        outbox.stored(outbox.mark());
        assert_eq!(outbox.next("m", NOW, 0).unwrap().0, number);
    }

    /// Otherwise a person would give again what was done already.
    #[test]
    fn what_may_have_been_sent_is_neither_taken_back_nor_called_expired_after_a_crash() {
        let mut outbox = outbox();
        let [sent, waits] = [1, 1].map(|session| add(&mut outbox, session));
        outbox.claim("m");
        assert!(outbox.clone().cancel(sent, NOW), "until that is stored nothing has left");
        outbox.stored(outbox.mark());
        let stored = outbox.to_bytes();
        outbox.next("m", NOW, 0).unwrap();
        let mut again = Outbox::from_bytes(&stored).unwrap();
        assert!(!again.cancel(sent, NOW));
        again.expire(NOW + 100_000);
        assert_eq!((state(&again, sent), state(&again, waits)), (EntryState::Queued, EntryState::Expired));
        assert_eq!(again.next("m", NOW + 100_000, 0).unwrap().0, sent);
    }

    /// Or a machine that is away would fill up what all others remember.
    #[test]
    fn what_is_done_is_told_to_each_machine_whatever_another_has_not_answered() {
        let mut outbox = outbox();
        let (session, request) = kill(9);
        outbox.add(NOW, "away", session, request, 60_000).unwrap();
        outbox.claim("away");
        for session in 1..4 {
            add(&mut outbox, session);
            let (number, body) = send(&mut outbox, NOW).unwrap();
            assert_eq!(Command::of(&body).unwrap().unwrap().done, if session == 1 { 1 } else { number - 1 });
            assert!(outbox.answered(number, NOW, &done()));
        }
    }

    #[test]
    fn what_was_sent_is_asked_for_again_after_a_restart_under_its_number() {
        let mut outbox = outbox();
        let number = add(&mut outbox, 1);
        outbox.claim("m");
        outbox.stored(outbox.mark());
        let (_, body) = outbox.next("m", NOW, 5).unwrap();
        let command = Command::of(&body).unwrap().unwrap();
        assert_eq!((command.number, command.until), (number, NOW + 60_005));
        let mut again = Outbox::from_bytes(&outbox.to_bytes()).unwrap();
        // Later than it was wanted: the machine knows whether it was done, nobody else.
        let late = NOW + 100_000;
        assert!(!again.cancel(number, late));
        assert_eq!(again.next("m", late, 5).unwrap(), (number, body));
        assert!(again.answered(number, late, &refused(ErrorCode::Expired)));
        assert_eq!(state(&again, number), EntryState::Expired);
    }

    #[test]
    fn what_was_never_sent_expires_by_itself_and_can_be_taken_back() {
        let mut outbox = outbox();
        let [late, taken] = [1, 2].map(|session| add(&mut outbox, session));
        assert!(outbox.cancel(taken, NOW));
        assert_eq!(outbox.next("m", NOW + 60_001, 0), None);
        assert_eq!((state(&outbox, late), state(&outbox, taken)), (EntryState::Expired, EntryState::Cancelled));
        assert!(outbox.expire(NOW + SHOWN_MS));
        assert!(outbox.entries().len() == 1, "one ended a minute later");
        assert!(outbox.clone().dismiss(late));
        assert!(outbox.expire(NOW + SHOWN_MS + 60_001));
        assert!(outbox.entries().is_empty());
    }

    #[test]
    fn a_clock_that_is_set_back_gives_no_command_more_time() {
        let mut outbox = outbox();
        let [first, second] = [1, 2].map(|session| add(&mut outbox, session));
        assert!(outbox.cancel(second, NOW));
        let hour = 3_600_000;
        outbox.clock_set_back(hour);
        let until = |number| outbox.entries().iter().find(|entry| entry.number == number).unwrap().until;
        assert_eq!((until(first), until(second)), (NOW - hour + 60_000, NOW + 60_000), "what is over stays as it was");
        // The machine's clock is ahead by as much now, so it is told the same as before.
        outbox.claim("m");
        outbox.stored(outbox.mark());
        let (_, body) = outbox.next("m", NOW - hour, 3_600_000).unwrap();
        let command = Command::of(&body).unwrap().unwrap();
        assert_eq!((command.until, command.given_at), (NOW + 60_000, NOW));
    }

    #[test]
    fn a_machine_that_is_busy_is_asked_again_and_other_refusals_are_final() {
        let mut outbox = outbox();
        let [busy, failed, unknown] = [1, 2, 3].map(|session| add(&mut outbox, session));
        while send(&mut outbox, NOW).is_some() {}
        assert!(outbox.answered(busy, NOW, &refused(ErrorCode::Busy)));
        assert!(outbox.answered(failed, NOW, &refused(ErrorCode::NotFound)));
        assert!(outbox.answered(unknown, NOW, b"nonsense"));
        assert_eq!(state(&outbox, busy), EntryState::Queued);
        assert!(!outbox.dismiss(busy), "it is still wanted");
        assert!(matches!(state(&outbox, failed), EntryState::Failed { error } if error.code == ErrorCode::NotFound));
        assert!(matches!(state(&outbox, unknown), EntryState::Indeterminate { .. }));
        assert_eq!(outbox.next("m", NOW, 0), None, "not at once");
        assert_eq!(outbox.next("m", NOW + BUSY_MS, 0).unwrap().0, busy);
    }

    #[test]
    fn a_list_from_an_old_copy_goes_on_under_another_name() {
        let mut outbox = outbox();
        let [reused, waits] = [1, 1].map(|session| add(&mut outbox, session));
        send(&mut outbox, NOW).unwrap();
        assert!(outbox.answered(reused, NOW, &refused(ErrorCode::Reused)));
        assert!(outbox.is_reused());
        outbox.begin_anew("B".repeat(22), NOW);
        assert!(matches!(state(&outbox, waits), EntryState::Failed { .. }));
        let new = add(&mut outbox, 1);
        let command = Command::of(&send(&mut outbox, NOW).unwrap().1).unwrap().unwrap();
        assert_eq!((command.life, command.number), ("B".repeat(22), new));
    }

    #[test]
    fn a_list_that_is_given_up_says_what_is_known_and_goes_on_counting() {
        let mut outbox = outbox();
        let [sent, waits] = [1, 1].map(|session| add(&mut outbox, session));
        outbox.claim("m");
        outbox.stored(outbox.mark());
        outbox.next("m", NOW, 0).unwrap();
        outbox.give_up(&CallError::new(ErrorCode::NotPermitted, "it is gone"), NOW);
        assert!(matches!(state(&outbox, sent), EntryState::Indeterminate { .. }));
        assert!(matches!(state(&outbox, waits), EntryState::Failed { .. }));
        assert_eq!(outbox.next("m", NOW, 0), None);
        outbox.count_from(9);
        outbox.count_from(5);
        assert_eq!((outbox.next_number(), add(&mut outbox, 1)), (9, 9));
        assert_eq!(Outbox::from_bytes(&outbox.to_bytes()).unwrap().next_number(), 10);
    }

    #[test]
    fn there_is_a_bound_and_what_has_ended_makes_room() {
        let mut outbox = outbox();
        for session in 0..MAX_ENTRIES as u128 {
            add(&mut outbox, session);
        }
        let (session, request) = kill(0);
        assert_eq!(outbox.add(NOW, "m", session, request.clone(), 1), Err(OutboxError::Full));
        assert!(outbox.cancel(7, NOW));
        assert!(outbox.add(NOW, "m", session, request, 1).is_ok());
        assert_eq!(outbox.entries().len(), MAX_ENTRIES);
        let heavy = crate::SessionCreate { command: vec!["x".repeat(MAX_BYTES)], ..Default::default() };
        let mut outbox = Outbox::new("A".repeat(22));
        assert_eq!(outbox.add(NOW, "m", None, heavy.into(), 1), Err(OutboxError::Full));
        // What weighs much and has ended is only shown.
        let half = crate::SessionCreate { command: vec!["x".repeat(MAX_BYTES / 2)], ..Default::default() };
        let first = outbox.add(NOW, "m", None, half.clone().into(), 1).unwrap();
        assert_eq!(outbox.add(NOW, "m", None, half.clone().into(), 1), Err(OutboxError::Full));
        assert!(outbox.cancel(first, NOW));
        assert!(outbox.add(NOW, "m", None, half.into(), 1).is_ok());
    }

    #[test]
    fn bytes_that_are_none_of_ours_are_refused() {
        assert_eq!(Outbox::from_bytes(b"{}"), Err(NotAnOutbox));
        let mut wrong = outbox();
        add(&mut wrong, 1);
        wrong.next = 1;
        assert_eq!(Outbox::from_bytes(&wrong.to_bytes()), Err(NotAnOutbox));
    }

    /// A machine as PROTOCOL 10.2 describes it, and the order in which commands took effect.
    #[derive(Default)]
    struct Machine {
        outcomes: BTreeMap<u64, Vec<u8>>,
        forgotten: u64,
        ran: Vec<u64>,
    }

    impl Machine {
        fn take(&mut self, body: &[u8]) -> (u64, Vec<u8>) {
            let command = Command::of(body).unwrap().unwrap();
            self.forgotten = self.forgotten.max(command.done);
            self.outcomes.retain(|number, _| *number > self.forgotten);
            let number = command.number;
            if number <= self.forgotten {
                return (number, refused(ErrorCode::Indeterminate));
            }
            let ran = &mut self.ran;
            let outcome = self.outcomes.entry(number).or_insert_with(|| {
                ran.push(number);
                done()
            });
            (number, outcome.clone())
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add(u8),
        /// The machine can be reached.
        Claim,
        Send,
        /// One of the requests on their way arrives; the answer comes back, or is lost.
        Arrive {
            pick: usize,
            answered: bool,
        },
        /// The connection is lost with all that is on its way.
        Lose,
        Store,
        /// The device goes on with what was stored last.
        Crash,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..3u8).prop_map(Step::Add),
            3 => Just(Step::Claim),
            4 => Just(Step::Send),
            4 => (any::<usize>(), any::<bool>()).prop_map(|(pick, answered)| Step::Arrive { pick, answered }),
            1 => Just(Step::Lose),
            3 => Just(Step::Store),
            1 => Just(Step::Crash),
        ]
    }

    proptest! {
        /// Whatever is lost: each command takes effect once, those of one session in order, and each ends as done.
        #[test]
        fn each_command_is_done_once_and_in_order(steps in prop::collection::vec(step(), 1..200)) {
            let (mut outbox, mut machine) = (outbox(), Machine::default());
            let mut disk = outbox.to_bytes();
            let mut on_their_way: Vec<Vec<u8>> = Vec::new();
            let mut sessions: BTreeMap<u64, u8> = BTreeMap::new();
            let store = |outbox: &mut Outbox, disk: &mut Vec<u8>| {
                *disk = outbox.to_bytes();
                outbox.stored(outbox.mark());
            };
            for step in steps {
                match step {
                    Step::Add(session) => {
                        let (about, request) = kill(session.into());
                        let number = outbox.add(NOW, "m", about, request, 60_000).unwrap();
                        sessions.insert(number, session);
                    }
                    Step::Claim => drop(outbox.claim("m")),
                    Step::Send => on_their_way.extend(outbox.next("m", NOW, 0).map(|(_, body)| body)),
                    Step::Arrive { pick, answered } if !on_their_way.is_empty() => {
                        let body = on_their_way.remove(pick % on_their_way.len());
                        let (number, outcome) = machine.take(&body);
                        if answered {
                            outbox.answered(number, NOW, &outcome);
                        } else {
                            outbox.unanswered(number);
                        }
                    }
                    Step::Arrive { .. } => {}
                    Step::Lose => {
                        for body in on_their_way.drain(..) {
                            outbox.unanswered(Command::of(&body).unwrap().unwrap().number);
                        }
                    }
                    Step::Store => store(&mut outbox, &mut disk),
                    Step::Crash => {
                        // What was on its way still may arrive, and nobody hears the answer.
                        for body in on_their_way.drain(..) {
                            machine.take(&body);
                        }
                        outbox = Outbox::from_bytes(&disk).unwrap();
                        // What was not stored was not shown as taken.
                        sessions.retain(|number, _| *number <= outbox.stored.taken);
                    }
                }
            }
            store(&mut outbox, &mut disk);
            for body in on_their_way {
                outbox.unanswered(Command::of(&body).unwrap().unwrap().number);
            }
            while let Some((number, body)) = send(&mut outbox, NOW) {
                let (_, outcome) = machine.take(&body);
                outbox.answered(number, NOW, &outcome);
            }
            for entry in outbox.entries() {
                prop_assert_eq!(&entry.state, &EntryState::Done, "{:?}", entry);
            }
            let mut numbers = machine.ran.clone();
            numbers.sort_unstable();
            prop_assert_eq!(numbers, sessions.keys().copied().collect::<Vec<_>>());
            for session in 0..3 {
                let ran: Vec<_> = machine.ran.iter().filter(|number| sessions[number] == session).collect();
                prop_assert!(ran.is_sorted(), "{:?}", ran);
            }
        }
    }
}
