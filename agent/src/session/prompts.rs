//! Prompts of sessions: what the holders say of them, told to everybody, and answers on their way back.

use happy_rpc::{Event, PROMPTS_LISTED, Prompt, PromptAnswer, PromptAnswered, PromptEnd};
use uuid::Uuid;

use super::hooks::ended as ended_event;
use super::{ControlError, Entry, Sessions, ask};
use crate::holder::prompting::Answer;
use crate::holder::protocol::{Ended, Refusal, Request, Status, refusal};

impl Sessions {
    /// The prompts that wait, the oldest first, at most [`PROMPTS_LISTED`].
    pub fn prompts(&self, session: Option<Uuid>) -> Vec<Prompt> {
        let entries = self.shared.entries();
        let listed = entries.iter().filter(|(id, _)| session.is_none_or(|session| session == **id));
        let mut prompts: Vec<Prompt> = listed.flat_map(|(_, entry)| entry.prompts()).cloned().collect();
        drop(entries);
        prompts.sort_by_key(|prompt| (prompt.appeared_at, prompt.id));
        prompts.truncate(PROMPTS_LISTED);
        prompts
    }

    /// How many wait, listed or not.
    pub fn prompts_waiting(&self) -> usize {
        self.shared.entries().values().map(|entry| entry.prompts().count()).sum()
    }

    /// Answers a prompt. What counts is what the holder finds on the screen in the moment in which it types.
    ///
    /// # Errors
    /// [`ControlError`]; nothing was typed then, unless it is [`ControlError::Late`] or [`ControlError::Lost`].
    pub async fn answer(&self, answer: PromptAnswer, by: String) -> Result<PromptAnswered, ControlError> {
        if let Some(outcome) = self.shared.answer_hook(&answer, &by) {
            return outcome;
        }
        let session = {
            let entries = self.shared.entries();
            let is_of = |entry: &Entry| {
                entry.prompt.as_ref().is_some_and(|prompt| prompt.id == answer.prompt)
                    || entry.prompt_ended.as_ref().is_some_and(|ended| ended.prompt == answer.prompt)
            };
            let found = entries.iter().find(|(_, entry)| is_of(entry));
            let is_guess = |entry: &Entry| entry.prompt.as_ref().is_some_and(|prompt| prompt.id == answer.prompt);
            if found.is_some_and(|(_, entry)| !entry.hooks.is_empty() || is_guess(entry) && entry.guess().is_none()) {
                let why = "no longer waiting: the program asks by another way, or was answered in one";
                return Err(Refusal::new(refusal::CONFLICT, why).into());
            }
            found.map(|(id, _)| *id)
        };
        let none = || Refusal::new(refusal::NOT_FOUND, "there is no such prompt, or it has ended");
        let holder = self.shared.holder(session.ok_or_else(none)?)?;
        let PromptAnswer { prompt, choice, until } = answer;
        let status = match ask(&holder, Request::Answer(Answer { prompt, choice, by, until })).await {
            Ok(status) => status,
            // It was asked, and may have typed.
            Err(ControlError::HolderGone | ControlError::Late) => return Err(ControlError::Lost),
            Err(error) => return Err(error),
        };
        match status.prompt_ended {
            Some(Ended { prompt, end: PromptEnd::Answered(answered) }) if prompt == answer.prompt => Ok(answered),
            _ => Err(ControlError::Lost),
        }
    }
}

/// Takes in what a holder says of its prompt; what is to be told of that, in order.
pub(super) fn take_in(entry: &mut Entry, status: &Status) -> Vec<Event> {
    let session = entry.session.id;
    let mut told = Vec::new();
    let now = status.prompt.clone().map(|prompt| Prompt { session, ..prompt });
    let is_same = entry.prompt.as_ref().map(|prompt| prompt.id) == now.as_ref().map(|prompt| prompt.id);
    if !is_same {
        let was_told = entry.guess().is_some();
        let ended = end(entry, status.prompt_ended.as_ref());
        entry.held = None;
        let is_typed = matches!(ended, Some(Event::PromptEnded { end: PromptEnd::Typed, .. }));
        // While the program tells by itself what it asks, a guess is not told.
        if was_told {
            told.extend(ended);
        } else if is_typed && !entry.hooks.is_empty() {
            // Somebody answers in the terminal: Claude Code asks there too, and does not end its hook then.
            told.extend(entry.end_hooks(&PromptEnd::Typed));
        }
        if entry.hooks.is_empty() {
            told.extend(now.clone().map(Event::PromptAppeared));
        }
        entry.prompt = now;
        let waits = entry.prompts().next().map(|prompt| prompt.id);
        entry.session.prompt = waits;
    }
    entry.prompt_ended.clone_from(&status.prompt_ended);
    told
}

/// The prompt of a session does not wait any more.
pub(super) fn end(entry: &mut Entry, ended: Option<&Ended>) -> Option<Event> {
    entry.session.prompt = None;
    let prompt = entry.prompt.take()?;
    let end = ended.filter(|ended| ended.prompt == prompt.id).map_or(PromptEnd::Gone, |ended| ended.end.clone());
    Some(ended_event(&prompt, end))
}
