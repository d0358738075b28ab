// Generated from the crate `happy-rpc` by `cargo xtask web`; do not edit.

export type Role = "owner" | "operator" | "viewer" | "machine";

export type ErrorCode = "malformed" | "unknown_method" | "not_permitted" | "not_found" | "conflict" | "too_many" | "failed" | "busy" | "reused" | "expired" | "indeterminate";

export type CallError = { 
/**
 * For programs.
 */
code: ErrorCode, 
/**
 * For people.
 */
message: string, };

export type Done = Record<symbol, never>;

export type Machine = { 
/**
 * Its device id, base64url.
 */
device: string, 
/**
 * Its name, a label.
 */
name: string, 
/**
 * For instance `linux`.
 */
os: string, 
/**
 * Of the agent.
 */
version: string, 
/**
 * Of the protocol.
 */
protocol: number, 
/**
 * What the caller is to it.
 */
role: Role, 
/**
 * The relays through which it can be reached now, as origins.
 */
relays: Array<string>, 
/**
 * Hash of the phone app that this version of the agent was built with, hexadecimal SHA-256; a phone that runs another
 * one was given it by somebody else.
 */
app_hash: string, 
/**
 * What time it is there, Unix milliseconds.
 */
now: number, 
/**
 * Where new sessions start unless told otherwise.
 */
home: string, };

export type MachineInfo = Record<symbol, never>;

export type MachineMetadata = { 
/**
 * Its name, a label.
 */
name: string, 
/**
 * The name that its network knows it by.
 */
host: string, 
/**
 * For instance `linux`.
 */
platform: string, 
/**
 * Of the agent.
 */
version: string, 
/**
 * The home directory of its user.
 */
home: string, 
/**
 * Where the agent keeps its files.
 */
happy_home: string, };

export type MachineStatus = "running" | "shutting-down" | "offline";

export type StopSource = "call" | "cli" | "signal";

export type MachineState = { 
/**
 * Its daemon.
 */
status: MachineStatus, 
/**
 * The daemon's process.
 */
pid: number, 
/**
 * The port of its local API.
 */
port: number, 
/**
 * When the daemon started, Unix milliseconds.
 */
started_at: number, 
/**
 * When somebody asked it to end, Unix milliseconds.
 */
shutdown_requested_at?: number, 
/**
 * Who did.
 */
shutdown_source?: StopSource, };

export type MachineRecordsGet = Record<symbol, never>;

export type MachineRecords = { 
/**
 * Counts the keys; another one after each revocation.
 */
generation: number, 
/**
 * The key, 64 hexadecimal digits. A secret of the machine and those who may look.
 */
key: string, 
/**
 * Of the metadata; a record with a lower one is an old one.
 */
metadata_version: number, 
/**
 * What the machine is.
 */
metadata: MachineMetadata, 
/**
 * Of the state.
 */
state_version: number, 
/**
 * What it is doing.
 */
state: MachineState, };

export type MetricsGet = Record<symbol, never>;

export type MetricsTotal = { 
/**
 * How many there are.
 */
sessions: number, 
/**
 * How many of them run, whatever they do.
 */
running: number, 
/**
 * How many ended badly.
 */
failed: number, 
/**
 * Bytes that were typed into them.
 */
bytes_in: number, 
/**
 * Bytes that they have printed.
 */
bytes_out: number, 
/**
 * How many are looking.
 */
viewers: number, 
/**
 * Processor time of the programs that run, milliseconds.
 */
cpu_ms: number, 
/**
 * Resident memory of the programs that run, bytes; what they share counts for each.
 */
memory: number, };

export type SessionStatus = "initializing" | "running" | "idle" | "waiting" | "paused" | "error" | "exited";

export type ProgressState = "normal" | "error" | "indeterminate" | "paused";

export type Progress = { 
/**
 * How it goes.
 */
state: ProgressState, 
/**
 * 0 to 100; missing when the program does not say.
 */
percent?: number, };

export type Usage = { 
/**
 * Processor time, milliseconds. That of processes that have ended counts where somebody has waited for them.
 */
cpu_ms: number, 
/**
 * Resident memory, bytes; what they share counts for each.
 */
memory: number, 
/**
 * How many there are.
 */
processes: number, };

export type SessionMetrics = { 
/**
 * Which.
 */
session: string, 
/**
 * What it does.
 */
status: SessionStatus, 
/**
 * Bytes that were typed into it: what viewers sent and people answered, each byte once; not what the terminal itself answers to the
 * program. Machines of before do not count them.
 */
bytes_in: number, 
/**
 * Bytes that it has printed.
 */
bytes_out: number, 
/**
 * How many are looking.
 */
viewers: number, 
/**
 * How far it says it is; missing when it does not.
 */
progress?: Progress, 
/**
 * Its program and all processes below it; missing when that cannot be found out.
 */
usage?: Usage, };

export type Breaker = "closed" | "half_open" | "open";

export type RelayHealth = { 
/**
 * Its origin.
 */
origin: string, 
/**
 * See there.
 */
breaker: Breaker, 
/**
 * Attempts that have failed in a row.
 */
failures: number, 
/**
 * Why there is no connection, in words, if it is known.
 */
trouble?: string, 
/**
 * When the next attempt begins, Unix milliseconds. Missing while there is a connection or an attempt is under way, and when none follows.
 */
next_at?: number, 
/**
 * How long that is after the attempt before, milliseconds.
 */
pause_ms?: number, };

export type ErrorCount = { 
/**
 * What, in words.
 */
what: string, 
/**
 * How often.
 */
count: number, 
/**
 * For the first time, Unix milliseconds.
 */
first_at: number, 
/**
 * For the last time, Unix milliseconds.
 */
last_at: number, };

export type Recovery = { 
/**
 * When, Unix milliseconds.
 */
at: number, 
/**
 * What, in words.
 */
what: string, };

export type Metrics = { 
/**
 * When this was found out, Unix milliseconds.
 */
at: number, 
/**
 * When the daemon started, Unix milliseconds.
 */
started_at: number, 
/**
 * Of all sessions, also those that are left out below.
 */
total: MetricsTotal, 
/**
 * The newest [`MAX_METRICS`] sessions, oldest first.
 */
sessions: Array<SessionMetrics>, 
/**
 * How many are not listed.
 */
left_out: number, 
/**
 * The relays in use.
 */
relays: Array<RelayHealth>, 
/**
 * What went wrong since the daemon started, each kind once.
 */
errors: Array<ErrorCount>, 
/**
 * What the daemon did about it, the newest last.
 */
recoveries: Array<Recovery>, };

export type Presence = "here" | "away" | "unknown";

export type Device = { 
/**
 * Its id, base64url.
 */
device: string, 
/**
 * The name given to it in pairing.
 */
name: string, 
/**
 * What it is to the machine.
 */
role: Role, 
/**
 * Sixty digits; the same number stands in the device's own list.
 */
safety_number: string, 
/**
 * Unix milliseconds.
 */
added_at: number, 
/**
 * Unix milliseconds; none while it is allowed in.
 */
removed_at: number | null, 
/**
 * Where it is.
 */
presence: Presence, 
/**
 * Whether it is the caller.
 */
you: boolean, };

export type DeviceList = Record<symbol, never>;

export type DeviceRevoke = { 
/**
 * Its id, base64url.
 */
device: string, };

export type SessionState = { "state": "running" } | { "state": "exited", 
/**
 * 0 by convention when all went well.
 */
code: number, } | { "state": "killed", 
/**
 * The number of the signal.
 */
signal: number, } | { "state": "lost" };

export type Recording = { 
/**
 * The path of the file, on the machine of the session.
 */
file: string, 
/**
 * Unix milliseconds.
 */
started_at: number, 
/**
 * Why it has ended, for people; while it goes on there is none.
 */
ended?: string, };

export type SessionKind = "own" | "tmux";

export type Session = { 
/**
 * Its id.
 */
id: string, 
/**
 * Whose it is; machines from before have only their own.
 */
kind: SessionKind, 
/**
 * The name it was given, or its command.
 */
name: string, 
/**
 * What the program calls itself on its terminal; empty when it does not.
 */
title: string, 
/**
 * Program and arguments.
 */
command: Array<string>, 
/**
 * Where it started.
 */
cwd: string, 
/**
 * The process, while it runs.
 */
pid: number | null, 
/**
 * Columns of the screen.
 */
cols: number, 
/**
 * Rows of the screen.
 */
rows: number, 
/**
 * How many bytes the program has printed in all.
 */
output_offset: number, 
/**
 * How many are looking.
 */
viewers: number, 
/**
 * Who decides the size, by name.
 */
controller: string | null, 
/**
 * Unix milliseconds.
 */
created_at: number, 
/**
 * The oldest output offset that is still kept; machines of before do not say it.
 */
kept_from?: number, 
/**
 * What it prints is recorded, or was.
 */
recording?: Recording, 
/**
 * It runs and is stopped, until it is resumed.
 */
paused?: boolean, 
/**
 * Somebody told it to end: however it ended then, that was wanted.
 */
told_to_end?: boolean, 
/**
 * The prompt with which it waits for a person; [`PromptList`](crate::PromptList) tells what it asks.
 */
prompt?: string, 
/**
 * How far it says it is; missing when it does not.
 */
progress?: Progress, } & ({ "state": "running" } | { "state": "exited", 
/**
 * 0 by convention when all went well.
 */
code: number, } | { "state": "killed", 
/**
 * The number of the signal.
 */
signal: number, } | { "state": "lost" });

export type SessionPlace = { 
/**
 * Unix milliseconds.
 */
created_at: number, 
/**
 * Its id.
 */
session: string, };

export type SessionList = { 
/**
 * Only those after this place. A machine of before does not know it, and answers with all that it has.
 */
after?: SessionPlace, };

export type RecordOptions = { 
/**
 * The path of a file that must not be there, on the machine of the session; one below its home when missing. Only the local command
 * line sends one.
 */
to?: string, 
/**
 * The most bytes that the file may have; as the machine has it when missing.
 */
limit?: number, };

export type SessionCreate = { 
/**
 * Program and arguments; empty for the login shell.
 */
command: Array<string>, 
/**
 * Where it starts; the home directory when missing.
 */
cwd?: string, 
/**
 * The environment; the daemon's own when missing. Only the local command line sends one.
 */
env?: { [key in string]: string }, 
/**
 * A name for people.
 */
name?: string, 
/**
 * Columns of the screen; 80 when 0.
 */
cols: number, 
/**
 * Rows of the screen; 24 when 0.
 */
rows: number, 
/**
 * How many bytes of output are kept for viewers that come back, 64 KiB to 1 GiB; as the machine is set when missing.
 */
keep?: number, 
/**
 * Record it from its first byte on.
 */
record?: RecordOptions, 
/**
 * Make it a session of tmux.
 */
tmux?: boolean, };

export type SessionAttach = { 
/**
 * Which session.
 */
session: string, 
/**
 * A channel that the caller has opened with the label `terminal`.
 */
channel: number, 
/**
 * Whose input offsets these are: chosen by the viewer, kept across reconnects.
 */
writer: string, 
/**
 * The viewer's name for people.
 */
name: string, 
/**
 * The output offset to go on from; a snapshot when missing or no longer kept.
 */
from?: number, 
/**
 * How many scrolled-off rows a snapshot shall carry.
 */
scrollback: number, 
/**
 * Never skip output; the program waits for this viewer. Only between machines.
 */
lossless: boolean, 
/**
 * The viewer tells what it has drawn, is shown screens past what it can take, and asks for history.
 */
credit: boolean, 
/**
 * The viewer's own size.
 */
cols: number, 
/**
 * The viewer's own size.
 */
rows: number, 
/**
 * Decide the size from the start.
 */
take_control: boolean, };

export type Attached = { 
/**
 * Names this attachment in other calls.
 */
attachment: string, 
/**
 * The input offset that is expected next from this writer.
 */
input_offset: number, 
/**
 * The session as it is now.
 */
session: Session, 
/**
 * Whether this attachment decides the size.
 */
you_control: boolean, 
/**
 * Whether the machine wants to be told what is drawn.
 */
credit: boolean, };

export type SessionDetach = { 
/**
 * Which, from [`Attached`].
 */
attachment: string, };

export type SessionKill = { 
/**
 * Which session.
 */
session: string, };

export type SessionType = { 
/**
 * Which session.
 */
session: string, 
/**
 * What is typed, at most [`MAX_TEXT`] bytes. Controls other than line ends and tabs are left out.
 */
text: string, 
/**
 * Press Enter afterwards.
 */
enter: boolean, };

export type SessionRecord = { 
/**
 * Which session.
 */
session: string, 
/**
 * How.
 */
record: RecordOptions, };

export type SessionStopRecording = { 
/**
 * Of which session.
 */
session: string, };

export type SessionTakeControl = { 
/**
 * Which, from [`Attached`].
 */
attachment: string, 
/**
 * The size it wants.
 */
cols: number, 
/**
 * The size it wants.
 */
rows: number, };

export type SessionGiveControl = { 
/**
 * Which, from [`Attached`].
 */
attachment: string, };

export type TerminalResize = { 
/**
 * Which, from [`Attached`].
 */
attachment: string, 
/**
 * Columns, at most 1,000.
 */
cols: number, 
/**
 * Rows, at most 1,000.
 */
rows: number, };

export type PromptSource = "hook" | "notification" | "screen";

export type PromptKind = "yes_no" | "numbers" | "arrows" | "password" | "somebody";

export type PromptChoice = { 
/**
 * As the program calls it; at most 120 bytes, and a mark when it was cut.
 */
label: string, 
/**
 * What is typed for it, to the byte; empty when the program is told otherwise.
 */
keys: string, };

export type Prompt = { 
/**
 * Its id: another one as soon as anything else is asked.
 */
id: string, 
/**
 * In which session.
 */
session: string, 
/**
 * How it is known.
 */
source: PromptSource, 
/**
 * What is asked for.
 */
kind: PromptKind, 
/**
 * The question and what belongs to it, in lines; at most 800 bytes, and a mark when it was cut.
 */
question: string, 
/**
 * The answers, at most 9; none means that it is answered in the terminal.
 */
choices: Array<PromptChoice>, 
/**
 * A hash of the question as it stands on the screen, 32 hex digits; empty when it was not read from there.
 */
screen: string, 
/**
 * Since when, Unix milliseconds.
 */
appeared_at: number, 
/**
 * When it stops waiting by itself, Unix milliseconds; missing while it waits for as long as it stands there.
 */
expires_at?: number, };

export type PromptAnswered = { 
/**
 * To which prompt.
 */
prompt: string, 
/**
 * What was chosen, by its label.
 */
label: string, 
/**
 * Who chose, by name.
 */
by: string, 
/**
 * When, Unix milliseconds.
 */
at: number, };

export type PromptEnd = { "how": "answered" } & PromptAnswered | { "how": "typed" } | { "how": "gone" } | { "how": "expired" };

export type PromptList = { 
/**
 * Only those of this session.
 */
session?: string, };

export type PromptAnswer = { 
/**
 * Which.
 */
prompt: string, 
/**
 * Which of its choices, from 0.
 */
choice: number, 
/**
 * Unix milliseconds by the machine's clock: later it is not given any more.
 */
until?: number, };

export type Event = { "event": "session.changed", "data": Session } | { "event": "session.removed", "data": { 
/**
 * Which.
 */
session: string, } } | { "event": "prompt.appeared", "data": Prompt } | { "event": "prompt.ended", "data": { 
/**
 * Which.
 */
prompt: string, 
/**
 * In which session.
 */
session: string, 
/**
 * How it ended.
 */
end: PromptEnd, } } | { "event": "session.list_again", "data": Record<symbol, never> } | { "event": "machine.changed", "data": MachineState } | { "event": "device.changed", "data": Array<Device> };

export type EventPlace = { 
/**
 * Which log: another one after each start of the daemon.
 */
log: string, 
/**
 * Counts the events in it from 1; 0 is the place before the first.
 */
number: number, };

export type Told = { 
/**
 * Its place. A machine of an earlier version gives none, and neither has what only one receiver is told.
 */
at?: EventPlace, } & ({ "event": "session.changed", "data": Session } | { "event": "session.removed", "data": { 
/**
 * Which.
 */
session: string, } } | { "event": "prompt.appeared", "data": Prompt } | { "event": "prompt.ended", "data": { 
/**
 * Which.
 */
prompt: string, 
/**
 * In which session.
 */
session: string, 
/**
 * How it ended.
 */
end: PromptEnd, } } | { "event": "session.list_again", "data": Record<symbol, never> } | { "event": "machine.changed", "data": MachineState } | { "event": "device.changed", "data": Array<Device> });

export type EventsFollow = { 
/**
 * The last event that the caller has; missing when it begins.
 */
after?: EventPlace, };

export type EntryState = { "is": "draft" } | { "is": "queued" } | { "is": "sent" } | { "is": "delivered" } | { "is": "done" } | { "is": "failed", 
/**
 * Why.
 */
error: CallError, } | { "is": "indeterminate", 
/**
 * What the machine says.
 */
error: CallError, } | { "is": "expired" } | { "is": "cancelled" };

export type Entry = { 
/**
 * Its number in this outbox.
 */
number: number, 
/**
 * For which machine, as its device id.
 */
machine: string, 
/**
 * What it is about: the commands of one machine about the same session, or about none, go one after the other.
 */
session: string | null, 
/**
 * What shall be done.
 */
request: unknown, 
/**
 * When it was given, Unix ms by this device's clock.
 */
given_at: number, 
/**
 * Later it shall not begin, Unix ms by this device's clock.
 */
until: number, 
/**
 * What became of it.
 */
state: EntryState, 
/**
 * When that was known for good, Unix ms.
 */
ended_at: number | null, 
/**
 * It is about to be sent, or was in some life of this device: the machine may know it.
 */
asked: boolean, };

export type Glance = { 
/**
 * Which session.
 */
session: string, 
/**
 * The lowest row that is not blank, at most 400 bytes of it.
 */
line: string, 
/**
 * When it was seen first, Unix milliseconds.
 */
at: number, };

export type DeviceRename = { 
/**
 * Its id, base64url.
 */
device: string, 
/**
 * The name, at most 64 bytes; characters that steer a terminal are refused.
 */
name: string, };

export type MachineStop = Record<symbol, never>;

export type SessionPause = { 
/**
 * Which session.
 */
session: string, };

export type SessionResume = { 
/**
 * Which session.
 */
session: string, };

export type SessionRename = { 
/**
 * Which session.
 */
session: string, 
/**
 * The name; cut after 120 bytes, controls become spaces.
 */
name: string, };

export type FileKind = "file" | "folder" | "link" | "special";

export type FileEntry = { 
/**
 * Its name; of a folder that is open, its whole path.
 */
name: string, 
/**
 * What it is.
 */
kind: FileKind, 
/**
 * Bytes, of a file.
 */
size: number, 
/**
 * Unix milliseconds.
 */
modified_at: number, 
/**
 * Permission bits, as `chmod` takes them.
 */
mode: number, };

export type FileList = { 
/**
 * Which folder.
 */
path?: string, 
/**
 * Only the entries behind this name.
 */
after?: string, };

export type FileListing = { 
/**
 * The folder, whole; empty for the list of those that are open.
 */
path: string, 
/**
 * At most [`FILE_PAGE`].
 */
entries: Array<FileEntry>, 
/**
 * The rest did not fit: ask again, after the last name.
 */
more: boolean, 
/**
 * Entries that cannot be named in a call, since their names are not UTF-8; they are in no page.
 */
unnameable: number, };

export type FileRead = { 
/**
 * Which file.
 */
path: string, 
/**
 * Where the part begins.
 */
offset: number, 
/**
 * Its most bytes, [`MAX_READ`] at most; [`USUAL_READ`] when missing.
 */
length?: number, 
/**
 * The [stamp](FilePart::stamp) of the parts before: when the file is another one by now, this is refused.
 */
stamp?: string, };

export type FilePart = { 
/**
 * Where it begins.
 */
offset: number, 
/**
 * Its content, base64; shorter than was asked for only at the end of the file.
 */
bytes: string, 
/**
 * The size of the whole file.
 */
size: number, 
/**
 * Whether the file ends here.
 */
end: boolean, 
/**
 * Another one whenever the file was changed or replaced; for further parts.
 */
stamp: string, 
/**
 * Hexadecimal SHA-256 of the whole file, for [`FileWrite`]; only with the first part, of a file of [`MAX_WHOLE`] at most.
 */
hash?: string, 
/**
 * Unix milliseconds.
 */
modified_at: number, 
/**
 * Permission bits.
 */
mode: number, };

export type FileRange = { 
/**
 * Where it begins; the size of the file to append.
 */
offset: number, 
/**
 * How many bytes it has.
 */
length: number, };

export type Over = "nothing" | { "hash": string } | "anything";

export type FileWrite = { 
/**
 * Which file. Its folder must be there.
 */
path: string, 
/**
 * What is written, base64 of at most [`MAX_WRITE`] bytes.
 */
bytes: string, 
/**
 * The part that this takes the place of; the whole file when missing.
 */
range?: FileRange, 
/**
 * What the caller knows to be there.
 */
over: Over, };

export type FileWritten = { 
/**
 * The size of the file now.
 */
size: number, 
/**
 * Hexadecimal SHA-256 of it, for the next [`FileWrite`].
 */
hash: string, 
/**
 * Permission bits: those it had before.
 */
mode: number, };

export type GitStatus = { 
/**
 * A folder in it, as in [`crate::FileList`].
 */
path: string, };

export type GitChange = { 
/**
 * Where it is.
 */
path: string, 
/**
 * Where it was, if it was moved or copied.
 */
from?: string, 
/**
 * What will be committed, as the letter that `git status --short` shows: `M`, `A`, `D`, `R`, `C`, `T`, `U`, `?` or `.` for nothing.
 */
staged: string, 
/**
 * What was done since, by the same letters.
 */
unstaged: string, };

export type GitState = { 
/**
 * The top of the working tree; the paths below are below it.
 */
root: string, 
/**
 * The commit that is checked out; none before the first one.
 */
head: string | null, 
/**
 * The branch; none when a commit is checked out by itself.
 */
branch: string | null, 
/**
 * The branch elsewhere that this one follows.
 */
upstream: string | null, 
/**
 * Commits that the upstream lacks; none without an upstream.
 */
ahead: number | null, 
/**
 * Commits of the upstream that are not here.
 */
behind: number | null, 
/**
 * What differs from the commit, at most [`MAX_CHANGES`].
 */
changes: Array<GitChange>, 
/**
 * There are more than that.
 */
more: boolean, };

export type GitDiff = { 
/**
 * A folder in the working tree.
 */
path: string, 
/**
 * Those that will be committed, instead of those that will not.
 */
staged: boolean, 
/**
 * Those of this commit instead: a hash, a branch or a tag.
 */
commit?: string, 
/**
 * Only of these files, below the top of the working tree; of all when empty.
 */
files: Array<string>, };

export type GitPatch = { 
/**
 * A unified diff; what is not UTF-8 in it is replaced.
 */
text: string, 
/**
 * It is longer than [`MAX_DIFF`] and ends at a line; this says so to a person.
 */
cut?: string, };

export type GitLog = { 
/**
 * A folder in the working tree.
 */
path: string, 
/**
 * From this commit on: a hash, a branch or a tag; what is checked out when missing.
 */
from?: string, 
/**
 * How many of them to pass over.
 */
skip: number, 
/**
 * How many, [`GIT_PAGE`] at most; 30 when 0.
 */
count: number, };

export type GitCommitEntry = { 
/**
 * Its hash.
 */
commit: string, 
/**
 * Those of its parents.
 */
parents: Array<string>, 
/**
 * Whose work it is.
 */
author: string, 
/**
 * Their address.
 */
email: string, 
/**
 * When they did it, Unix milliseconds.
 */
at: number, 
/**
 * The first line of its message, cut after 1 KiB.
 */
subject: string, };

export type GitHistory = { 
/**
 * Newest first.
 */
commits: Array<GitCommitEntry>, 
/**
 * There are older ones.
 */
more: boolean, };

export type GitCommit = { 
/**
 * A folder in the working tree.
 */
path: string, 
/**
 * Its message, at most 64 KiB.
 */
message: string, 
/**
 * Only these files, below the top of the working tree, as they are now; new and deleted ones too.
 */
files: Array<string>, 
/**
 * Everything that differs; without this and without files, what is staged.
 */
all: boolean, };

export type GitCommitted = { 
/**
 * The hash of the commit.
 */
commit: string, 
/**
 * The branch that has it; none when no branch is checked out.
 */
branch: string | null, };

export type GitPush = { 
/**
 * A folder in the working tree.
 */
path: string, 
/**
 * Make it follow the branch of the same name at this remote, and send it there.
 */
set_upstream?: string, };

export type GitPushed = { 
/**
 * The remote's name.
 */
remote: string, 
/**
 * The branch there.
 */
branch: string, 
/**
 * Its commit now.
 */
commit: string, 
/**
 * It had it already.
 */
up_to_date: boolean, };

export type Followed<E> = { 
/**
 * The log.
 */
log: string, 
/**
 * Where the caller is with this answer.
 */
number: number, 
/**
 * The events up to there, in order.
 */
missed: Array<E>, 
/**
 * False: there is no saying what came after the place that was named; ask for the lists again.
 */
complete: boolean, 
/**
 * The rest did not fit; ask again.
 */
more: boolean, };

export interface Calls {
  "machine.info": { params: MachineInfo; result: Machine };
  "machine.records": { params: MachineRecordsGet; result: MachineRecords };
  "metrics.get": { params: MetricsGet; result: Metrics };
  "device.list": { params: DeviceList; result: Array<Device> };
  "device.revoke": { params: DeviceRevoke; result: Done };
  "device.rename": { params: DeviceRename; result: Device };
  "machine.stop": { params: MachineStop; result: Done };
  "file.list": { params: FileList; result: FileListing };
  "file.read": { params: FileRead; result: FilePart };
  "file.write": { params: FileWrite; result: FileWritten };
  "git.status": { params: GitStatus; result: GitState };
  "git.diff": { params: GitDiff; result: GitPatch };
  "git.log": { params: GitLog; result: GitHistory };
  "git.commit": { params: GitCommit; result: GitCommitted };
  "git.push": { params: GitPush; result: GitPushed };
  "events.follow": { params: EventsFollow; result: Followed<Told> };
  "session.list": { params: SessionList; result: Array<Session> };
  "session.create": { params: SessionCreate; result: Session };
  "session.attach": { params: SessionAttach; result: Attached };
  "session.detach": { params: SessionDetach; result: Done };
  "session.kill": { params: SessionKill; result: Done };
  "session.pause": { params: SessionPause; result: Session };
  "session.resume": { params: SessionResume; result: Session };
  "session.rename": { params: SessionRename; result: Session };
  "session.type": { params: SessionType; result: Done };
  "session.record": { params: SessionRecord; result: Session };
  "session.stop_recording": { params: SessionStopRecording; result: Session };
  "session.take_control": { params: SessionTakeControl; result: Done };
  "session.give_control": { params: SessionGiveControl; result: Done };
  "prompt.list": { params: PromptList; result: Array<Prompt> };
  "prompt.answer": { params: PromptAnswer; result: PromptAnswered };
  "terminal.resize": { params: TerminalResize; result: Done };
}
