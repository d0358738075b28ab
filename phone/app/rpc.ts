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
recording?: Recording, } & ({ "state": "running" } | { "state": "exited", 
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

export type Event = { "event": "session.changed", "data": Session } | { "event": "session.removed", "data": { 
/**
 * Which.
 */
session: string, } } | { "event": "session.list_again", "data": Record<symbol, never> } | { "event": "device.changed", "data": Array<Device> };

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
session: string, } } | { "event": "session.list_again", "data": Record<symbol, never> } | { "event": "device.changed", "data": Array<Device> });

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
  "device.list": { params: DeviceList; result: Array<Device> };
  "device.revoke": { params: DeviceRevoke; result: Done };
  "events.follow": { params: EventsFollow; result: Followed<Told> };
  "session.list": { params: SessionList; result: Array<Session> };
  "session.create": { params: SessionCreate; result: Session };
  "session.attach": { params: SessionAttach; result: Attached };
  "session.detach": { params: SessionDetach; result: Done };
  "session.kill": { params: SessionKill; result: Done };
  "session.type": { params: SessionType; result: Done };
  "session.record": { params: SessionRecord; result: Session };
  "session.stop_recording": { params: SessionStopRecording; result: Session };
  "session.take_control": { params: SessionTakeControl; result: Done };
  "session.give_control": { params: SessionGiveControl; result: Done };
  "terminal.resize": { params: TerminalResize; result: Done };
}
