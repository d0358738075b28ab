/** What the dashboard shows: signals, kept true by the daemon's events. */

import { batch, computed, signal, type Signal } from "@preact/signals";
import { say, sentence } from "../model";
import type { Glance, Machine, Prompt, PromptEnd, Session } from "../rpc";
import { follow, forget, listPrompts, listSessions, machine as readMachine, NotLetIn, reasonOf, type Told } from "./api";

export const letIn = signal(false);
export const live = signal(false);
export const machine = signal<Machine | null>(null);
export const now = signal(Date.now());
/** null: not read yet. */
export const sessions = signal<Session[] | null>(null);
/** The prompts that wait, by their ids: several of one session can, of which the session names the one to be seen to first. */
export const prompts = signal<ReadonlyMap<string, Prompt>>(new Map());
export const selected = signal<ReadonlySet<string>>(new Set());

export type Shown = "all" | "running" | "waiting" | "failed";
export const shown = signal<Shown>("all");
export const wanted = signal("");
export const ORDERS = { newest: "Newest first", oldest: "Oldest first", name: "By name", active: "Last active first" } as const;
export type Order = keyof typeof ORDERS;
export const order = signal<Order>("newest");

export const isRunning = (session: Session): boolean => session.state === "running";
/** Not when somebody wanted it to end, however it did. */
export const hasFailed = (session: Session): boolean =>
  session.state === "lost" ||
  (!session.told_to_end && (session.state === "killed" || (session.state === "exited" && session.code !== 0)));

/** It cannot go on without a person. */
export const isWaiting = (session: Session): boolean => isRunning(session) && session.prompt !== undefined;

export const counts = computed(() => {
  const all = sessions.value ?? [];
  const count = (fits: (session: Session) => boolean) => all.filter(fits).length;
  return { all: all.length, running: count(isRunning), waiting: count(isWaiting), failed: count(hasFailed) };
});

/** What a session asks, if it is known. */
export const promptOf = (session: Session): Prompt | undefined => (session.prompt === undefined ? undefined : prompts.value.get(session.prompt));

/** The last line of each session, a signal for each: a line that changes draws one tile and not fifty. */
const lines = new Map<string, Signal<Glance | null>>();
/** Counts the changes of lines, for what looks at all of them. */
const linesChanged = signal(0);

export function lineOf(id: string): Signal<Glance | null> {
  let line = lines.get(id);
  if (!line) lines.set(id, (line = signal(null)));
  return line;
}

export const titleOf = (session: Session): string => session.title || session.name;

const FITS: Record<Shown, (session: Session) => boolean> = { all: () => true, running: isRunning, waiting: isWaiting, failed: hasFailed };

/** Those that are on the screen, in order. */
export const visible = computed(() => {
  const words = wanted.value.toLowerCase().split(/\s+/).filter(Boolean);
  // Otherwise the lines change nothing here, and the grid stays as it is.
  if (words.length > 0 || order.value === "active") void linesChanged.value;
  const says = (session: Session) =>
    [session.name, session.title, session.cwd, session.command.join(" "), lines.get(session.id)?.peek()?.line ?? ""].join("\n").toLowerCase();
  const fits = (session: Session) =>
    FITS[shown.value](session) &&
    (words.length === 0 || words.every((word) => says(session).includes(word)));
  const by: Record<Order, (a: Session, b: Session) => number> = {
    newest: (a, b) => b.created_at - a.created_at,
    oldest: (a, b) => a.created_at - b.created_at,
    name: (a, b) => titleOf(a).localeCompare(titleOf(b), undefined, { numeric: true }),
    active: (a, b) => lastActive(b) - lastActive(a),
  };
  return (sessions.value ?? []).filter(fits).sort((a, b) => by[order.value](a, b) || a.id.localeCompare(b.id));
});

const lastActive = (session: Session): number => lines.get(session.id)?.peek()?.at ?? session.created_at;

/** Those that are selected and on the screen: nothing happens to what is not seen. */
export const chosen = computed(() => visible.value.filter((session) => selected.value.has(session.id)));

export function select(id: string, on: boolean): void {
  const next = new Set(selected.value);
  if (on) next.add(id);
  else next.delete(id);
  selected.value = next;
}

/** Those of which a person is to be asked whether all shall be agreed to: the selected ones, or all on the screen. */
export const askable = computed(() => (chosen.value.length > 0 ? chosen.value : visible.value).filter(isWaiting));

/** What is known now; it reaches the signals with the next frame, however many events there are until then. */
let known = new Map<string, Session>();
let asked = new Map<string, Prompt>();
const fresh = new Map<string, Glance>();
let frame = 0;
let [sessionsChanged, promptsChanged] = [false, false];

function soon(): void {
  if (frame !== 0) return;
  frame = requestAnimationFrame(() => {
    frame = 0;
    batch(() => {
      if (sessionsChanged) {
        sessions.value = [...known.values()];
        const gone = [...selected.value].filter((id) => !known.has(id));
        if (gone.length > 0) selected.value = new Set([...selected.value].filter((id) => known.has(id)));
      }
      if (promptsChanged) prompts.value = new Map(asked);
      for (const [id, glance] of fresh) lineOf(id).value = glance;
      if (fresh.size > 0) linesChanged.value += 1;
    });
    fresh.clear();
    [sessionsChanged, promptsChanged] = [false, false];
  });
}

function gone(id: string): void {
  lines.delete(id);
  fresh.delete(id);
  for (const prompt of asked.values()) if (prompt.session === id) drop(prompt.id);
}

function drop(prompt: string): void {
  if (asked.delete(prompt)) promptsChanged = true;
}

/** What is told while the list is read: a list may be older or newer than that, and the last word counts. */
let meanwhile: Told[] | null = null;

async function readLists(): Promise<void> {
  const told: Told[] = [];
  meanwhile = told;
  try {
    const [info, list, waiting] = await Promise.all([readMachine(), listSessions(), listPrompts()]);
    if (meanwhile !== told) return;
    meanwhile = null;
    machine.value = info;
    known = new Map(list.map((session) => [session.id, session]));
    asked = new Map(waiting.map((prompt) => [prompt.id, prompt]));
    for (const id of [...lines.keys(), ...fresh.keys()]) if (!known.has(id)) gone(id);
    [sessionsChanged, promptsChanged] = [true, true];
    told.forEach(take);
    soon();
  } catch (error) {
    if (meanwhile === told) meanwhile = null;
    if (error instanceof NotLetIn) return leave();
    say(`The sessions could not be read. ${sentence(reasonOf(error))}`, true);
  }
}

/** How prompts ended that waited while this page was open. */
const ended = new Map<string, PromptEnd>();
const ENDED_KEPT = 256;
export const endOf = (prompt: string): PromptEnd | undefined => ended.get(prompt);

function take(told: Told): void {
  switch (told.event) {
    case "session.changed":
      known.set(told.data.id, told.data);
      sessionsChanged = true;
      break;
    case "session.removed":
      known.delete(told.data.session);
      gone(told.data.session);
      sessionsChanged = true;
      break;
    case "session.glances":
      for (const glance of told.data) fresh.set(glance.session, glance);
      break;
    case "prompt.appeared":
      asked.set(told.data.id, told.data);
      promptsChanged = true;
      break;
    case "prompt.ended":
      drop(told.data.prompt);
      ended.set(told.data.prompt, told.data.end);
      // Enough for what is on the screen; a page that is open for months is not to grow.
      if (ended.size > ENDED_KEPT) ended.delete(ended.keys().next().value!);
      // The sheet says how it ended.
      promptsChanged = true;
      break;
    case "session.list_again":
      void readLists();
      break;
    case "device.changed":
    case "machine.changed":
      break;
  }
}

/** The daemon does not know this page any more: it was started anew, or nobody used the page for long. */
export function leave(): void {
  forget();
  letIn.value = false;
  live.value = false;
  sessions.value = null;
  prompts.value = new Map();
  selected.value = new Set();
}

let follows = false;

export function enter(): void {
  letIn.value = true;
  if (follows) return;
  follows = true;
  void follow({
    begun: (whole) => {
      live.value = true;
      if (!whole || sessions.value === null) void readLists();
    },
    told: (told) => {
      if (told.event !== "session.list_again") meanwhile?.push(told);
      take(told);
      soon();
    },
    broken: () => (live.value = false),
    refused: leave,
  }).finally(() => (follows = false));
}

setInterval(() => (now.value = Date.now()), 5_000);
