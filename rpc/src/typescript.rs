//! The types of this crate as TypeScript, for the phone app.

use std::fmt::Write;

use ts_rs::{Config, TS};

use crate::{
    Attached, Breaker, CallError, Device, DeviceList, DeviceRename, DeviceRevoke, Done, Entry, EntryState, ErrorCode,
    ErrorCount, Event, EventPlace, EventsFollow, FileEntry, FileKind, FileList, FileListing, FilePart, FileRange,
    FileRead, FileWrite, FileWritten, Followed, GitChange, GitCommit, GitCommitEntry, GitCommitted, GitDiff,
    GitHistory, GitLog, GitPatch, GitPush, GitPushed, GitState, GitStatus, Glance, Machine, MachineInfo,
    MachineMetadata, MachineRecords, MachineRecordsGet, MachineState, MachineStatus, MachineStop, Metrics, MetricsGet,
    MetricsTotal, Over, Presence, Progress, ProgressState, Prompt, PromptAnswer, PromptAnswered, PromptChoice,
    PromptEnd, PromptKind, PromptList, PromptSource, RecordOptions, Recording, Recovery, RelayHealth, Role, Session,
    SessionAttach, SessionCreate, SessionDetach, SessionGiveControl, SessionKill, SessionKind, SessionList,
    SessionMetrics, SessionPause, SessionPlace, SessionRecord, SessionRename, SessionResume, SessionState,
    SessionStatus, SessionStopRecording, SessionTakeControl, SessionType, StopSource, TerminalResize, Told, Usage,
    typescript_calls,
};

/// One TypeScript module with every type, and an interface that maps a method to its parameters and result.
///
/// Offsets and times are `number`: they stay below 2⁵³.
pub fn typescript() -> String {
    let config = Config::new().with_large_int("number");
    let mut out = String::from("// Generated from the crate `happy-rpc` by `cargo xtask web`; do not edit.\n\n");
    macro_rules! declare {
        ($($type:ident)*) => { $( let _ = writeln!(out, "export {}\n", <$type as TS>::decl(&config)); )* };
    }
    declare! {
        Role ErrorCode CallError Done Machine MachineInfo MachineMetadata MachineStatus StopSource MachineState MachineRecordsGet MachineRecords MetricsGet MetricsTotal SessionStatus ProgressState Progress Usage SessionMetrics Breaker RelayHealth ErrorCount Recovery Metrics Presence Device DeviceList DeviceRevoke SessionState Recording SessionKind Session SessionPlace SessionList
        RecordOptions SessionCreate SessionAttach Attached SessionDetach SessionKill SessionType SessionRecord SessionStopRecording SessionTakeControl SessionGiveControl TerminalResize PromptSource PromptKind PromptChoice Prompt PromptAnswered PromptEnd PromptList PromptAnswer Event EventPlace Told EventsFollow EntryState Entry Glance
        DeviceRename MachineStop SessionPause SessionResume SessionRename
        FileKind FileEntry FileList FileListing FileRead FilePart FileRange Over FileWrite FileWritten
        GitStatus GitChange GitState GitDiff GitPatch GitLog GitCommitEntry GitHistory GitCommit GitCommitted GitPush GitPushed
    }
    // Generic, so it is declared by an instance.
    let _ = writeln!(out, "export {}\n", <Followed<Told> as TS>::decl(&config));
    out.push_str("export interface Calls {\n");
    for (method, params, result) in typescript_calls(&config) {
        let _ = writeln!(out, "  \"{method}\": {{ params: {params}; result: {result} }};");
    }
    out.push_str("}\n");
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_method_has_its_types() {
        let module = super::typescript();
        for method in crate::Request::METHODS {
            assert!(module.contains(&format!("\"{method}\": {{ params: ")), "{method} is missing in\n{module}");
        }
        assert!(!module.contains("bigint"), "an integer type that JSON.parse does not give");
    }
}
