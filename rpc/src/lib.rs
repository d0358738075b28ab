//! The calls of Happy Remote: methods, parameters, results, events, error codes, and who may call what.
//!
//! Everything here is data. How a call travels is the business of `happy-wire` (the envelope, `docs/PROTOCOL.md` §10) and
//! `happy-link`; what it does, of the agent. A method without a row in [`Request::needs`] does not compile, so nothing can be
//! called by accident. With the feature `typescript` the types are written out for the phone app, so that no one mirrors
//! them by hand.
//!
//! ```
//! use happy_rpc::{Call, Request, SessionList, Role};
//!
//! let body = SessionList::default().to_body();
//! let request = Request::parse(&body).unwrap();
//! assert_eq!(request.method(), "session.list");
//! assert!(request.needs().granted_to(Role::Viewer));
//! ```

mod command;
mod device;
mod error;
mod event;
mod file;
mod follower;
mod git;
mod glance;
mod machine;
mod metrics;
mod outbox;
mod progress;
mod prompt;
mod record;
mod role;
mod session;
mod table;
#[cfg(feature = "typescript")]
mod typescript;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use command::{Command, MAX_AHEAD_MS, MAX_COMMANDS};
pub use device::*;
pub use error::{CallError, ErrorCode};
pub use event::{Event, EventPlace, EventsFollow, Followed, Told};
pub use file::*;
pub use follower::{Caught, Follower, Step};
pub use git::*;
pub use glance::Glance;
pub use machine::*;
pub use metrics::*;
pub use outbox::{Entry, EntryState, MAX_BYTES, MAX_ENTRIES, Mark, NotAnOutbox, Outbox, OutboxError, SHOWN_MS};
pub use progress::{Progress, ProgressState};
pub use prompt::*;
pub use record::*;
pub use role::{Capability, Grant, Role, Standing};
pub use session::*;
pub use table::page as calls_page;
#[cfg(feature = "typescript")]
pub use typescript::typescript;

/// A call: its parameters are the type itself.
pub trait Call: Serialize + DeserializeOwned + Into<Request> {
    /// What a successful call gives back.
    type Output: Serialize + DeserializeOwned;
    /// The name on the wire.
    const METHOD: &'static str;

    /// The body of a request.
    fn to_body(self) -> Vec<u8> {
        // Plain data with string keys: serialising it cannot fail.
        serde_json::to_vec(&self.into()).unwrap_or_default()
    }

    /// The body of a response to this call.
    fn answer(outcome: &Result<Self::Output, CallError>) -> Vec<u8> {
        let body = match outcome {
            Ok(output) => Outcome::Ok(output),
            Err(error) => Outcome::Error(error),
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// Reads the body of a response.
    ///
    /// # Errors
    /// The error that the callee gave, or [`ErrorCode::Malformed`] when the body is not a response to this call.
    fn read_answer(body: &[u8]) -> Result<Self::Output, CallError> {
        match serde_json::from_slice::<OwnedOutcome<Self::Output>>(body) {
            Ok(OwnedOutcome::Ok(output)) => Ok(output),
            Ok(OwnedOutcome::Error(error)) => Err(error),
            Err(error) => Err(CallError::new(
                ErrorCode::Malformed,
                format!("the answer to {} cannot be read: {error}", Self::METHOD),
            )),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome<'a, T> {
    Ok(&'a T),
    Error(&'a CallError),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum OwnedOutcome<T> {
    Ok(T),
    Error(CallError),
}

/// The body of a response that carries an error, for callers that have no typed call at hand.
pub fn refusal(error: &CallError) -> Vec<u8> {
    serde_json::to_vec(&Outcome::<()>::Error(error)).unwrap_or_default()
}

/// A call as pages about calls know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described {
    /// The name on the wire.
    pub method: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// What a caller must be allowed to do.
    pub capability: Capability,
    /// Whether each one that is done stands in the audit log; refusals always do.
    pub is_audited: bool,
}

/// What changes something is audited. A screen changes its size many times a second while somebody drags a window, which would push
/// everything else out of the log.
const fn is_audited(method: &str, needs: Capability) -> bool {
    match needs {
        Capability::View | Capability::Read => false,
        Capability::Act | Capability::Steer | Capability::Write | Capability::Roster | Capability::Stop => {
            !matches!(method.as_bytes(), b"terminal.resize" | b"session.take_control" | b"session.give_control")
        }
    }
}

/// The one list of calls: method name, parameters, result, and what the caller must be allowed to do.
macro_rules! calls {
    ($($(#[doc = $doc:literal])* $method:literal, $params:ident -> $output:ty, $capability:ident;)*) => {
        /// Any request.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "method", content = "params")]
        pub enum Request {
            $($(#[doc = $doc])* #[serde(rename = $method)] $params($params),)*
        }

        impl Request {
            /// Every method there is.
            pub const METHODS: &'static [&'static str] = &[$($method),*];

            /// The name on the wire.
            pub fn method(&self) -> &'static str {
                match self { $(Request::$params(_) => $method,)* }
            }

            /// What a caller must be allowed to do.
            pub fn needs(&self) -> Capability {
                match self { $(Request::$params(_) => Capability::$capability,)* }
            }
        }

        $(
            impl Call for $params {
                type Output = $output;
                const METHOD: &'static str = $method;
            }

            impl From<$params> for Request {
                fn from(params: $params) -> Request { Request::$params(params) }
            }
        )*

        /// Every call, for pages about them.
        pub const CALLS: &[Described] = &[$(
            Described {
                method: $method,
                doc: concat!($($doc),*),
                capability: Capability::$capability,
                is_audited: is_audited($method, Capability::$capability),
            },
        )*];

        #[cfg(feature = "typescript")]
        pub(crate) fn typescript_calls(config: &ts_rs::Config) -> Vec<(&'static str, String, String)> {
            use ts_rs::TS;
            vec![$(($method, <$params as TS>::name(config), <$output as TS>::name(config)),)*]
        }
    };
}

calls! {
    /// What this machine is, and what the caller may do on it.
    "machine.info", MachineInfo -> Machine, View;
    /// What it says of itself in its records, and the key that opens them while it is away.
    "machine.records", MachineRecordsGet -> MachineRecords, View;
    /// How it and its sessions are.
    "metrics.get", MetricsGet -> Metrics, View;
    /// The devices that this machine knows.
    "device.list", DeviceList -> Vec<Device>, View;
    /// Removes a device for good.
    "device.revoke", DeviceRevoke -> Done, Roster;
    /// Gives a device another name.
    "device.rename", DeviceRename -> Device, Roster;
    /// Ends the daemon of this machine; sessions go on.
    "machine.stop", MachineStop -> Done, Stop;
    /// The entries of a folder.
    "file.list", FileList -> FileListing, Read;
    /// A part of a file.
    "file.read", FileRead -> FilePart, Read;
    /// Writes a file in one step, unless it has changed meanwhile.
    "file.write", FileWrite -> FileWritten, Write;
    /// How a working tree of git stands.
    "git.status", GitStatus -> GitState, Read;
    /// Changes in a working tree, or of a commit, as text.
    "git.diff", GitDiff -> GitPatch, Read;
    /// Commits, newest first.
    "git.log", GitLog -> GitHistory, Read;
    /// Commits.
    "git.commit", GitCommit -> GitCommitted, Write;
    /// Sends commits to the remote of the branch, never by force.
    "git.push", GitPush -> GitPushed, Write;
    /// What was told after a place in the event log.
    "events.follow", EventsFollow -> Followed<Told>, View;
    /// The sessions of this machine.
    "session.list", SessionList -> Vec<Session>, View;
    /// Starts a program in a new terminal.
    "session.create", SessionCreate -> Session, Act;
    /// Shows a session on a channel that the caller has opened.
    "session.attach", SessionAttach -> Attached, View;
    /// Ends an attachment; the session goes on.
    "session.detach", SessionDetach -> Done, View;
    /// Ends the program of a session.
    "session.kill", SessionKill -> Done, Steer;
    /// Stops the program of a session until it is resumed.
    "session.pause", SessionPause -> Session, Steer;
    /// Lets the program of a paused session go on.
    "session.resume", SessionResume -> Session, Steer;
    /// Gives a session another name.
    "session.rename", SessionRename -> Session, Steer;
    /// Types a text into a session.
    "session.type", SessionType -> Done, Act;
    /// Begins to record what a session prints.
    "session.record", SessionRecord -> Session, Steer;
    /// Ends a recording.
    "session.stop_recording", SessionStopRecording -> Session, Steer;
    /// Makes the caller's attachment the one that decides the size.
    "session.take_control", SessionTakeControl -> Done, Act;
    /// Gives control of the size back to whoever had it before.
    "session.give_control", SessionGiveControl -> Done, Act;
    /// The prompts that wait for a person.
    "prompt.list", PromptList -> Vec<Prompt>, View;
    /// Answers a prompt.
    "prompt.answer", PromptAnswer -> PromptAnswered, Act;
    /// Changes the size of the screen; only for the attachment in control.
    "terminal.resize", TerminalResize -> Done, Act;
}

impl Request {
    /// Whether each one that is done stands in the audit log; refusals always do.
    pub fn is_audited(&self) -> bool {
        is_audited(self.method(), self.needs())
    }

    /// Reads the body of a request.
    ///
    /// # Errors
    /// [`ErrorCode::UnknownMethod`] or [`ErrorCode::Malformed`], each with a sentence that says what is wrong.
    pub fn parse(body: &[u8]) -> Result<Request, CallError> {
        serde_json::from_slice(body).map_err(|error| {
            #[derive(Deserialize)]
            struct Named {
                method: String,
            }
            match serde_json::from_slice::<Named>(body) {
                Ok(named) if !Self::METHODS.contains(&named.method.as_str()) => CallError::new(
                    ErrorCode::UnknownMethod,
                    "this machine does not know that method; the older side wants an upgrade",
                ),
                _ => CallError::new(ErrorCode::Malformed, format!("the request cannot be read: {error}")),
            }
        })
    }
}

/// The result of a call that has nothing to tell but that it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Done {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_method_is_told_apart_from_bad_parameters() {
        let unknown = Request::parse(br#"{"method":"session.fly","params":{}}"#).unwrap_err();
        assert_eq!(unknown.code, ErrorCode::UnknownMethod);
        let malformed = Request::parse(br#"{"method":"session.kill","params":{"session":7}}"#).unwrap_err();
        assert_eq!(malformed.code, ErrorCode::Malformed);
        assert_eq!(Request::parse(b"\xff").unwrap_err().code, ErrorCode::Malformed);
    }

    #[test]
    fn answers_come_back_as_they_were_given() {
        let ok = SessionKill::answer(&Ok(Done {}));
        assert_eq!(ok, br#"{"ok":{}}"#);
        assert_eq!(SessionKill::read_answer(&ok), Ok(Done {}));
        let error = CallError::new(ErrorCode::NotFound, "no such session");
        assert_eq!(SessionKill::read_answer(&SessionKill::answer(&Err(error.clone()))), Err(error.clone()));
        assert_eq!(SessionKill::read_answer(&refusal(&error)), Err(error));
        assert_eq!(SessionKill::read_answer(b"{}").unwrap_err().code, ErrorCode::Malformed);
    }

    #[test]
    fn a_program_inside_of_a_session_looks_and_touches_its_own() {
        let grants = |request: Request| request.needs().grant(Standing::Inside);
        assert_eq!(grants(SessionList::default().into()), Grant::Yes);
        assert_eq!(grants(SessionKill { session: Default::default() }.into()), Grant::OwnSession);
        assert_eq!(grants(DeviceRevoke { device: String::new() }.into()), Grant::No);
        assert_eq!(grants(MachineStop {}.into()), Grant::No);
        assert_eq!(grants(FileList::default().into()), Grant::No);
    }

    #[test]
    fn what_changes_something_is_audited() {
        assert!(Request::from(SessionKill { session: Default::default() }).is_audited());
        assert!(Request::from(GitPush::default()).is_audited());
        assert!(!Request::from(FileList::default()).is_audited());
        let size = TerminalResize { attachment: Default::default(), cols: 80, rows: 24 };
        assert!(!Request::from(size).is_audited());
    }

    #[test]
    fn a_viewer_can_look_but_not_touch() {
        for (request, viewer, operator, machine) in [
            (Request::from(SessionList::default()), true, true, true),
            (SessionKill { session: Default::default() }.into(), false, true, true),
            (DeviceRevoke { device: String::new() }.into(), false, false, false),
            (MachineStop {}.into(), false, false, false),
            (FileList::default().into(), false, true, false),
            (GitPush::default().into(), false, true, false),
        ] {
            assert!(request.needs().granted_to(Role::Owner));
            assert_eq!(request.needs().granted_to(Role::Viewer), viewer, "{}", request.method());
            assert_eq!(request.needs().granted_to(Role::Operator), operator, "{}", request.method());
            assert_eq!(request.needs().granted_to(Role::Machine), machine, "{}", request.method());
        }
    }
}
