/** The sessions of one machine. */

import { useEffect, useState } from "preact/hooks";
import { attempt, machine, now, queue, refreshMachine, say, startShell, statusFor, theCore } from "../model";
import { go, replace } from "../route";
import type { Session } from "../rpc";
import { roomForNewSession } from "../terminal/size";
import { Confirm, Dot, Empty, Icon, TopBar } from "../ui";
import { ago, mayAct, sessionState, shortPath } from "../words";
import { About } from "./about";
import { presence } from "./machines";
import { Queue } from "./queue";
import { Refused } from "./refused";

export function Sessions(props: { device: string }) {
  const m = machine(props.device);
  const [starting, setStarting] = useState(false);
  const [ending, setEnding] = useState<Session | null>(null);
  useEffect(() => {
    if (machine(props.device)?.linked) void refreshMachine(props.device);
  }, [props.device]);
  if (!m) return <UnknownMachine />;

  const act = mayAct(m.info?.role ?? m.role);
  const sessions = [...(m.sessions ?? [])].sort(
    (a, b) => Number(b.state === "running") - Number(a.state === "running") || b.created_at - a.created_at,
  );
  const start = async () => {
    if (!m.linked) {
      queue(m.device, "session.create", { command: [], ...roomForNewSession() });
      return;
    }
    setStarting(true);
    const made = await attempt("The shell was not started.", () => startShell(m.device, roomForNewSession()));
    setStarting(false);
    if (made) go({ at: "terminal", device: m.device, session: made.id });
  };
  const end = (session: Session) =>
    attempt("The session was not ended.", async () => {
      await theCore().call(m.device, "session.kill", { session: session.id });
      say(session.state === "running" ? "The session is being ended." : "Taken off the list.");
      await refreshMachine(m.device);
    });

  return (
    <>
      <TopBar title={m.info?.name ?? m.name} subtitle={m.info ? `${m.info.os} · happy ${m.info.version}` : presence(m).text} device={m.device}>
        {!m.refused && (
          <button class="iconbutton" aria-label="Devices of this machine" onClick={() => go({ at: "devices", device: m.device })}>
            <Icon name="devices" />
          </button>
        )}
      </TopBar>
      <main class="page">
        {m.refused && <Refused machine={m} />}
        {!m.linked && !m.refused && <p class="hint">{statusFor(m.device).detail}{m.sessions && " What you see is from before."}</p>}
        {act && !m.refused && (
          <button class="button primary wide" disabled={starting} onClick={start}>
            <Icon name="plus" /> {starting ? "Starting…" : m.linked ? "New shell" : "New shell, when connected"}
          </button>
        )}
        <Queue device={m.device} />
        {m.sessions && sessions.length === 0 && !m.refused && (
          <Empty icon="terminal" title="No sessions yet">
            <p>
              Start a shell here, or run <code>happy run</code> followed by any command on {m.name}. It goes on when you leave.
            </p>
          </Empty>
        )}
        {!m.sessions && m.linked && <p class="hint" role="status">Reading the sessions…</p>}
        <ul class={m.linked ? "cards" : "cards stale"} hidden={m.refused !== null}>
          {sessions.map((session) => {
            const state = sessionState(session);
            return (
              <li key={session.id} class="row">
                <button class="card" onClick={() => go({ at: "terminal", device: m.device, session: session.id })}>
                  <span class="main">
                    <strong>{session.title || session.name}</strong>
                    {session.kind !== "tmux" && <span class="muted mono clip">{shortPath(session.cwd, m.info?.home)}</span>}
                    <span class="muted">
                      <Dot tone={state.tone} /> {state.text} · {ago(session.created_at, now.value)}
                      {session.viewers > 0 && ` · ${session.viewers} looking`}
                    </span>
                  </span>
                  <Icon name="chevron" />
                </button>
                {act && (
                  <button
                    class="iconbutton side"
                    disabled={!m.linked}
                    aria-label={session.state === "running" ? `End ${session.name}` : `Take ${session.name} off the list`}
                    onClick={() => (session.state === "running" ? setEnding(session) : void end(session))}
                  >
                    <Icon name="close" />
                  </button>
                )}
              </li>
            );
          })}
        </ul>
        {!m.refused && <About machine={m} />}
      </main>
      {ending && (
        <Confirm title={`End ${ending.title || ending.name}?`} yes="End it" onClose={() => setEnding(null)} onYes={() => void end(ending)}>
          <p>
            {ending.kind === "tmux"
              ? "The tmux session ends with all its windows, for everyone who is attached to it. What its programs have not saved is lost."
              : "The program gets a hang-up and, if it is still there after five seconds, is ended without mercy. What it has not saved is lost."}
          </p>
        </Confirm>
      )}
    </>
  );
}

export function UnknownMachine() {
  return (
    <>
      <TopBar title="Unknown machine" />
      <main class="page">
        <Empty icon="machine" title="This machine is not paired">
          <p>The address names a machine that this browser does not know.</p>
          <button class="button primary wide" onClick={() => replace({ at: "machines" })}>
            Show my machines
          </button>
        </Empty>
      </main>
    </>
  );
}
