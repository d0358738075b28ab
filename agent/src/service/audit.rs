//! What is put down of calls: who, what about, and what became of it; never contents.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use happy_rpc::{CallError, ErrorCount, Request, Standing};
use serde::Deserialize;

use super::{Caller, role_name};
use crate::store::{Audit, AuditEvent, unix_ms};

/// Refusals of one caller that are written in a minute; the rest is counted. A device that asks all day for what it may not have must not push
/// out of the log what others did.
const REFUSALS: u32 = 30;
const MINUTE: Duration = Duration::from_secs(60);
/// Callers whose refusals are counted: all that are connected, and some.
const CALLERS: usize = 1_024;

/// The log of calls, for many at once.
pub struct Auditor {
    audit: Arc<Mutex<Audit>>,
    refusals: Mutex<HashMap<String, (Instant, u32)>>,
    missed: Arc<Mutex<Missed>>,
}

/// What is not in the log, since the daemon started.
#[derive(Debug, Default)]
struct Missed {
    /// The log could not be written.
    unwritten: Option<ErrorCount>,
    /// There were too many refusals.
    left_out: Option<ErrorCount>,
}

fn count(missed: &mut Option<ErrorCount>, what: String, now: u64) {
    let error = missed.get_or_insert_with(|| ErrorCount { what: String::new(), count: 0, first_at: now, last_at: now });
    (error.what, error.count, error.last_at) = (what, error.count.saturating_add(1), now);
}

/// A call that runs.
pub struct Called {
    event: AuditEvent,
    is_audited: bool,
}

impl Called {
    /// As it is about to be made.
    pub fn of(caller: &Caller, request: &Request) -> Called {
        let (who, role) = who(caller);
        let event = event(who, role, request.method(), &about(request));
        Called { event, is_audited: request.is_audited() }
    }
}

fn who(caller: &Caller) -> (String, Option<String>) {
    match (caller.device(), caller.inside()) {
        (Some(device), _) => (device.to_string(), caller.role().map(|role| role_name(role).to_owned())),
        (None, Some(session)) => (format!("inside {session}"), Some(Standing::Inside.name().to_owned())),
        (None, None) => ("local".to_owned(), Some("owner".to_owned())),
    }
}

fn event(who: String, role: Option<String>, method: &str, what: &str) -> AuditEvent {
    let (method, what) = (method.to_owned(), what.to_owned());
    AuditEvent { at: unix_ms(), who, role, method, what, outcome: "ok".to_owned(), missed: 0 }
}

impl Auditor {
    /// Writes to this log.
    pub fn new(audit: Audit) -> Self {
        Self { audit: Arc::new(Mutex::new(audit)), refusals: Mutex::default(), missed: Arc::default() }
    }

    /// What is not in the log since the daemon started, and why.
    pub fn errors(&self) -> Vec<ErrorCount> {
        let missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        [&missed.unwritten, &missed.left_out].into_iter().flatten().cloned().collect()
    }

    /// How many lines could not be written, and how many were left out because there were too many.
    pub fn missed(&self) -> (u64, u64) {
        let missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |error: &Option<ErrorCount>| error.as_ref().map_or(0, |error| error.count);
        (of(&missed.unwritten), of(&missed.left_out))
    }

    /// A call was not allowed.
    pub async fn refused(&self, caller: &Caller, request: &Request, error: &CallError) {
        let called = Called::of(caller, request);
        self.put(AuditEvent { outcome: code(error), ..called.event }).await;
    }

    /// A call was made and has this answer.
    pub async fn answered(&self, called: Called, answer: &[u8]) {
        #[derive(Deserialize)]
        struct Answer {
            error: Option<CallError>,
        }
        // Looking is not put down, only that it was refused; its answers are long, so only what begins as an error is read.
        if !called.is_audited && !answer.starts_with(b"{\"error\"") {
            return;
        }
        let error = serde_json::from_slice::<Answer>(answer).ok().and_then(|answer| answer.error);
        match error {
            None => self.put(called.event).await,
            Some(error) if called.is_audited || is_refusal(&error) => {
                self.put(AuditEvent { outcome: code(&error), ..called.event }).await;
            }
            Some(_) => {}
        }
    }

    /// Something was done that only the person at this machine can do, or was refused.
    pub async fn local(&self, inside: Option<uuid::Uuid>, method: &str, what: &str, refused: Option<&CallError>) {
        let (who, role) = match inside {
            Some(session) => (format!("inside {session}"), Standing::Inside.name()),
            None => ("local".to_owned(), "owner"),
        };
        let event = event(who, Some(role.to_owned()), method, what);
        self.put(AuditEvent { outcome: refused.map_or_else(|| "ok".to_owned(), code), ..event }).await;
    }

    async fn put(&self, event: AuditEvent) {
        let is_too_many = event.outcome != "ok" && self.is_too_many(&event.who);
        let (audit, missed, now) = (self.audit.clone(), self.missed.clone(), event.at);
        let write = move || {
            let mut audit = audit.lock().unwrap_or_else(PoisonError::into_inner);
            if is_too_many {
                audit.leave_out();
                let what = "refused calls are left out of the audit log: one caller was refused too often".to_owned();
                count(&mut missed.lock().unwrap_or_else(PoisonError::into_inner).left_out, what, now);
            } else if let Err(why) = audit.add(event) {
                let what = why.trim_end_matches('.');
                let what = format!("calls are missing in the audit log, which cannot be written: {what}");
                count(&mut missed.lock().unwrap_or_else(PoisonError::into_inner).unwritten, what, now);
            }
        };
        // It waits for the disk. When the process ends meanwhile, the line is there or not, and whole.
        let _ = tokio::task::spawn_blocking(write).await;
    }

    fn is_too_many(&self, who: &str) -> bool {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if refusals.len() >= CALLERS {
            refusals.retain(|_, (since, _)| since.elapsed() < MINUTE);
        }
        if refusals.len() >= CALLERS && !refusals.contains_key(who) {
            return true;
        }
        let (since, count) = refusals.entry(who.to_owned()).or_insert_with(|| (Instant::now(), 0));
        if since.elapsed() >= MINUTE {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        *count > REFUSALS
    }
}

fn is_refusal(error: &CallError) -> bool {
    error.code == happy_rpc::ErrorCode::NotPermitted
}

/// The code as it stands on the wire.
fn code(error: &CallError) -> String {
    match serde_json::to_value(error.code) {
        Ok(serde_json::Value::String(code)) => code,
        _ => "failed".to_owned(),
    }
}

/// What a call is about, for people: a path, a session, a device; no contents, no environment, nothing that is typed.
fn about(request: &Request) -> String {
    match request {
        Request::DeviceRevoke(params) => params.device.clone(),
        Request::DeviceRename(params) => format!("{} is called {}", params.device, params.name),
        Request::FileList(params) => params.path.clone().unwrap_or_default(),
        Request::FileRead(params) => params.path.clone(),
        Request::FileWrite(params) => params.path.clone(),
        Request::GitStatus(params) => params.path.clone(),
        Request::GitDiff(params) => params.path.clone(),
        Request::GitLog(params) => params.path.clone(),
        Request::GitCommit(params) => params.path.clone(),
        Request::GitPush(params) => match &params.set_upstream {
            Some(remote) => format!("{} to {remote}", params.path),
            None => params.path.clone(),
        },
        // The program by its name: arguments may hold what is secret.
        Request::SessionCreate(params) => {
            let program = params.command.first().map_or("the login shell", String::as_str);
            match &params.cwd {
                Some(cwd) => format!("{program} in {}", cwd.display()),
                None => program.to_owned(),
            }
        }
        // Choices count from 1 wherever people see them.
        Request::PromptAnswer(params) => format!("prompt {}, choice {}", params.prompt, u64::from(params.choice) + 1),
        Request::SessionAttach(params) => params.session.to_string(),
        Request::SessionKill(params) => params.session.to_string(),
        Request::SessionPause(params) => params.session.to_string(),
        Request::SessionResume(params) => params.session.to_string(),
        Request::SessionRename(params) => format!("{} is called {}", params.session, params.name),
        Request::SessionType(params) => format!("{}, {} bytes", params.session, params.text.len()),
        Request::SessionRecord(params) => params.session.to_string(),
        Request::SessionStopRecording(params) => params.session.to_string(),
        Request::MachineInfo(_)
        | Request::MachineRecordsGet(_)
        | Request::MetricsGet(_)
        | Request::MachineStop(_)
        | Request::DeviceList(_)
        | Request::EventsFollow(_)
        | Request::PromptList(_)
        | Request::SessionList(_)
        | Request::SessionDetach(_)
        | Request::SessionTakeControl(_)
        | Request::SessionGiveControl(_)
        | Request::TerminalResize(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_has_the_number_that_people_saw() {
        let answer = happy_rpc::PromptAnswer { prompt: uuid::Uuid::nil(), choice: 0, until: None };
        assert!(about(&Request::PromptAnswer(answer)).ends_with(", choice 1"));
    }

    #[tokio::test]
    async fn what_the_log_misses_is_counted_by_why() {
        let folder = tempfile::tempdir().unwrap();
        let auditor = Auditor::new(Audit::open(&folder.path().join("audit.log")).unwrap());
        let refused = CallError::new(happy_rpc::ErrorCode::NotPermitted, "no");
        for _ in 0..REFUSALS + 7 {
            auditor.local(None, "pair.start", "", Some(&refused)).await;
        }
        assert_eq!(auditor.missed(), (0, 7));
        drop(folder);
        auditor.local(None, "pair.start", "", None).await;
        auditor.local(None, "pair.start", "", None).await;
        assert_eq!(auditor.missed(), (2, 7));
        let errors = auditor.errors();
        assert_eq!(errors.iter().map(|error| error.count).collect::<Vec<_>>(), [2, 7]);
        assert!(errors[0].what.contains("which cannot be written: "), "{errors:?}");
    }
}
