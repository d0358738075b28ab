//! Promise P1 with real processes: commands take effect once, whoever is killed in between, and each outcome is told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use happy_link::Answer;
use happy_rpc::{EntryState, Outbox, SessionType};
use happy_tests::phone::Phone;
use happy_tests::process::{Home, Relay};
use uuid::Uuid;

/// How many commands wait at a time, at most.
const WAITING: usize = 100;
/// Sessions that append to the file, each one line after the other.
const SESSIONS: usize = 4;
/// A program behind a terminal writes within milliseconds; this turns one that does not into a failure.
const PATIENCE: Duration = Duration::from_secs(20);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A phone that has been asked for lines in a file.
struct Desk {
    phone: Phone,
    outbox: Outbox,
    sessions: Vec<Uuid>,
    given: u64,
    ended: BTreeMap<u64, EntryState>,
}

impl Desk {
    async fn new(machine: &Home, file: &str) -> Result<Desk> {
        let phone = machine.let_pair("owner", "phone").await?;
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            let script = format!("stty -echo; cat >> {file}");
            sessions.push(phone.create(&["sh", "-c", &script]).await?.id);
        }
        let outbox = Outbox::new("commands_of_this_test1".to_owned());
        Ok(Desk { phone, outbox, sessions, given: 0, ended: BTreeMap::new() })
    }

    /// Gives commands, each of which types a line with its number, and calls `meanwhile` with how many have ended.
    async fn give(&mut self, lines: u64, mut meanwhile: impl FnMut(u64) -> Result<bool>) -> Result<()> {
        let machine = self.phone.machine.to_string();
        let mut flying = FuturesUnordered::new();
        while (self.ended.len() as u64) < lines {
            while self.given < lines && self.outbox.entries().iter().filter(|it| !it.state.is_final()).count() < WAITING
            {
                self.given += 1;
                let session = self.sessions[self.given as usize % SESSIONS];
                let text = format!("line {}", self.given);
                let request = SessionType { session, text, enter: true };
                let number = self.outbox.add(now(), &machine, Some(session), request.into(), 600_000)?;
                ensure!(number == self.given, "numbers count up");
            }
            // Memory is what this phone has instead of a disk.
            self.outbox.claim(&machine);
            self.outbox.stored(self.outbox.mark());
            while let Some((number, body)) = self.outbox.next(&machine, now(), 0) {
                let (handle, device) = (self.phone.handle().clone(), self.phone.machine);
                flying
                    .push(async move { (number, handle.command(&device, body, Some(Duration::from_secs(20))).await) });
            }
            tokio::select! {
                Some((number, answer)) = flying.next() => {
                    match answer? {
                        Answer::Body(body) => {
                            self.outbox.answered(number, now(), &body);
                        }
                        _ => self.outbox.unanswered(number),
                    }
                    let state = self.outbox.entries().iter().find(|it| it.number == number).context("an entry")?.state.clone();
                    if state.is_final() {
                        self.ended.insert(number, state);
                        if meanwhile(self.ended.len() as u64)? {
                            // The phone's process dies too: what it had asked, it asks again.
                            flying.clear();
                            self.outbox = Outbox::from_bytes(&self.outbox.to_bytes())?;
                        }
                    }
                }
                event = self.phone.event() => drop(event?),
            }
        }
        Ok(())
    }

    /// The numbers in the file, in their order, once each command that was done has its line: done is what the terminal has
    /// taken, and the program behind it writes when it comes to it. Lines that never come fail the checks of the caller.
    async fn lines(&self, file: &Path) -> Result<Vec<u64>> {
        let done: BTreeSet<u64> =
            self.ended.iter().filter(|(_, state)| **state == EntryState::Done).map(|(number, _)| *number).collect();
        let begun = Instant::now();
        loop {
            let numbers = numbers(file)?;
            if begun.elapsed() > PATIENCE || done.iter().all(|number| numbers.contains(number)) {
                return Ok(numbers);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The numbers in the file, in their order.
fn numbers(file: &Path) -> Result<Vec<u64>> {
    let text = std::fs::read_to_string(file)?;
    // The last line may be on its way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| Ok(line.strip_prefix("line ").context("another line")?.parse()?)).collect()
}

fn check_order(numbers: &[u64]) -> Result<()> {
    for session in 0..SESSIONS as u64 {
        let of_session: Vec<_> = numbers.iter().filter(|number| *number % SESSIONS as u64 == session).collect();
        ensure!(of_session.is_sorted(), "the lines of a session are out of order: {of_session:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_commands_leave_a_thousand_lines_while_the_relay_dies_ten_times() -> Result<()> {
    const LINES: u64 = 1000;
    let mut relay = Relay::start()?;
    let machine = Home::start(&relay.origin())?;
    let file = machine.path().join("lines");
    let mut desk = Desk::new(&machine, &file.display().to_string()).await?;
    let mut kills = 0;
    let meanwhile = |ended: u64| {
        if kills < 10 && ended > (kills + 1) * 85 {
            relay.kill_and_restart()?;
            kills += 1;
        }
        Ok(ended.is_multiple_of(250))
    };
    desk.give(LINES, meanwhile).await?;
    ensure!(kills == 10, "the relay died {kills} times");
    let other = desk.ended.values().find(|state| **state != EntryState::Done);
    ensure!(other.is_none(), "{other:?}");
    let mut numbers = desk.lines(&file).await?;
    check_order(&numbers)?;
    numbers.sort_unstable();
    ensure!(numbers == (1..=LINES).collect::<Vec<_>>(), "{} lines", numbers.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_dies_does_nothing_twice_and_says_what_it_does_not_know() -> Result<()> {
    const LINES: u64 = 300;
    let relay = Relay::start()?;
    let mut machine = Home::start(&relay.origin())?;
    let file = machine.path().join("lines");
    let mut desk = Desk::new(&machine, &file.display().to_string()).await?;
    let mut kills = 0;
    let meanwhile = |ended: u64| {
        if kills < 10 && ended > (kills + 1) * 25 {
            machine.kill_daemon()?;
            machine.start_daemon()?;
            kills += 1;
        }
        Ok(false)
    };
    desk.give(LINES, meanwhile).await?;
    ensure!(kills == 10, "the daemon died {kills} times");
    let numbers = desk.lines(&file).await?;
    check_order(&numbers)?;
    let (mut done, mut unknown) = (0, 0);
    for (number, state) in &desk.ended {
        let lines = numbers.iter().filter(|line| *line == number).count();
        match state {
            EntryState::Done => {
                ensure!(lines == 1, "line {number} is there {lines} times");
                done += 1;
            }
            EntryState::Indeterminate { .. } => {
                ensure!(lines <= 1, "line {number} is there {lines} times");
                unknown += 1;
            }
            other => bail!("line {number} ended as {other:?}"),
        }
    }
    // One command of each session at the most was under way at each death.
    ensure!(unknown <= 10 * SESSIONS, "{unknown} of {done} are unknown");
    Ok(())
}
