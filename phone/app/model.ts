/** What the screens show: signals, kept true by the core's events. */

import { computed, signal } from "@preact/signals";
import type { CoreEvent, Core, Peer } from "./core";
import { CallFailed } from "./core";
import type { Device, Event as MachineEvent, Machine, Role, Session } from "./rpc";
import type { Vault } from "./vault";

/** A paired machine and what is known of it now. Everything unknown is null, and shown as unknown. */
export interface MachineView extends Peer {
  /** null: the relay has not told us. */
  here: boolean | null;
  linked: boolean;
  /** Unix milliseconds. */
  lastSeen: number | null;
  refused: string | null;
  info: Machine | null;
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
let noticeTimer = 0;

const TICK_MS = 5_000;
/** Until then a missing connection is just being made. */
const RELAY_AWAY_MS = 4_000;
const SEEN = "seen";
export const STATE = "state";

export function machine(device: string): MachineView | undefined {
  return machines.value.find((m) => m.device === device);
}

/** The core; only after `startModel`, so every screen that is drawn may use it. */
export function theCore(): Core {
  if (!core) throw new Error("the core is not loaded yet");
  return core;
}

export function theVault(): Vault {
  if (!vault) throw new Error("the vault is not open yet");
  return vault;
}

/** For a page that has lost the link to another tab, be it loaded or not. */
export function stopModel(): void {
  core?.stop();
}

export async function startModel(with_: Core, store: Vault): Promise<void> {
  core = with_;
  vault = store;
  const stored = await store.load(SEEN);
  if (stored) seen = JSON.parse(new TextDecoder().decode(stored)) as Record<string, number>;
  deviceId.value = core.deviceId;
  refreshPeers();
  setInterval(() => (now.value = Date.now()), TICK_MS);
  addEventListener("online", () => (online.value = true));
  addEventListener("offline", () => (online.value = false));
  core.start();
}

/** The latest events may arrive while `loadCore` is still running, so this is a function of the module. */
export function handle(event: CoreEvent): void {
  switch (event.kind) {
    case "state":
      void persist();
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
      touch(event.device, event.up ? { linked: true, here: true, refused: null } : { linked: false });
      if (event.up) void refreshMachine(event.device);
      break;
    case "refused":
      update(event.device, { refused: event.reason, linked: false });
      break;
    case "event":
      handleMachineEvent(event.device, event.body);
      break;
    case "code":
      pairing.value = { step: "code", code: event.code, machine: event.machine, role: event.role };
      break;
    case "paired":
      refreshPeers();
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

export async function refreshMachine(device: string): Promise<void> {
  await attempt("The machine's state could not be read.", async () => {
    const [info, sessions] = await Promise.all([
      theCore().call(device, "machine.info", {}),
      theCore().call(device, "session.list", {}),
    ]);
    update(device, { info, sessions });
  });
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
  refreshPeers();
}

function handleMachineEvent(device: string, body: string): void {
  const event = JSON.parse(body) as MachineEvent;
  const sessions = machine(device)?.sessions ?? [];
  switch (event.event) {
    case "session.changed": {
      const changed = event.data;
      const rest = sessions.filter((s) => s.id !== changed.id);
      update(device, { sessions: [...rest, changed] });
      break;
    }
    case "session.removed":
      update(device, { sessions: sessions.filter((s) => s.id !== event.data.session) });
      break;
    case "session.list_again":
      void refreshMachine(device);
      break;
    case "device.changed":
      update(device, { devices: event.data });
      break;
  }
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
        refused: null,
        info: null,
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
    void vault?.save(SEEN, new TextEncoder().encode(JSON.stringify(seen)));
  }
  update(device, change);
}

function forgetPresence(origin: string): void {
  for (const m of machines.value) {
    if (m.relays.includes(origin)) touch(m.device, { here: null, linked: false });
  }
}

async function persist(): Promise<void> {
  if (!core || !vault) return;
  try {
    await vault.save(STATE, core.exportState());
  } catch (error) {
    say(`This browser did not store the state, so a reload may lose the pairing. ${reason(error)}`, true);
  }
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

function refusedStatus(why: string, name: string): Status {
  return { tone: "bad", text: why === "revoked" ? "Removed" : "Refused", detail: refusal(why, name) };
}

export function refusal(why: string, name: string): string {
  return why === "revoked"
    ? `${name} has removed this device and refuses its key for good. To use the device again, start anew with a new key and pair it.`
    : why === "unknown device"
      ? `${name} does not know this device any more. Pair it again.`
      : `${name} refused this device: ${why}.`;
}

/** Forgets keys and machines, and begins as a device that nobody knows. */
export async function startAnew(): Promise<void> {
  theCore().stop();
  await theVault().destroy();
  localStorage.clear();
  // The address still names a machine that nobody will know; a reload would ask for it.
  history.replaceState(null, "", "/");
  location.reload();
}

export const anyLinked = computed(() => machines.value.some((m) => m.linked));
