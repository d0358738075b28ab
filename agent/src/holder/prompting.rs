//! The question with which the program waits for a person: seen once the screen is quiet, answered once, and only while it stands there
//! (`docs/PROMPTS.md`). What a question looks like is the business of [`crate::prompt`].

use std::time::Duration;

use happy_crypto::labelled_hash;
use happy_rpc::{Prompt, PromptAnswered, PromptChoice, PromptEnd, PromptKind, PromptSource};
use happy_screen::keys::{self, Key, KeyCode};
use happy_screen::{Feed, Screen};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::protocol::{Ended, Refusal, refusal};
use super::server::Holder;
use super::spec::unix_ms;
use crate::prompt::{self, Choice, Found, MAX_QUESTION, Tty, View};

/// The screen is looked at when the program has printed nothing for so long: programs draw a question in several writes.
pub const QUIET: Duration = Duration::from_millis(400);

/// A program that never rests (it turns a spinner beside its question) is looked at so often, and must show the same twice.
const RESTLESS: Duration = Duration::from_secs(2);

/// After an answer, or a key, the same question is none for so long, unless the screen has shown something else: the program may still be at work
/// with it while its clock or its spinner goes on.
pub const SETTLED: Duration = Duration::from_secs(5);

/// A bell so soon after a key is about that key: shells ring when there is nothing to complete.
const BELL_OF_KEY: Duration = Duration::from_secs(2);

/// What a terminal reports by itself when its window is entered or left: nobody typed that.
const FOCUS: [&[u8]; 2] = [b"\x1b[I", b"\x1b[O"];

/// What is known of the question of a session.
pub struct Prompting {
    waiting: Option<Prompt>,
    ended: Option<Ended>,
    /// The program has called for somebody since anybody typed: with these words.
    called: Option<(PromptSource, String)>,
    /// Enter follows if this stands before the cursor when the screen is quiet, and the terminal is as it was: what was typed was shown,
    /// and nothing else.
    enter_after: Option<(Tty, String)>,
    /// Nothing is a question before the program prints again: somebody has answered in the terminal, and it may think about it.
    is_typed_at: bool,
    /// The words of the question that waits.
    words: Option<[u8; 16]>,
    /// The words that were answered, and from when on they may be asked again.
    settled: Option<([u8; 16], Instant)>,
    /// What was seen, if anything, while the program did not rest.
    glimpse: Option<Option<[u8; 16]>>,
    /// A look is due, though not before `not_before`.
    is_due: bool,
    not_before: Option<Instant>,
    due_since: Instant,
    printed_at: Instant,
    typed_at: Option<Instant>,
}

/// What another program is told of it.
#[derive(Default, Serialize, Deserialize)]
pub struct Saved {
    waiting: Option<Prompt>,
    ended: Option<Ended>,
    called: Option<(PromptSource, String)>,
    enter_after: Option<(Tty, String)>,
    is_typed_at: bool,
    #[serde(default)]
    words: Option<[u8; 16]>,
    #[serde(default)]
    settled: Option<[u8; 16]>,
}

impl Default for Prompting {
    fn default() -> Self {
        Self::resume(Saved::default())
    }
}

/// An answer as a holder is asked to give it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// To which prompt.
    pub prompt: Uuid,
    /// Which choice, from 0.
    pub choice: u32,
    /// Who answers, for people.
    pub by: String,
    /// Unix milliseconds; later it is not given any more.
    #[serde(default)]
    pub until: Option<u64>,
}

/// What the terminal is like when somebody answers.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// How it treats what is typed.
    pub tty: Tty,
    /// The program has not read all that was typed.
    pub is_unread: bool,
    /// Unix milliseconds.
    pub now: u64,
}

impl Prompting {
    /// What another program is told.
    pub fn save(&self) -> Saved {
        Saved {
            waiting: self.waiting.clone(),
            ended: self.ended.clone(),
            called: self.called.clone(),
            enter_after: self.enter_after.clone(),
            is_typed_at: self.is_typed_at,
            words: self.words,
            settled: self.settled.map(|(question, _)| question),
        }
    }

    /// Goes on where another program was.
    pub fn resume(saved: Saved) -> Self {
        let now = Instant::now();
        Self {
            waiting: saved.waiting,
            ended: saved.ended,
            called: saved.called,
            enter_after: saved.enter_after,
            is_typed_at: saved.is_typed_at,
            words: saved.words,
            settled: saved.settled.map(|question| (question, now + SETTLED)),
            glimpse: None,
            not_before: None,
            // What was printed last may not have been looked at.
            is_due: true,
            due_since: now,
            printed_at: now,
            typed_at: None,
        }
    }

    /// The question that waits.
    pub fn waiting(&self) -> Option<&Prompt> {
        self.waiting.as_ref()
    }

    /// How the last one ended.
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// The program has printed. Whether a look became due that was not.
    pub fn on_output(&mut self, fed: &Feed) -> bool {
        self.printed_at = Instant::now();
        self.not_before = None;
        self.is_typed_at = false;
        if fed.bell || fed.notice.is_some() {
            let of_key = self.typed_at.is_some_and(|at| self.printed_at.duration_since(at) < BELL_OF_KEY);
            match &fed.notice {
                Some(notice) => self.called = Some((PromptSource::Notification, prompt::cut(notice, MAX_QUESTION))),
                None if self.called.is_none() && !of_key => {
                    self.called = Some((PromptSource::Notification, "The program rings its bell.".to_owned()));
                }
                None => {}
            }
        }
        self.look_soon()
    }

    /// The program has told by another way that somebody is needed. Whether a look became due that was not.
    pub fn on_called(&mut self, text: &str) -> bool {
        self.called = Some((PromptSource::Hook, prompt::cut(text, MAX_QUESTION)));
        self.look_soon()
    }

    /// Lets the screen be looked at when it is quiet. Whether that was not to be done anyway.
    fn look_soon(&mut self) -> bool {
        if self.is_due {
            return false;
        }
        self.due_since = Instant::now();
        std::mem::replace(&mut self.is_due, true) != self.is_due
    }

    /// Somebody types. Whether a prompt ended by that.
    pub fn on_typed(&mut self, bytes: &[u8]) -> bool {
        if bytes.is_empty() || FOCUS.contains(&bytes) {
            return false;
        }
        self.typed_at = Some(Instant::now());
        self.is_typed_at = true;
        self.called = None;
        self.enter_after = None;
        self.settle();
        self.end(PromptEnd::Typed)
    }

    /// The program has ended. Whether a prompt ended by that.
    pub fn on_exit(&mut self) -> bool {
        self.called = None;
        self.enter_after = None;
        self.end(PromptEnd::Gone)
    }

    /// The question that waits is taken for answered.
    fn settle(&mut self) {
        if let Some(words) = self.words.take() {
            self.settled = Some((words, Instant::now() + SETTLED));
        }
    }

    fn end(&mut self, end: PromptEnd) -> bool {
        let Some(waiting) = self.waiting.take() else { return false };
        self.ended = Some(Ended { prompt: waiting.id, end });
        true
    }

    /// When the screen is to be looked at; `None` when it need not be.
    fn due(&self) -> Option<Instant> {
        let due = self.is_due.then(|| (self.printed_at + QUIET).min(self.due_since + RESTLESS))?;
        Some(self.not_before.map_or(due, |at| due.max(at)))
    }

    /// Looks at the screen. Whether the prompt has changed, and what is to be typed.
    pub fn look(&mut self, screen: &Screen, tty: Tty) -> (bool, Option<Vec<u8>>) {
        let is_quiet = self.printed_at.elapsed() >= QUIET;
        self.is_due = false;
        self.not_before = None;
        if !is_quiet {
            self.look_soon();
        }
        let view = View::of(screen, tty);
        if self.is_typed_at {
            return (false, None);
        }
        let wanted = self.enter_after.take();
        let shown = wanted.is_some_and(|(before, wanted)| before == tty && wanted.trim_end() == view.typed_line());
        let enter = shown.then(|| keys::encode(screen.modes(), Key::from(KeyCode::Enter)));
        let mut found = prompt::find(&view);
        let mut hash = found.as_ref().map(|found| hash(found, screen));
        let words = found.as_ref().map(words);
        match self.settled {
            Some((answered, until)) if words == Some(answered) && Instant::now() < until => {
                (found, hash) = (None, None);
                self.look_soon();
                self.not_before = Some(until);
            }
            _ => self.settled = None,
        }
        if is_quiet {
            self.glimpse = None;
        } else {
            // Between two writes half a question may stand there.
            let before = self.glimpse.replace(hash);
            if before != Some(hash) {
                return (false, enter);
            }
        }
        let now = match (found, hash) {
            (Some(found), Some(hash)) => Some(self.prompt(&found, hash, screen)),
            _ => self.somebody(screen),
        };
        let is_same = match (&self.waiting, &now) {
            (Some(before), Some(now)) => before.screen == now.screen && before.kind == now.kind,
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            self.end(PromptEnd::Gone);
            self.words = words.filter(|_| now.as_ref().is_some_and(|now| now.kind != PromptKind::Somebody));
            self.waiting = now;
        }
        (!is_same, enter)
    }

    fn prompt(&self, found: &Found, hash: [u8; 16], screen: &Screen) -> Prompt {
        let text = |choice: &Choice| String::from_utf8_lossy(&choice.bytes(screen.modes())).into_owned();
        Prompt {
            id: Uuid::new_v4(),
            session: Uuid::nil(),
            source: self.called.as_ref().map_or(PromptSource::Screen, |(source, _)| *source),
            kind: found.kind,
            question: found.question.clone(),
            choices: found
                .choices
                .iter()
                .map(|choice| PromptChoice { label: choice.label.clone(), keys: text(choice) })
                .collect(),
            screen: hex(&hash),
            appeared_at: unix_ms(),
            expires_at: None,
        }
    }

    /// The program calls, and what it asks is not seen. It has to be seen to for as long as its screen stays as it is.
    fn somebody(&mut self, screen: &Screen) -> Option<Prompt> {
        let (source, words) = self.called.clone()?;
        let shown = labelled_hash("happy prompt", &[screen.text().as_bytes()]);
        let shown = hex(&first(shown));
        let changed = |waiting: &Prompt| waiting.kind == PromptKind::Somebody && waiting.screen != shown;
        if self.waiting.as_ref().is_some_and(changed) {
            self.called = None;
            return None;
        }
        Some(Prompt {
            id: Uuid::new_v4(),
            session: Uuid::nil(),
            source,
            kind: PromptKind::Somebody,
            question: words,
            choices: Vec::new(),
            screen: shown,
            appeared_at: unix_ms(),
            expires_at: None,
        })
    }

    /// Gives an answer: what is to be typed for it, at once. The screen is what the program has printed up to now.
    ///
    /// # Errors
    /// A [`Refusal`] that says why not; nothing is to be typed then.
    pub fn answer(&mut self, answer: &Answer, screen: &Screen, moment: Moment) -> Result<Vec<u8>, Refusal> {
        let conflict = |why: &str| Err(Refusal::new(refusal::CONFLICT, why));
        if answer.until.is_some_and(|until| until < moment.now) {
            return Err(Refusal::new(refusal::EXPIRED, "the answer came later than it was wanted, and was not given"));
        }
        let Some(waiting) = self.waiting.as_ref().filter(|waiting| waiting.id == answer.prompt) else {
            return Err(self.not_waiting(answer.prompt));
        };
        if waiting.choices.is_empty() {
            return Err(Refusal::new(refusal::NOT_FOUND, "the prompt has no choices; it is answered in the session"));
        }
        if moment.is_unread {
            return conflict("no longer waiting: the program has not read yet what was typed before");
        }
        let view = View::of(screen, moment.tty);
        let Some(found) = prompt::find(&view).filter(|found| hex(&hash(found, screen)) == waiting.screen) else {
            self.end(PromptEnd::Gone);
            self.look_soon();
            return conflict("no longer waiting: the screen shows something else by now");
        };
        let Some(choice) = found.choices.get(answer.choice as usize) else {
            return Err(Refusal::new(refusal::NOT_FOUND, "the prompt has no such choice; look at it again"));
        };
        let keys = choice.bytes(screen.modes());
        let shown = || view.typed_line().to_owned() + view.gap() + &String::from_utf8_lossy(&keys);
        self.enter_after = choice.enter_if_shown.then(|| (moment.tty, shown()));
        let answered = PromptAnswered {
            prompt: answer.prompt,
            label: choice.label.clone(),
            by: answer.by.clone(),
            at: moment.now,
        };
        self.called = None;
        self.settle();
        // The program may think about it, and its screen stays as it is meanwhile.
        self.is_typed_at = true;
        self.typed_at = Some(Instant::now());
        self.end(PromptEnd::Answered(answered));
        Ok(keys)
    }

    fn not_waiting(&self, prompt: Uuid) -> Refusal {
        let why = match self.ended.as_ref().filter(|ended| ended.prompt == prompt).map(|ended| &ended.end) {
            Some(PromptEnd::Answered(answered)) => format!("{} has answered already: {}", answered.by, answered.label),
            Some(PromptEnd::Typed) => "no longer waiting: somebody typed into the session".to_owned(),
            Some(PromptEnd::Gone | PromptEnd::Expired) => "no longer waiting: it is not asked any more".to_owned(),
            None => return Refusal::new(refusal::NOT_FOUND, "there is no such prompt, or it has ended"),
        };
        Refusal::new(refusal::CONFLICT, why)
    }
}

/// The same for the same question, choices and keys, in the same dialog.
fn hash(found: &Found, screen: &Screen) -> [u8; 16] {
    let mut parts = vec![vec![found.kind as u8], found.question.clone().into_bytes(), found.seen.clone().into_bytes()];
    for choice in &found.choices {
        parts.push(choice.label.clone().into_bytes());
        parts.push(choice.bytes(screen.modes()));
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    first(labelled_hash("happy prompt", &parts))
}

/// The same for what people would take for the same question, whatever stands around it.
fn words(found: &Found) -> [u8; 16] {
    let question = match found.is_line {
        true => found.question.lines().next_back().unwrap_or_default(),
        false => &found.question,
    };
    let labels = found.choices.iter().map(|choice| choice.label.as_bytes());
    let kind = [found.kind as u8];
    let parts: Vec<&[u8]> = [&kind[..], question.as_bytes()].into_iter().chain(labels).collect();
    first(labelled_hash("happy prompt words", &parts))
}

fn first(hash: [u8; 32]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&hash[..16]);
    first
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Looks at the screen whenever it has become quiet; waits, and wakes nobody, while nothing is printed.
pub async fn watch(holder: &Holder) {
    if holder.is_guest {
        // The screen of a client of tmux shows more than one program.
        return;
    }
    let wakes = holder.state.borrow().wakes();
    loop {
        let due = holder.state.borrow().prompting().due();
        match due {
            None => wakes.look.notified().await,
            Some(at) if at <= Instant::now() => holder.look(),
            Some(at) => sleep_until(at).await,
        }
    }
}
