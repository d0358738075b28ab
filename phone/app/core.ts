/** The one door between the face and the protocol core, which is Rust compiled to wasm (`phone/src`). */

import init, { Core as WasmCore, readInvitation as readLink, Terminal as WasmTerminal } from "../build/core/happy_phone.js";
import wasmUrl from "../build/core/happy_phone_bg.wasm?url";
import type { Calls, Entry, MachineMetadata, MachineState, Role } from "./rpc";

/** What the core tells without being asked. The Rust side is `phone/src/bridge/event.rs`. */
export type CoreEvent =
  | { kind: "relay"; origin: string; up: boolean; why: string; last: boolean }
  | { kind: "presence"; device: string; here: boolean }
  | { kind: "link"; device: string; up: boolean; why: string }
  | { kind: "refused"; device: string; reason: string }
  | { kind: "event"; device: string; body: string }
  /** What a machine says of itself, over its link or, then with `last_seen` (Unix ms, 0: unknown), in what it left at its relay. */
  | { kind: "record"; device: string; last_seen?: number; metadata?: MachineMetadata; state?: MachineState }
  | { kind: "code"; code: string; machine: string; role: Role }
  | { kind: "paired"; device: string }
  | { kind: "pairing_failed"; message: string }
  /** A sentence that a person should read. */
  | { kind: "notice"; text: string }
  /** `outbox` gives another list. */
  | { kind: "outbox" }
  /** `exportState` gives something new that must be stored. */
  | { kind: "state" };

/** A machine that this device is paired with, as the core knows it. */
export interface Peer {
  device: string;
  name: string;
  /** What this device is to the machine. */
  role: Role;
  relays: string[];
  /** Unix seconds. */
  pairedAt: number;
  /** Its keys are of another version of this app, so it has to be paired again. */
  outdated: boolean;
}

/**
 * How the loaded state stands to the trace that the last stored one left: `older`, a newer one was stored once; `other`, the
 * trace is of another device.
 */
export type Standing = "sound" | "trace_lost" | "older" | "other";

/** What an invitation says of itself. */
export interface Invitation {
  origin: string;
  role: Role;
  /** Unix seconds. */
  expires: number;
}

/** A run of cells that look alike: [UTF-16 units, cells, foreground, background, attributes, colour of the underline, number of the link]. */
export const RUN_FIELDS = 7;
export const enum Attribute {
  Bold = 1,
  Faint = 2,
  Italic = 4,
  Underline = 8,
  Strike = 16,
  Inverse = 32,
  Blink = 64,
  /** The font may give these characters another width than their cells have. */
  Fixed = 128,
  Concealed = 256,
  Overline = 512,
  /** Three bits, so many times this: 1 double, 2 curly, 3 dotted, 4 dashed. */
  UnderlineStyle = 1024,
}

/** What a program has set and the page must know. */
export const enum Mode {
  /** It draws on the alternate screen, which has no history. */
  Alternate = 1,
  /** It wants to know where one taps. */
  Mouse = 2,
  /** It is told what is pasted as one piece. */
  BracketedPaste = 4,
}

export const enum Mouse {
  Press,
  Release,
  WheelUp,
  WheelDown,
}

/** Numbers before the cells of `Terminal.guesses`, and of each cell: row, column, character. */
export const GUESS_HEAD = 3;
export const GUESS_FIELDS = 3;

/** A live view of one session. It attaches again by itself whenever its link comes back. */
export interface Terminal {
  /** False until the first snapshot or output has been applied. */
  readonly ready: boolean;
  readonly attached: boolean;
  /** Why attaching failed for good, as a sentence. */
  readonly problem: string | undefined;
  readonly cols: number;
  readonly rows: number;
  /** The viewer's own foreground and background change places. */
  readonly reversed: boolean;
  readonly title: string;
  readonly bells: number;
  readonly cursorColumn: number;
  readonly cursorRow: number;
  readonly cursorVisible: boolean;
  /** Increases when everything that was drawn must be drawn again. */
  readonly generation: number;
  /** Absolute number of the oldest row that has scrolled off and is kept, here or at the machine, and of the first that has not scrolled off. */
  readonly historyStart: number;
  readonly historyEnd: number;
  /** Increases with each page of history that comes from the machine. */
  readonly historyLoaded: number;
  readonly youControl: boolean;
  readonly controller: string;
  /** How the program ended, as a sentence. */
  readonly ended: string | undefined;
  /** Input bytes that the machine has not yet confirmed to have typed. */
  readonly unconfirmedInput: number;
  /** The program is in the middle of an update that it wants shown as a whole. */
  readonly updating: boolean;
  /** Bits of `Mode`. */
  readonly modes: number;
  /**
   * What stands for the echo that has not come: 1 if it shall be marked, row and column of the cursor (the number of rows when it is not guessed), then the
   * cells. Empty when nothing is guessed.
   */
  guesses(): Uint32Array;
  /** How many rows have moved from the top of the screen to the history, then the rows of the screen to draw anew. */
  takeChanges(): Uint32Array;
  rowText(row: number): string;
  /** Addresses of the web that the runs of a row name, from 1. */
  rowLinks(row: number): string[];
  rowRuns(row: number): Uint32Array;
  /** The line goes on in the next row. */
  rowWrapped(row: number): boolean;
  /** The first row of history from this one on that is here; `historyEnd` if none is. */
  historyHere(row: number): number;
  /** Asks the machine for the newest `rows` rows before a row, if nothing is on its way yet. */
  wantHistory(before: number, rows: number): void;
  historyText(row: number): string;
  historyLinks(row: number): string[];
  historyRuns(row: number): Uint32Array;
  historyWrapped(row: number): boolean;
  /** A named key or a single character with modifiers; false when it stands for nothing. */
  key(name: string, ctrl: boolean, alt: boolean, shift: boolean): boolean;
  text(text: string): boolean;
  paste(text: string): boolean;
  /** False when the program does not want to know. */
  mouse(event: Mouse, column: number, row: number): boolean;
  /** Takes back what was typed or pasted and has not left. */
  takeBackInput(): void;
  /** Asks to decide the size. */
  takeControl(cols: number, rows: number): Promise<unknown>;
  /** Lets whoever decided the size before decide it again. */
  giveControl(): Promise<unknown>;
  resize(cols: number, rows: number): void;
  /** Detaches; the session goes on. The object is used no more. */
  close(): void;
}

/** Over which a terminal reaches the machine that serves this page: its websockets, by number. The Rust side is `phone/src/bridge/way.rs`. */
export interface Wire {
  attach(channel: number, call: string): void;
  send(channel: number, message: Uint8Array): boolean;
  ask(channel: number, text: string): void;
  hangUp(channel: number): void;
  say(text: string): void;
}

/** A terminal that is told what comes on its websockets. */
export interface SocketTerminal extends Terminal {
  socketBegin(): void;
  socketText(channel: number, text: string): void;
  socketMessage(channel: number, message: Uint8Array): void;
  socketWritable(channel: number): void;
  socketRefused(channel: number, body: string): void;
  socketClosed(channel: number, reason: string): void;
}

/** Who looks at a session, and how much fits on the screen. */
export interface Viewer {
  name: string;
  cols: number;
  rows: number;
  /** Decide the size from the start. */
  control: boolean;
}

export interface Core {
  readonly deviceId: string;
  readonly version: string;
  /** The secret state: identity, machines, secrets, counters. To be sealed, and stored in the place of all before. */
  exportState(): Uint8Array<ArrayBuffer>;
  /** What to leave elsewhere once the state of the last `exportState` is stored. */
  readonly trace: string;
  /** The state that left this trace is stored: machines may be told to count on it. */
  stored(trace: string): void;
  standing(trace: string | null): Standing;
  start(): void;
  stop(): void;
  peers(): Peer[];
  safetyNumber(device: string): string;
  call<M extends keyof Calls>(device: string, method: M, params: Calls[M]["params"]): Promise<Calls[M]["result"]>;
  /**
   * Takes a call that is made as soon as it can be, once, also after a reload; gives its number on the list. It is not begun later
   * than `within` ms from now. Those about one session go one after the other.
   */
  command<M extends keyof Calls>(device: string, method: M, params: Calls[M]["params"], within: number, session?: string): number;
  /** Takes a command back; false when it was sent already. */
  cancelCommand(number: number): boolean;
  /** Takes a command that has ended off the list. */
  dismissCommand(number: number): void;
  /** The commands that wait, and for a day those that have ended. */
  outbox(): Entry[];
  openTerminal(device: string, session: string, viewer: Viewer, changed: () => void): Terminal;
  pair(link: string, name: string): void;
  cancelPairing(): void;
  forget(device: string): void;
  /** While someone looks, lost connections are dialled again sooner. */
  setActive(active: boolean): void;
  /** After a sleep or a change of network: find out now whether the connection still lives. */
  wake(): void;
}

/** A call that was refused or did not come to an end. */
export class CallFailed extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

/** Loads the core with stored state, or lets it make an identity when there is none. */
export async function loadCore(state: Uint8Array | null, listen: (event: CoreEvent) => void): Promise<Core> {
  await init({ module_or_path: wasmUrl });
  const wasm = new WasmCore(state ?? undefined, (json: string) => {
    try {
      listen(JSON.parse(json) as CoreEvent);
    } catch (error) {
      // Rust has nobody to tell.
      reportError(error);
    }
  });
  return {
    deviceId: wasm.deviceId,
    version: wasm.version,
    exportState: () => wasm.exportState() as Uint8Array<ArrayBuffer>,
    get trace() {
      return wasm.trace;
    },
    stored: (trace) => wasm.stored(trace),
    standing: (trace) => wasm.standing(trace ?? undefined) as Standing,
    start: () => wasm.start(),
    stop: () => wasm.stop(),
    peers: () => JSON.parse(wasm.peers()) as Peer[],
    safetyNumber: (device) => wasm.safetyNumber(device),
    call: async (device, method, params) => readAnswer((await wasm.call(device, JSON.stringify({ method, params }))) as string),
    command: (device, method, params, within, session) => wasm.command(device, session, JSON.stringify({ method, params }), within),
    cancelCommand: (number) => wasm.cancelCommand(number),
    dismissCommand: (number) => wasm.dismissCommand(number),
    outbox: () => JSON.parse(wasm.outbox()) as Entry[],
    openTerminal: (device, session, viewer, changed) =>
      wasm.openTerminal(device, session, viewer.name, viewer.cols, viewer.rows, viewer.control, changed),
    pair: (link, name) => wasm.pair(link, name),
    cancelPairing: () => wasm.cancelPairing(),
    forget: (device) => wasm.forget(device),
    setActive: (active) => wasm.setActive(active),
    wake: () => wasm.wake(),
  };
}

/** Loads the core without any state, for terminals of the machine that serves this page. */
export async function loadTerminals(): Promise<void> {
  await init({ module_or_path: wasmUrl });
}

/** Shows a session of the machine that serves this page. Only after `loadTerminals`. */
export function overSocket(session: string, viewer: Viewer, changed: () => void, wire: Wire): SocketTerminal {
  return WasmTerminal.overSocket(session, viewer.name, viewer.cols, viewer.rows, viewer.control, changed, wire);
}

/** Reads a link or throws an Error whose message is a sentence for the person who gave it. */
export function readInvitation(link: string): Invitation {
  return JSON.parse(readLink(link)) as Invitation;
}

type Answer<T> = { ok: T } | { error: { code: string; message: string } };

function readAnswer<T>(json: string): T {
  const answer = JSON.parse(json) as Answer<T>;
  if ("ok" in answer) return answer.ok;
  throw new CallFailed(answer.error.code, answer.error.message);
}
