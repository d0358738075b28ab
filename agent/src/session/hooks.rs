//! Prompts that programs tell of by themselves, through `happy hook`: they wait for an answer for a while, and ask in their terminal when
//! none comes. While one waits, what is read from the screen of its session is not told.

use std::sync::Arc;
use std::time::Duration;

use happy_rpc::{Event, Prompt, PromptAnswer, PromptAnswered, PromptChoice, PromptEnd, PromptKind, PromptSource};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::{ControlError, Entry, Sessions, Shared, ask};
use crate::holder::prompting::SETTLED;
use crate::holder::protocol::{Refusal, Request, refusal};
use crate::holder::spec::unix_ms;
use crate::prompt::{MAX_CHOICES, MAX_LABEL, MAX_QUESTION, cut};

/// The longest that a program may be kept waiting.
pub const MAX_WAIT: Duration = Duration::from_secs(600);

/// Questions of one session at once: agents ask for several tools at a time.
const MAX_HOOKS: usize = 8;

/// What people are told when a prompt waits no more.
pub(super) fn ended(prompt: &Prompt, end: PromptEnd) -> Event {
    Event::PromptEnded { prompt: prompt.id, session: prompt.session, end }
}

/// A program that waits.
pub(super) struct Hook {
    prompt: Prompt,
    answer: oneshot::Sender<(u32, PromptAnswered)>,
}

impl Sessions {
    /// Asks people on behalf of a program in a session; the number of the choice, from 0, and who chose. `None` when nobody did in time, or
    /// the program (`gone` closes) waits no longer.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn ask_people(
        &self,
        session: Uuid,
        question: &str,
        choices: &[String],
        wait: Duration,
        mut gone: watch::Receiver<()>,
    ) -> Result<Option<(u32, PromptAnswered)>, ControlError> {
        let is_whole = question.len() <= MAX_QUESTION && choices.iter().all(|label| label.len() <= MAX_LABEL);
        if !is_whole || choices.len() > MAX_CHOICES {
            // Nobody is asked about what cannot be shown whole; the program asks in its terminal.
            return Ok(None);
        }
        let wait = wait.min(MAX_WAIT);
        let choices = choices.iter();
        let choices = choices.map(|label| PromptChoice { label: label.clone(), keys: String::new() });
        let now = unix_ms();
        let prompt = Prompt {
            id: Uuid::new_v4(),
            session,
            source: PromptSource::Hook,
            kind: PromptKind::Numbers,
            question: question.to_owned(),
            choices: choices.collect(),
            screen: String::new(),
            appeared_at: now,
            expires_at: Some(now.saturating_add(wait.as_millis() as u64)),
        };
        let id = prompt.id;
        let mut answered = self.shared.begin_hook(prompt)?;
        let end = tokio::select! {
            outcome = &mut answered => return Ok(outcome.ok()),
            () = tokio::time::sleep(wait) => PromptEnd::Expired,
            _ = gone.changed() => PromptEnd::Gone,
        };
        match self.shared.end_hook(id, end) {
            true => Ok(None),
            // Somebody answered in that moment.
            false => Ok(answered.await.ok()),
        }
    }

    /// A program in a session has told that it needs somebody.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn call_people(&self, session: Uuid, text: &str) -> Result<(), ControlError> {
        let holder = self.shared.holder(session)?;
        ask(&holder, Request::Call { text: cut(text, MAX_QUESTION) }).await.map(drop)
    }
}

impl Shared {
    fn begin_hook(&self, prompt: Prompt) -> Result<oneshot::Receiver<(u32, PromptAnswered)>, ControlError> {
        let mut entries = self.entries();
        let entry = entries.get_mut(&prompt.session).ok_or(ControlError::NoSession)?;
        if entry.holder.is_none() {
            return Err(ControlError::HolderGone);
        }
        if entry.hooks.len() >= MAX_HOOKS {
            let message = format!("{MAX_HOOKS} questions of this session wait already");
            return Err(Refusal::new(refusal::TOO_MANY, message).into());
        }
        let (answer, answered) = oneshot::channel();
        let mut told: Vec<Event> = entry.guess().map(|guess| ended(guess, PromptEnd::Gone)).into_iter().collect();
        told.push(Event::PromptAppeared(prompt.clone()));
        entry.hooks.push(Hook { prompt, answer });
        self.tell(entry, told);
        Ok(answered)
    }

    /// Ends one that was not answered; whether it was still there.
    fn end_hook(&self, id: Uuid, end: PromptEnd) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.values_mut().find(|entry| entry.hook(id).is_some()) else { return false };
        self.take_hook(entry, id, end).is_some()
    }

    fn take_hook(&self, entry: &mut Entry, id: Uuid, end: PromptEnd) -> Option<Hook> {
        let at = entry.hooks.iter().position(|hook| hook.prompt.id == id)?;
        let hook = entry.hooks.remove(at);
        if let (PromptEnd::Answered(_), Some(guess)) = (&end, &entry.prompt) {
            // A program may ask in its terminal too, and has not taken away yet what was answered here.
            entry.held = Some((guess.id, Instant::now() + SETTLED));
        }
        let mut told = vec![ended(&hook.prompt, end)];
        // What stands on the screen is told again.
        told.extend(entry.guess().cloned().map(Event::PromptAppeared));
        self.tell(entry, told);
        Some(hook)
    }

    fn tell(&self, entry: &mut Entry, told: Vec<Event>) {
        let waits = entry.prompts().next().map(|prompt| prompt.id);
        entry.session.prompt = waits;
        let _ = self.events.send(Event::SessionChanged(entry.session.clone()));
        for event in told {
            let _ = self.events.send(event);
        }
    }

    /// What stands on the screen is told, although a hook was answered while it stood there: the program has had the time to take it away.
    /// Not when another one was answered since.
    fn release(&self, session: Uuid, held: (Uuid, Instant)) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&session).filter(|entry| entry.held == Some(held)) else { return };
        entry.held = None;
        let told = entry.guess().cloned().map(Event::PromptAppeared);
        self.tell(entry, told.into_iter().collect());
    }

    /// Gives an answer to a program that waits, if that is whose prompt it is.
    pub(super) fn answer_hook(
        self: &Arc<Self>,
        answer: &PromptAnswer,
        by: &str,
    ) -> Option<Result<PromptAnswered, ControlError>> {
        let mut entries = self.entries();
        let entry = entries.values_mut().find(|entry| entry.hook(answer.prompt).is_some())?;
        let now = unix_ms();
        let refused = |code, why: &str| Some(Err(Refusal::new(code, why).into()));
        if answer.until.is_some_and(|until| until < now) {
            return refused(refusal::EXPIRED, "the answer came later than it was wanted, and was not given");
        }
        let label =
            entry.hook(answer.prompt)?.prompt.choices.get(answer.choice as usize).map(|choice| choice.label.clone());
        let Some(label) = label else {
            return refused(refusal::NOT_FOUND, "the prompt has no such choice; look at it again");
        };
        let answered = PromptAnswered { prompt: answer.prompt, label, by: by.to_owned(), at: now };
        let hook = self.take_hook(entry, answer.prompt, PromptEnd::Answered(answered.clone()))?;
        if let Some(held) = entry.held {
            let (shared, session) = (Arc::clone(self), hook.prompt.session);
            tokio::spawn(async move {
                tokio::time::sleep_until(held.1).await;
                shared.release(session, held);
            });
        }
        match hook.answer.send((answer.choice, answered.clone())) {
            Ok(()) => Some(Ok(answered)),
            Err(_) => refused(refusal::CONFLICT, "no longer waiting: the program is gone"),
        }
    }
}

impl Entry {
    fn hook(&self, id: Uuid) -> Option<&Hook> {
        self.hooks.iter().find(|hook| hook.prompt.id == id)
    }

    /// The programs that wait are told that nobody answers them; what is to be told of that.
    pub(super) fn end_hooks(&mut self, end: &PromptEnd) -> Vec<Event> {
        std::mem::take(&mut self.hooks).into_iter().map(|hook| ended(&hook.prompt, end.clone())).collect()
    }

    /// The session has ended or is gone: nothing of it waits any more. What is to be told of that.
    pub(super) fn end_prompts(&mut self) -> Vec<Event> {
        let guess = self.guess().map(|guess| ended(guess, PromptEnd::Gone));
        self.prompt = None;
        self.session.prompt = None;
        self.end_hooks(&PromptEnd::Gone).into_iter().chain(guess).collect()
    }

    /// What waits, as people are told: what the program says, or else what its screen looks like.
    pub(super) fn prompts(&self) -> impl Iterator<Item = &Prompt> {
        self.hooks.iter().map(|hook| &hook.prompt).chain(self.guess())
    }

    /// What its screen looks like, if that is told.
    pub(super) fn guess(&self) -> Option<&Prompt> {
        self.prompt.as_ref().filter(|guess| self.hooks.is_empty() && self.held.is_none_or(|(held, _)| held != guess.id))
    }
}
