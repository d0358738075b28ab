/** What the screens show: signals, kept true by the core's events. */

import { computed, signal } from "@preact/signals";
import type { CoreEvent, Core, Peer } from "./core";
import { CallFailed } from "./core";
import { isBefore, recordOf, type Kept } from "./record";
import type { Calls, Device, Entry, Event as MachineEvent, Machine, Role, Session } from "./rpc";
import { destroyVault, Displaced, leaveTrace, type Vault } from "./vault";

/** A paired machine and what is known of it now. Everything unknown is null, and shown as unknown. */
export interface MachineView extends Peer {
  /** null: the relay has not told us. */
  here: boolean | null;
  linked: boolean;
  /** Unix milliseconds. */
  lastSeen: number | null;
  refused: string | null;
  info: Machine | null;
  /** What it said of itself last, kept for when it is away. */
  record: Kept | null;
  sessions: Session[] | null;
  devices: Device[] | null;
}

export type Pairing =
  | { step: "none" }
  | { step: "calling"; link: string }
  | { step: "code"; code: string; machine: string; role: Role }
  | { step: "failed"; message: string };

export interface Relay {
  up: boolean;
  why: string;
  /** No further attempts are made. */
  final: boolean;
  /** Unix milliseconds of the last change. */
  since: number;
}

export const machines = signal<MachineView[]>([]);
/** What was asked of machines and is not done, or was lately. */
export const outbox = signal<Entry[]>([]);
export const relays = signal<ReadonlyMap<string, Relay>>(new Map());
export const pairing = signal<Pairing>({ step: "none" });
export const online = signal(navigator.onLine);
/** Ticks, for "3 min ago" and for what has lasted too long. */
export const now = signal(Date.now());
/** One sentence for the live region and the small note at the bottom. */
export const notice = signal<{ text: string; bad: boolean } | null>(null);
export const deviceId = signal("");

let core: Core | null = null;
let vault: Vault | null = null;
let seen: Record<string, number> = {};
let records: Record<string, Kept> = {};
let noticeTimer = 0;
let stopped = false;
/** The last state was not stored; it is tried again. */
let unsaved = false;
let onDisplaced: () => void = () => undefined;

const TICK_MS = 5_000;
/** Until then a missing connection is just being made. */
const RELAY_AWAY_MS = 4_000;
/** What a relay says of when a machine was there is worth a write when it differs by more than this. */
const SEEN_STEP_MS = 60_000;
const SEEN = "seen";
const RECORDS = "records";
export const STATE = "state";

export function machine(device: string): MachineView | undefined {
  return machines.value.find((m) => m.device === device);
}

/** The core; only after `startModel`, so every screen that is drawn may use it. */
export function theCore(): Core {
  if (!core) throw new Error("the core is not loaded yet");
  return core;
}

/** For a page that has lost the link to another tab, be it loaded or not. */
export function stopModel(): void {
  stopped = true;
  core?.stop();
}

/** @param displaced Called when another tab has opened the vault, which only a browser without locks lets happen. */
export async function startModel(with_: Core, store: Vault, displaced: () => void): Promise<void> {
  core = with_;
  vault = store;
  onDisplaced = displaced;
  seen = await loadKept(store, SEEN);
  records = Object.fromEntries(
    Object.entries(await loadKept<unknown>(store, RECORDS)).flatMap(([device, said]) => {
      const record = recordOf(said);
      return record ? [[device, record]] : [];
    }),
  );
  // Another tab may have taken the link meanwhile.
  if (stopped) return;
  deviceId.value = core.deviceId;
  refreshPeers();
  refreshOutbox();
  setInterval(tick, TICK_MS);
  addEventListener("online", () => (online.value = true));
  addEventListener("offline", () => (online.value = false));
  core.start();
}

/** When machines were seen last, and what they said, is no reason not to start. */
async function loadKept<T>(store: Vault, name: string): Promise<Record<string, T>> {
  try {
    const stored = await store.load(name);
    return stored ? (JSON.parse(new TextDecoder().decode(stored)) as Record<string, T>) : {};
  } catch {
    return {};
  }
}

/** Nothing hangs on it, and a browser that stores nothing is told of by what matters. */
function keep(name: string, what: unknown): void {
  vault?.save(name, new TextEncoder().encode(JSON.stringify(what))).catch((error: unknown) => {
    if (error instanceof Displaced && !stopped) onDisplaced();
  });
}

/** A machine has said what it is, or how it is; whatever it has said. */
function keepRecord(device: string, said: unknown): void {
  const record = recordOf(said);
  if (!record || JSON.stringify(record) === JSON.stringify(records[device])) return;
  records = { ...records, [device]: record };
  update(device, { record });
  void keepRecords();
}

let [isKeeping, isUnkept] = [false, false];

/** Machines say what they are as often as they like: one write is under way at a time, and after it what there is then. */
async function keepRecords(): Promise<void> {
  isUnkept = true;
  if (isKeeping) return;
  isKeeping = true;
  try {
    while (isUnkept) {
      isUnkept = false;
      await vault?.save(RECORDS, new TextEncoder().encode(JSON.stringify(records)));
    }
  } catch (error) {
    if (error instanceof Displaced && !stopped) onDisplaced();
  } finally {
    isKeeping = false;
  }
}

/** Of machines that have said one half and not yet the other. */
const halves = new Map<string, Partial<Kept>>();

/** What a machine says of itself, or the relay of a machine that is away. */
function takeRecord({ device, last_seen, metadata, state }: Extract<CoreEvent, { kind: "record" }>): void {
  if (last_seen !== undefined) {
    // Who is there is told before; of who is not, and was not since this page was opened, a relay says nothing by itself.
    if (machine(device)?.here === null) update(device, { here: false });
    const at = Math.min(last_seen, Date.now());
    if (at > (seen[device] ?? 0) + SEEN_STEP_MS) {
      seen = { ...seen, [device]: at };
      update(device, { lastSeen: at });
      keep(SEEN, seen);
    }
  }
  const before = machine(device)?.record;
  if (state && before && isBefore(state, before.state)) state = undefined;
  const record = { ...before, ...halves.get(device), ...(metadata && { metadata }), ...(state && { state }) };
  if (!recordOf(record)) halves.set(device, record);
  else {
    halves.delete(device);
    keepRecord(device, record);
  }
}

/** The latest events may arrive while `loadCore` is still running, so this is a function of the module. */
export function handle(event: CoreEvent): void {
  switch (event.kind) {
    case "state":
      void persist();
      break;
    case "outbox":
      refreshOutbox();
      break;
    case "relay": {
      const before = relays.value.get(event.origin);
      // Every failed attempt is told; what counts is since when there is no connection.
      const since = before?.up === event.up ? before.since : Date.now();
      relays.value = new Map(relays.value).set(event.origin, { up: event.up, why: event.why, final: event.last, since });
      now.value = Date.now();
      // What a relay told is worth nothing once it is gone.
      if (!event.up) forgetPresence(event.origin);
      break;
    }
    case "presence":
      touch(event.device, { here: event.here });
      break;
    case "link":
      // A relay's word that a machine has gone may overtake the last that the machine said, and with that a link that comes up and is dead.
      touch(event.device, event.up ? { linked: true, here: machine(event.device)?.here ?? true, refused: null } : { linked: false });
      // What was missed comes as events; what could not be read before is read now.
      if (event.up && unread.has(event.device)) void refreshMachine(event.device);
      break;
    case "refused":
      update(event.device, { refused: event.reason, linked: false });
      break;
    case "event":
      handleMachineEvent(event.device, event.body);
      break;
    case "record":
      takeRecord(event);
      break;
    case "code":
      pairing.value = { step: "code", code: event.code, machine: event.machine, role: event.role };
      break;
    case "paired":
      update(event.device, { refused: null });
      refreshPeers();
      // Without it a browser deletes what it stores when space runs short, or nobody came for a while.
      void navigator.storage?.persist?.();
      pairing.value = { step: "none" };
      pairedWith.value = event.device;
      break;
    case "notice":
      say(event.text, true);
      break;
    case "pairing_failed":
      pairing.value = { step: "failed", message: event.message };
      break;
  }
}

/** Set once after each successful pairing; the pair screen moves on from there. */
export const pairedWith = signal<string | null>(null);

export function say(text: string, bad = false): void {
  notice.value = { text, bad };
  clearTimeout(noticeTimer);
  noticeTimer = window.setTimeout(() => (notice.value = null), bad ? 8_000 : 4_000);
}

/** A call whose failure is told to the person as it is. */
export async function attempt<T>(what: string, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    // The link was given up: the machine removed this device, or it was forgotten here. The screen says so itself.
    if (!(error instanceof CallFailed && error.code === "gone")) say(`${what} ${reason(error)}`, true);
    return undefined;
  }
}

function reason(error: unknown): string {
  if (error instanceof CallFailed) return sentence(error.message);
  return sentence(error instanceof Error ? error.message : String(error));
}

export function sentence(text: string): string {
  const trimmed = text.trim();
  if (!trimmed) return "No reason was given.";
  const end = /[.!?]$/.test(trimmed) ? "" : ".";
  return trimmed[0]!.toUpperCase() + trimmed.slice(1) + end;
}

function refreshOutbox(): void {
  if (core) outbox.value = core.outbox();
}

/** How long something that was asked for without a connection is still wanted. */
const QUEUED_FOR_MS = 15 * 60_000;

/** Asks a machine for something, now or as soon as it can be reached; the list of commands shows what becomes of it. */
export function queue<M extends keyof Calls>(device: string, method: M, params: Calls[M]["params"], session?: string): boolean {
  try {
    theCore().command(device, method, params, QUEUED_FOR_MS, session);
    return true;
  } catch (error) {
    say(`This cannot be kept until it can be sent. ${reason(error)}`, true);
    return false;
  }
}

/** Machines whose lists have to be read again. */
const unread = new Set<string>();
/** What they tell while their lists are being read: a list may be older or newer than that, and the last word counts. */
const meanwhile = new Map<string, string[]>();

/** An answer with fewer sessions is the last one (PROTOCOL 10). */
const SESSION_PAGE = 32;
/** More than a machine keeps. One that tells of more is not believed. */
const MOST_SESSIONS = 8_192;

async function listSessions(device: string): Promise<Session[]> {
  const sessions: Session[] = [];
  for (;;) {
    const last = sessions.at(-1);
    const page = await theCore().call(device, "session.list", last ? { after: { created_at: last.created_at, session: last.id } } : {});
    // A machine that does not know of places begins anew.
    const known = new Set(sessions.map((session) => session.id));
    const fresh = page.filter((session) => !known.has(session.id));
    sessions.push(...fresh);
    if (page.length < SESSION_PAGE || fresh.length === 0 || sessions.length >= MOST_SESSIONS) return sessions;
  }
}

export async function refreshMachine(device: string): Promise<void> {
  unread.add(device);
  const told: string[] = [];
  meanwhile.set(device, told);
  await attempt("The machine's state could not be read.", async () => {
    const [info, sessions] = await Promise.all([
      theCore().call(device, "machine.info", {}),
      listSessions(device),
      machine(device)?.devices ? refreshDevices(device) : undefined,
    ]);
    // Another reading began later, and knows more.
    if (meanwhile.get(device) !== told) return;
    meanwhile.delete(device);
    unread.delete(device);
    update(device, { info, sessions });
    told.forEach((body) => handleMachineEvent(device, body));
  });
  if (meanwhile.get(device) === told) meanwhile.delete(device);
}

/** Sessions that were started from this page: whoever starts one decides its size until another takes control. */
const startedHere = new Set<string>();

export async function startShell(device: string, size: { cols: number; rows: number }): Promise<Session> {
  const session = await theCore().call(device, "session.create", { command: [], ...size });
  startedHere.add(session.id);
  return session;
}

export function decidesSize(device: string, session: string): boolean {
  const known = machine(device)?.sessions?.find((s) => s.id === session);
  return startedHere.has(session) && !known?.controller;
}

export async function refreshDevices(device: string): Promise<void> {
  await attempt("The devices could not be read.", async () => {
    update(device, { devices: await theCore().call(device, "device.list", {}) });
  });
}

/** Forgets a machine on this device only. The machine still knows this device until it is removed there. */
export function forgetMachine(device: string): void {
  theCore().forget(device);
  const { [device]: _, ...others } = records;
  records = others;
  halves.delete(device);
  void keepRecords();
  refreshPeers();
}

function handleMachineEvent(device: string, body: string): void {
  const event = JSON.parse(body) as MachineEvent;
  if (event.event !== "session.list_again") noteMeanwhile(device, body);
  // Before the list was read one of it would look like the whole.
  const sessions = machine(device)?.sessions;
  switch (event.event) {
    case "session.changed": {
      const changed = event.data;
      if (!sessions || (sessions.length >= MOST_SESSIONS && !sessions.some((s) => s.id === changed.id))) break;
      update(device, { sessions: [...sessions.filter((s) => s.id !== changed.id), changed] });
      break;
    }
    case "session.removed":
      if (sessions) update(device, { sessions: sessions.filter((s) => s.id !== event.data.session) });
      break;
    case "session.list_again":
      void refreshMachine(device);
      break;
    case "device.changed":
      update(device, { devices: event.data });
      break;
    case "machine.changed": {
      const record = machine(device)?.record;
      if (record) keepRecord(device, { ...record, state: event.data });
      break;
    }
  }
}

/** Kept of what is told while lists are read; after more than this they are read again. */
const MOST_MEANWHILE = 4_096;

function noteMeanwhile(device: string, body: string): void {
  const told = meanwhile.get(device);
  if (!told) return;
  if (told.length < MOST_MEANWHILE) told.push(body);
  else void refreshMachine(device);
}

function refreshPeers(): void {
  const known = new Map(machines.value.map((m) => [m.device, m]));
  machines.value = theCore()
    .peers()
    .map((peer) => ({
      ...(known.get(peer.device) ?? {
        here: null,
        linked: false,
        lastSeen: seen[peer.device] ?? null,
        // This device refuses itself: no link is tried with such keys.
        refused: peer.outdated ? OUTDATED : null,
        info: null,
        record: records[peer.device] ?? null,
        sessions: null,
        devices: null,
      }),
      ...peer,
    }));
}

function update(device: string, change: Partial<MachineView>): void {
  machines.value = machines.value.map((m) => (m.device === device ? { ...m, ...change } : m));
}

/** A change of presence: when a machine leaves, or just was here, that is when it was seen last. */
function touch(device: string, change: Partial<MachineView>): void {
  const before = machine(device);
  if (change.here || before?.here || before?.linked) {
    seen = { ...seen, [device]: Date.now() };
    change = { ...change, lastSeen: Date.now() };
    keep(SEEN, seen);
  }
  update(device, change);
}

function forgetPresence(origin: string): void {
  for (const m of machines.value) {
    if (m.relays.includes(origin)) touch(m.device, { here: null, linked: false });
  }
}

/** Seals and stores the state, then lets the links count on it. The order of the calls is the order of the states. */
export async function storeState(from: Core, into: Vault): Promise<void> {
  const bytes = from.exportState();
  const trace = from.trace;
  await into.save(STATE, bytes);
  leaveTrace(trace);
  from.stored(trace);
}

async function persist(): Promise<void> {
  if (!core || !vault || stopped) return;
  try {
    await storeState(core, vault);
    if (unsaved) say("This browser stores again.");
    unsaved = false;
  } catch (error) {
    if (stopped) return;
    if (error instanceof Displaced) return onDisplaced();
    if (!unsaved) say(`This browser did not store the newest keys, so a reload may lose a pairing. It is tried again. ${reason(error)}`, true);
    unsaved = true;
  }
}

function tick(): void {
  now.value = Date.now();
  if (outbox.value.length > 0) refreshOutbox();
  if (unsaved) void persist();
}

export type Status = { tone: "good" | "busy" | "bad" | "idle"; text: string; detail: string };

/** One line for the top bar: the worst thing that stands between the person and what they look at. */
export function statusFor(device: string | null): Status {
  const m = device ? machine(device) : undefined;
  if (!online.value) {
    return { tone: "bad", text: "Offline", detail: "This phone has no network. Everything goes on when it is back." };
  }
  if (machines.value.length === 0) return { tone: "idle", text: "Not paired", detail: "No machine is paired yet." };
  if (m?.refused) return refusedStatus(m.refused, m.name);
  if (m?.linked) {
    return { tone: "good", text: "Connected", detail: `End-to-end encrypted link to ${m.name}.` };
  }
  const concerned = m ? m.relays : [...new Set(machines.value.flatMap((each) => each.relays))];
  const states = concerned.map((origin) => relays.value.get(origin)).filter((r) => r !== undefined);
  const up = states.some((r) => r.up);
  if (!up) {
    const final = states.find((r) => r.final);
    if (final) return { tone: "bad", text: "Stopped", detail: sentence(final.why) };
    const since = Math.min(...states.map((r) => r.since), now.value);
    if (now.value - since > RELAY_AWAY_MS) {
      return { tone: "bad", text: "Relay away", detail: "The relay cannot be reached. Sessions run on; this phone keeps trying." };
    }
    return { tone: "busy", text: "Connecting", detail: "Connecting to the relay." };
  }
  if (!m) {
    const linked = machines.value.filter((each) => each.linked).length;
    if (linked > 0) return { tone: "good", text: "Connected", detail: `Linked to ${linked} of ${machines.value.length} machines.` };
    const [first] = machines.value;
    if (first?.refused && machines.value.every((each) => each.refused)) return refusedStatus(first.refused, first.name);
    if (machines.value.some((each) => each.here && !each.refused)) return { tone: "busy", text: "Connecting", detail: "Agreeing on keys." };
    return { tone: "idle", text: "Relay up", detail: "The relay is there; no machine is." };
  }
  if (m.here === false) return { tone: "bad", text: "Machine away", detail: `${m.name} is not connected to the relay.` };
  return { tone: "busy", text: "Connecting", detail: `Agreeing on keys with ${m.name}.` };
}

const OUTDATED = "outdated";
const UNKNOWN_SECRET = "unknown secret";

function refusedStatus(why: string, name: string): Status {
  const text = why === "revoked" ? "Removed" : why === OUTDATED || why === UNKNOWN_SECRET ? "Old keys" : "Refused";
  return { tone: "bad", text, detail: refusal(why, name) };
}

/** For a line in a list. */
export function refusedShort(why: string): string {
  if (why === "revoked") return "this device was removed";
  return why === OUTDATED || why === UNKNOWN_SECRET ? "has to be paired again" : "refuses this device";
}

export function refusal(why: string, name: string): string {
  switch (why) {
    case "revoked":
      return `${name} has removed this device and refuses its key for good. To use the device again, start anew with a new key and pair it.`;
    case "unknown device":
      return `${name} does not know this device any more. Pair it again.`;
    case UNKNOWN_SECRET:
      return `This phone’s keys come from an older copy: its storage was restored, or somebody else has used a copy of it. ${name} no longer accepts them. Pair again; if a copy may be in strange hands, remove this device at ${name} first.`;
    case OUTDATED:
      return `This phone’s keys for ${name} were made by another version of this app and no longer fit. Pair again; nothing was deleted.`;
    default:
      return `${name} refused this device: ${why}.`;
  }
}

/** Forgets keys and machines, and begins as a device that nobody knows. */
export async function startAnew(): Promise<void> {
  core?.stop();
  await destroyVault(vault);
  // The address still names a machine that nobody will know; a reload would ask for it.
  history.replaceState(null, "", "/");
  location.reload();
}

export const anyLinked = computed(() => machines.value.some((m) => m.linked));
