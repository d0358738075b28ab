/**
 * The local API of the machine that serves this page (docs/LOCAL.md).
 *
 * What lets this page in is kept in `sessionStorage`, which belongs to this tab and this origin with its port, and goes in a header. A cookie
 * would go to every port of 127.0.0.1, whoever listens there.
 */

import type { CallError, Event, EventPlace, Glance, Machine, Prompt, PromptAnswered, Session } from "../rpc";

const KEPT = "happy-local";
/** The daemon gives a sign of life every 15 s. */
const SILENCE_MS = 40_000;
const AGAIN_MS = [100, 500, 1_000, 2_000];

/** Calls at once: a browser opens six connections to an origin, of which the events have one. */
const AT_ONCE = 4;

/** The page is not let in, or no longer. */
export class NotLetIn extends Error {}

/** A call was refused. */
export class Refused extends Error {
  constructor(readonly refusal: CallError) {
    super(refusal.message);
  }
}

/** An event, or the last lines of sessions. */
export type Told = (Event & { at?: EventPlace }) | { event: "session.glances"; data: Glance[] };

let token = sessionStorage.getItem(KEPT);

export const isLetIn = (): boolean => token !== null;

/** The secret behind the `#`, which leaves the address bar before anything else happens. */
export function takeSecret(): string | null {
  const secret = /^#login=([\w-]{43})$/.exec(location.hash)?.[1];
  if (secret !== undefined) history.replaceState(null, "", location.pathname);
  return secret ?? null;
}

export async function login(by: { secret: string } | { password: string }): Promise<void> {
  const { token: given } = await ask<{ token: string }>("POST", "/login", by);
  token = given;
  sessionStorage.setItem(KEPT, given);
}

export async function logout(): Promise<void> {
  await ask("DELETE", "/login").catch(() => undefined);
  forget();
}

export function forget(): void {
  token = null;
  sessionStorage.removeItem(KEPT);
}

export const machine = (): Promise<Machine> => ask("GET", "/machine");
export const listSessions = (): Promise<Session[]> => ask("GET", "/sessions");
export const endSession = (id: string): Promise<unknown> => ask("DELETE", `/sessions/${id}`);

export const listPrompts = (): Promise<Prompt[]> => ask("GET", "/prompts");
export const answerPrompt = (prompt: string, choice: number): Promise<PromptAnswered> => ask("POST", "/prompts", { prompt, choice });

/** Does something for each, a few at a time, and gives the reasons of those that failed. */
export async function each<T>(items: T[], work: (item: T) => Promise<unknown>): Promise<string[]> {
  const left = [...items];
  const failed: string[] = [];
  const worker = async () => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) {
      await work(item).catch((error: unknown) => failed.push(reasonOf(error)));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return failed;
}

export const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/**
 * A websocket to the terminal of a session. A page can set no header there, so the token is offered as a subprotocol; a query would stand in
 * histories and logs.
 */
export function dialTerminal(session: string, query: URLSearchParams): WebSocket {
  const socket = new WebSocket(`/sessions/${session}/term?${query}`, ["happy-terminal.v1", `happy-token.${token ?? ""}`]);
  socket.binaryType = "arraybuffer";
  return socket;
}

/** Why a session could not be attached to, as the answer to a call: a websocket that is refused says nothing to the page. */
export async function whyNot(session: string): Promise<{ error: CallError }> {
  try {
    await ask("GET", `/sessions/${session}`);
    return { error: { code: "failed", message: "The daemon does not open this terminal." } };
  } catch (error) {
    if (error instanceof Refused) return { error: error.refusal };
    return { error: { code: "failed", message: error instanceof NotLetIn ? error.message : "The daemon cannot be reached." } };
  }
}

async function ask<T>(method: string, path: string, body?: unknown): Promise<T> {
  const headers = new Headers(authorization());
  if (body !== undefined) headers.set("content-type", "application/json");
  const response = await fetch(path, { method, headers, body: body === undefined ? null : JSON.stringify(body), cache: "no-store" });
  const answer = (await response.json().catch(() => null)) as T | { error: CallError } | null;
  if (response.ok && answer !== null) return answer as T;
  const refusal = answer !== null && typeof answer === "object" && "error" in answer ? answer.error : null;
  const said = refusal?.message ?? `The daemon answered ${response.status}.`;
  if (response.status === 401) throw new NotLetIn(said);
  throw refusal ? new Refused(refusal) : new Error(said);
}

function authorization(): Record<string, string> {
  return token === null ? {} : { authorization: `Bearer ${token}` };
}

export interface Follower {
  /** The stream has begun: whoever reads the lists now misses nothing. `whole` says that nothing was missed since the last one. */
  begun(whole: boolean): void;
  told(told: Told): void;
  /** The stream broke; it is begun anew. */
  broken(): void;
  /** The daemon does not let this page in any more. */
  refused(): void;
}

/** Follows the events until the page is gone, or not let in any more. */
export async function follow(follower: Follower): Promise<void> {
  let last: string | null = null;
  for (let attempt = 0; ; attempt += 1) {
    const stop = new AbortController();
    let silence = 0;
    const heard = () => {
      clearTimeout(silence);
      silence = window.setTimeout(() => stop.abort(), SILENCE_MS);
    };
    heard();
    try {
      const headers = new Headers(authorization());
      if (last !== null) headers.set("last-event-id", last);
      const response = await fetch("/events", { headers, cache: "no-store", signal: stop.signal });
      if (response.status === 401) return follower.refused();
      if (!response.ok || !response.body) throw new Error(`${response.status}`);
      attempt = 0;
      follower.begun(last !== null);
      for await (const event of read(response.body, heard)) {
        last = event.id ?? last;
        follower.told(JSON.parse(event.data) as Told);
      }
    } catch {
      // Whatever it was, it is tried again.
    }
    clearTimeout(silence);
    follower.broken();
    await new Promise((done) => setTimeout(done, AGAIN_MS[Math.min(attempt, AGAIN_MS.length - 1)]));
  }
}

/** Server-sent events; `EventSource` can send no header. */
async function* read(body: ReadableStream<Uint8Array<ArrayBuffer>>, heard: () => void): AsyncGenerator<{ id: string | null; data: string }> {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    text += value;
    const events = text.split("\n\n");
    text = events.pop() ?? "";
    for (const event of events) {
      let [id, data]: [string | null, string | null] = [null, null];
      for (const line of event.split("\n")) {
        if (line.startsWith("id: ")) id = line.slice(4);
        else if (line.startsWith("data: ")) data = line.slice(6);
      }
      if (data !== null) yield { id, data };
    }
  }
}
