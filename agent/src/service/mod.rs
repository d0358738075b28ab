//! The calls of `happy-rpc`, served to the command line and to other devices by the same code.
//!
//! [`Caller`] is one of them: it has a role, a way back ([`Line`]) and attachments. [`answer`] is the one place where a method
//! meets its meaning and where its caller's role is checked.

mod audit;
mod caller;
mod desk;
mod events;
mod line;
mod load;
mod once;
mod terminal;

use std::sync::Arc;

use happy_crypto::{DeviceId, labelled_hash};
use happy_rpc::{
    Call, CallError, Capability, Command, Device, DeviceList, DeviceRename, DeviceRevoke, Done, ErrorCode,
    EventsFollow, FileList, FileRead, FileWrite, GitCommit, GitDiff, GitLog, GitPush, GitStatus, Grant, Machine,
    MachineInfo, MachineRecordsGet, MachineStop, MetricsGet, Presence, PromptAnswer, PromptList, RecordOptions,
    Request, Role, SESSION_PAGE, Session, SessionAttach, SessionCreate, SessionDetach, SessionGiveControl, SessionKill,
    SessionList, SessionPause, SessionRecord, SessionRename, SessionResume, SessionStopRecording, SessionTakeControl,
    SessionType, Standing, TerminalResize,
};

pub use audit::Auditor;
pub use caller::{Caller, LinkSession, Who};
pub use events::EventLog;
pub use line::{CallName, Gone, Line};
pub use once::Once;

use crate::daemon::Daemon;
use crate::session::Sessions;

/// The calls' word for a role of the membership statements. The one place where the two meet.
pub fn role(role: happy_pairing::Role) -> Role {
    match role {
        happy_pairing::Role::Owner => Role::Owner,
        happy_pairing::Role::Operator => Role::Operator,
        happy_pairing::Role::Viewer => Role::Viewer,
        happy_pairing::Role::Machine => Role::Machine,
    }
}

/// How the refusal of a call begins that comes from inside of a session.
pub const INSIDE: &str = "a program inside of a session may not";

/// The statements' word for a role of the calls.
pub fn statement_role(role: Role) -> happy_pairing::Role {
    match role {
        Role::Owner => happy_pairing::Role::Owner,
        Role::Operator => happy_pairing::Role::Operator,
        Role::Viewer => happy_pairing::Role::Viewer,
        Role::Machine => happy_pairing::Role::Machine,
    }
}

/// A role as people write it.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Operator => "operator",
        Role::Viewer => "viewer",
        Role::Machine => "machine",
    }
}

/// Runs a request that came in a link session of the caller, and gives the body of its response. One that is named as a command runs
/// once, however often it comes.
pub async fn answer(caller: &Arc<Caller>, session: LinkSession, request: Request, command: Option<Command>) -> Vec<u8> {
    match (permit(caller, &request), command) {
        (Ok(role), None) => audited(caller, role, session, request).await,
        // An attachment belongs to one connection, and looking changes nothing: there is no outcome to be kept.
        (Ok(_), Some(_)) if matches!(request.needs(), Capability::View | Capability::Read) => happy_rpc::refusal(
            &CallError::new(ErrorCode::Malformed, "a call that changes nothing is no command; send it without a name"),
        ),
        (Ok(role), Some(command)) => {
            let body = serde_json::to_vec(&request).unwrap_or_default();
            let what = labelled_hash("happy command", &[&command.given_at.to_be_bytes(), &body]);
            let run = audited(caller, role, session, request);
            caller.daemon().once().run(caller.device(), command, what, run).await
        }
        (Err(error), _) => {
            caller.daemon().auditor().refused(caller, &request, &error).await;
            happy_rpc::refusal(&error)
        }
    }
}

/// Runs a request that is allowed, and puts down what became of it.
async fn audited(caller: &Arc<Caller>, role: Role, session: LinkSession, request: Request) -> Vec<u8> {
    let call = audit::Called::of(caller, &request);
    let answer = run(caller, role, session, request).await;
    caller.daemon().auditor().answered(call, &answer).await;
    answer
}

/// The caller's role now, if it is allowed this request. Looked up for each request: a role can end at any time.
fn permit(caller: &Caller, request: &Request) -> Result<Role, CallError> {
    let role = caller.role().ok_or_else(|| {
        let is_member = caller.device().is_some_and(|device| caller.daemon().roster().is_member(&device));
        CallError::new(ErrorCode::NotPermitted, no_role(is_member))
    })?;
    let may = request.needs().lets();
    let Some(own) = caller.inside() else {
        return match request.needs().grant(role) {
            Grant::Yes => Ok(role),
            Grant::OwnSession | Grant::No => {
                Err(CallError::new(ErrorCode::NotPermitted, format!("the role {} may not {may} here", role_name(role))))
            }
        };
    };
    match request.needs().grant(Standing::Inside) {
        Grant::Yes => Ok(role),
        Grant::OwnSession if session_of(request) == Some(own) => Ok(role),
        Grant::OwnSession | Grant::No => Err(CallError::new(
            ErrorCode::NotPermitted,
            format!("{INSIDE} {may}; do it from another terminal of this machine, or from a device"),
        )),
    }
}

/// The session that a request names and touches.
fn session_of(request: &Request) -> Option<uuid::Uuid> {
    match request {
        Request::SessionKill(params) => Some(params.session),
        Request::SessionPause(params) => Some(params.session),
        Request::SessionResume(params) => Some(params.session),
        Request::SessionRename(params) => Some(params.session),
        Request::SessionRecord(params) => Some(params.session),
        Request::SessionStopRecording(params) => Some(params.session),
        // By name, so that a new one that touches a session is not let through or kept away by accident.
        Request::MachineInfo(_)
        | Request::MachineRecordsGet(_)
        | Request::MetricsGet(_)
        | Request::MachineStop(_)
        | Request::DeviceList(_)
        | Request::DeviceRevoke(_)
        | Request::DeviceRename(_)
        | Request::EventsFollow(_)
        | Request::FileList(_)
        | Request::FileRead(_)
        | Request::FileWrite(_)
        | Request::GitStatus(_)
        | Request::GitDiff(_)
        | Request::GitLog(_)
        | Request::GitCommit(_)
        | Request::GitPush(_)
        | Request::PromptAnswer(_)
        | Request::PromptList(_)
        | Request::SessionList(_)
        | Request::SessionType(_)
        | Request::SessionCreate(_)
        | Request::SessionAttach(_)
        | Request::SessionDetach(_)
        | Request::SessionTakeControl(_)
        | Request::SessionGiveControl(_)
        | Request::TerminalResize(_) => None,
    }
}

/// What a device without a role is told.
fn no_role(is_member: bool) -> &'static str {
    match is_member {
        // This machine has joined that one, which gives nothing in the other direction.
        true => "this machine has joined yours, which lets it work there but not you here; ask for an invitation to it",
        false => "this device is no longer a member here; pair it again",
    }
}

async fn run(caller: &Arc<Caller>, role: Role, session: LinkSession, request: Request) -> Vec<u8> {
    let daemon = caller.daemon();
    match request {
        Request::MachineInfo(_) => MachineInfo::answer(&Ok(machine_info(daemon, role))),
        Request::MachineRecordsGet(_) => MachineRecordsGet::answer(&Ok(daemon.records().all())),
        Request::MetricsGet(_) => MetricsGet::answer(&Ok(daemon.metrics().await)),
        Request::DeviceList(_) => DeviceList::answer(&Ok(devices(daemon, caller.device()))),
        Request::DeviceRevoke(params) => DeviceRevoke::answer(&revoke(caller, &params.device).await),
        Request::DeviceRename(params) => DeviceRename::answer(&desk::rename_device(caller, params).await),
        Request::MachineStop(_) => {
            daemon.stop_soon();
            MachineStop::answer(&Ok(Done {}))
        }
        Request::FileList(params) => FileList::answer(&desk::list_files(daemon, params).await),
        Request::FileRead(params) => FileRead::answer(&desk::read_file(daemon, params).await),
        Request::FileWrite(params) => FileWrite::answer(&desk::write_file(daemon, params).await),
        Request::GitStatus(params) => {
            GitStatus::answer(&desk::in_tree(daemon, &params.path, async |tree| tree.status(&params).await).await)
        }
        Request::GitDiff(params) => {
            GitDiff::answer(&desk::in_tree(daemon, &params.path, async |tree| tree.diff(&params).await).await)
        }
        Request::GitLog(params) => {
            GitLog::answer(&desk::in_tree(daemon, &params.path, async |tree| tree.log(&params).await).await)
        }
        Request::GitCommit(params) => {
            GitCommit::answer(&desk::in_tree(daemon, &params.path, async |tree| tree.commit(&params).await).await)
        }
        Request::GitPush(params) => {
            GitPush::answer(&desk::in_tree(daemon, &params.path, async |tree| tree.push(&params).await).await)
        }
        Request::EventsFollow(params) => EventsFollow::answer(&Ok(daemon.events_after(params.after, caller.device()))),
        Request::SessionList(list) => SessionList::answer(&Ok(page(daemon.sessions(), list).await)),
        Request::SessionCreate(params) => SessionCreate::answer(&create(caller, params).await),
        Request::SessionAttach(params) => SessionAttach::answer(&caller.attach(role, session, params).await),
        Request::SessionDetach(params) => {
            let outcome = match caller.owns(params.attachment) {
                Ok(()) => daemon.sessions().detach(params.attachment).await.map_err(Into::into),
                // It has ended already, which is what was asked for.
                Err(_) => Ok(()),
            };
            SessionDetach::answer(&outcome.map(|()| Done {}))
        }
        Request::SessionKill(params) => {
            let outcome = daemon.sessions().kill(params.session).await;
            SessionKill::answer(&outcome.map(|()| Done {}).map_err(Into::into))
        }
        Request::SessionPause(params) => {
            SessionPause::answer(&daemon.sessions().pause(params.session).await.map_err(Into::into))
        }
        Request::SessionResume(params) => {
            SessionResume::answer(&daemon.sessions().resume(params.session).await.map_err(Into::into))
        }
        Request::SessionRename(params) => {
            SessionRename::answer(&daemon.sessions().rename(params.session, &params.name).await)
        }
        Request::SessionType(params) => {
            let outcome = daemon.sessions().type_text(params.session, &params.text, params.enter).await;
            SessionType::answer(&outcome.map(|()| Done {}).map_err(Into::into))
        }
        Request::SessionRecord(params) => SessionRecord::answer(&record(caller, params).await),
        Request::SessionStopRecording(params) => {
            let outcome = daemon.sessions().stop_recording(params.session).await;
            SessionStopRecording::answer(&outcome.map_err(Into::into))
        }
        Request::PromptList(params) => PromptList::answer(&Ok(daemon.sessions().prompts(params.session))),
        Request::PromptAnswer(params) => {
            let outcome = daemon.sessions().answer(params, caller.name()).await;
            PromptAnswer::answer(&outcome.map_err(Into::into))
        }
        Request::SessionTakeControl(params) => SessionTakeControl::answer(&take_control(caller, params).await),
        Request::SessionGiveControl(params) => SessionGiveControl::answer(&give_control(caller, params).await),
        Request::TerminalResize(params) => TerminalResize::answer(&resize(caller, params).await),
    }
}

/// The bytes of a page of the list of sessions, unless [`SESSION_PAGE`] sessions have more.
const PAGE_BYTES: usize = 128 * 1024;

/// PROTOCOL 10: as many sessions as fit well into an answer, and never fewer than [`SESSION_PAGE`] unless there are no more.
async fn page(sessions: &Sessions, list: SessionList) -> Vec<Session> {
    // Whoever asks for more has just made the holders tell their figures.
    let all = if list.after.is_none() { sessions.list().await } else { sessions.known() };
    let mut bytes = 0;
    let after = all.into_iter().filter(|session| Some(session.place()) > list.after);
    let fits = after.enumerate().take_while(|(index, session)| {
        bytes += serde_json::to_vec(session).map_or(0, |json| json.len());
        *index < SESSION_PAGE || bytes <= PAGE_BYTES
    });
    fits.map(|(_, session)| session).collect()
}

async fn create(caller: &Caller, mut params: SessionCreate) -> Result<Session, CallError> {
    if caller.device().is_some() {
        // An environment is the business of a person's own shell; from elsewhere it would be a way around what the machine
        // has set up.
        params.env = None;
        check_record(params.record.as_ref())?;
    }
    caller.daemon().sessions().create(params).await.map_err(Into::into)
}

async fn record(caller: &Caller, params: SessionRecord) -> Result<Session, CallError> {
    if caller.device().is_some() {
        check_record(Some(&params.record))?;
    }
    caller.daemon().sessions().record(params.session, params.record).await.map_err(Into::into)
}

/// Where files lie is the business of the person at this machine.
fn check_record(record: Option<&RecordOptions>) -> Result<(), CallError> {
    match record.and_then(|record| record.to.as_ref()) {
        None => Ok(()),
        Some(_) => Err(CallError::new(
            ErrorCode::NotPermitted,
            "another device may record a session, but not choose the file; leave its name out",
        )),
    }
}

async fn take_control(caller: &Caller, params: SessionTakeControl) -> Result<Done, CallError> {
    caller.owns(params.attachment)?;
    caller.daemon().sessions().take_control(params.attachment, params.cols, params.rows).await?;
    Ok(Done {})
}

async fn give_control(caller: &Caller, params: SessionGiveControl) -> Result<Done, CallError> {
    caller.owns(params.attachment)?;
    caller.daemon().sessions().give_control(params.attachment).await?;
    Ok(Done {})
}

async fn resize(caller: &Caller, params: TerminalResize) -> Result<Done, CallError> {
    caller.owns(params.attachment)?;
    caller.daemon().sessions().resize(params.attachment, params.cols, params.rows).await?;
    Ok(Done {})
}

async fn revoke(caller: &Arc<Caller>, device: &str) -> Result<Done, CallError> {
    let device: DeviceId =
        device.parse().map_err(|_| CallError::new(ErrorCode::Malformed, "that is not a device id"))?;
    caller.daemon().revoke(device).await?;
    Ok(Done {})
}

fn machine_info(daemon: &Daemon, role: Role) -> Machine {
    Machine {
        device: daemon.device_id().to_string(),
        name: daemon.name().to_owned(),
        os: std::env::consts::OS.to_owned(),
        version: crate::VERSION.to_owned(),
        protocol: happy_wire::VERSION,
        role,
        relays: daemon.relay_origins(),
        app_hash: daemon.app_hash(),
        now: crate::store::unix_ms(),
        home: std::env::home_dir().unwrap_or_default().display().to_string(),
    }
}

/// The devices that this machine knows, as one of them (or nobody) sees them.
pub fn devices(daemon: &Daemon, you: Option<DeviceId>) -> Vec<Device> {
    let here = daemon.network().links_up();
    let relay_up = daemon.network().is_up();
    let presence = |device: &DeviceId| match (here.contains(device), relay_up) {
        (true, _) => Presence::Here,
        (false, true) => Presence::Away,
        (false, false) => Presence::Unknown,
    };
    let roster = daemon.roster();
    let members = roster.members().into_iter().map(|member| Device {
        device: member.device.to_string(),
        name: member.name.clone(),
        role: role(member.role),
        safety_number: member.safety_number.clone(),
        added_at: member.added_at_unix.saturating_mul(1000),
        removed_at: member.removed_at_unix.map(|at| at.saturating_mul(1000)),
        presence: if member.removed_at_unix.is_some() { Presence::Away } else { presence(&member.device) },
        you: you == Some(member.device),
    });
    members.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_device_does_not_choose_the_file_of_a_recording() {
        let record = |to: Option<&str>| RecordOptions { to: to.map(Into::into), limit: Some(1 << 20) };
        assert_eq!(check_record(None), Ok(()));
        assert_eq!(check_record(Some(&record(None))), Ok(()));
        let refused = check_record(Some(&record(Some("/home/me/.profile")))).unwrap_err();
        assert_eq!(refused.code, ErrorCode::NotPermitted);
    }
}
