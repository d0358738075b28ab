/** All sessions at a glance. */

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { say, sentence } from "../model";
import type { Session } from "../rpc";
import { isDark, theme } from "../settings";
import { Bar, Confirm, Empty, Icon, Standing } from "../ui";
import { Agree } from "./agree";
import { each, endSession, logout } from "./api";
import {
  askable, chosen, counts, isRunning, leave, live, machine, order, ORDERS, selected, sessions, shown, titleOf, visible, wanted, type Order, type Shown,
} from "./state";
import { notePlaces, Tile } from "./tile";

/** How far down the overview was when a terminal was opened. */
let scrolledTo = 0;

export function Overview() {
  const [ending, setEnding] = useState<Session[] | null>(null);
  const [agreeing, setAgreeing] = useState<Session[] | null>(null);
  const page = useRef<HTMLElement>(null);
  useLayoutEffect(() => {
    page.current!.scrollTop = scrolledTo;
  }, []);
  const info = machine.value;
  return (
    <>
      <Bar
        title={info?.name ?? "Dashboard"}
        subtitle={info ? `${info.os} · happy ${info.version}` : undefined}
        onBack={null}
        status={<Status />}
      >
        <button
          class="iconbutton"
          aria-label={isDark() ? "Light colours" : "Dark colours"}
          onClick={() => (theme.value = isDark() ? "light" : "dark")}
        >
          <Icon name="theme" />
        </button>
        <button class="iconbutton" aria-label="Leave the dashboard" onClick={() => void logout().then(leave)}>
          <Icon name="lock" />
        </button>
      </Bar>
      <main class="page overview" ref={page} onScroll={(event) => (scrolledTo = event.currentTarget.scrollTop)}>
        <Summary />
        <Tools onEnd={() => setEnding(chosen.value)} onAgree={() => setAgreeing(askable.value)} />
        <Grid />
      </main>
      {ending && <End sessions={ending} onClose={() => setEnding(null)} />}
      {agreeing && <Agree sessions={agreeing} onClose={() => setAgreeing(null)} />}
    </>
  );
}

/** Whether what one sees is live. */
export function Status() {
  return <Standing tone={live.value ? "good" : "busy"} text={live.value ? "Live" : "Connecting"} />;
}

/** The numbers, which are filters as well. */
function Summary() {
  const { all, running, waiting, failed } = counts.value;
  const unread = sessions.value === null;
  const card = (what: Shown, name: string, count: number, tone: string) => (
    <button class={`stat ${tone}`} aria-pressed={shown.value === what} onClick={() => (shown.value = shown.value === what ? "all" : what)}>
      <strong>{unread ? "–" : count}</strong>
      <span>{name}</span>
    </button>
  );
  return (
    <div class="stats" role="group" aria-label="Summary">
      {card("all", "Sessions", all, "")}
      {card("running", "Running", running, "good")}
      {card("waiting", "Waiting", waiting, waiting > 0 ? "busy" : "")}
      {card("failed", "Errors", failed, failed > 0 ? "bad" : "")}
    </div>
  );
}

function Tools(props: { onEnd: () => void; onAgree: () => void }) {
  const all = visible.value.length > 0 && chosen.value.length === visible.value.length;
  const some = chosen.value.length > 0;
  return (
    <div class="tools">
      <label class="find">
        <span class="unseen">Find sessions</span>
        <input
          type="search"
          placeholder="Find by name, folder or last line"
          value={wanted.value}
          onInput={(event) => (wanted.value = event.currentTarget.value)}
        />
      </label>
      <label class="order">
        <span class="unseen">Order</span>
        <select value={order.value} onChange={(event) => (order.value = event.currentTarget.value as Order)}>
          {Object.entries(ORDERS).map(([name, text]) => (
            <option key={name} value={name}>
              {text}
            </option>
          ))}
        </select>
      </label>
      <div class="bulk">
        <label class="check">
          <input
            type="checkbox"
            checked={all}
            ref={(box) => {
              if (box) box.indeterminate = some && !all;
            }}
            disabled={visible.value.length === 0}
            onChange={(event) => {
              const on = event.currentTarget.checked;
              selected.value = new Set(on ? visible.value.map((session) => session.id) : []);
            }}
          />
          <span>{some ? `${chosen.value.length} selected` : "Select all"}</span>
        </label>
        <button class="button quiet" disabled={askable.value.length === 0} onClick={props.onAgree}>
          {some ? "Confirm selected" : "Confirm all"}
        </button>
        <button class="button danger" disabled={!some} onClick={props.onEnd}>
          End selected
        </button>
      </div>
    </div>
  );
}

function Grid() {
  const list = useRef<HTMLUListElement>(null);
  // Other tiles come, go and change places with this one drawn, or grow by themselves.
  useLayoutEffect(() => {
    if (list.current) notePlaces(list.current);
  });
  const some = visible.value.length > 0;
  useLayoutEffect(() => {
    const tiles = list.current;
    if (!tiles) return;
    const observer = new ResizeObserver(() => notePlaces(tiles));
    observer.observe(tiles);
    return () => observer.disconnect();
  }, [some]);
  if (sessions.value === null) return <p class="hint" role="status">Reading the sessions…</p>;
  if (sessions.value.length === 0) {
    return (
      <Empty icon="terminal" title="No sessions yet">
        <p>
          Run <code>happy run</code> followed by any command. It shows up here by itself.
        </p>
      </Empty>
    );
  }
  if (visible.value.length === 0) return <p class="hint" role="status">No session fits what you are looking for.</p>;
  return (
    <ul ref={list} class={live.value ? "tiles" : "tiles stale"} aria-label="Sessions">
      {visible.value.map((session) => (
        <Tile key={session.id} session={session} />
      ))}
    </ul>
  );
}

function End(props: { sessions: Session[]; onClose: () => void }) {
  const running = props.sessions.filter(isRunning).length;
  const ended = props.sessions.length - running;
  const end = async () => {
    const failed = await each(props.sessions, (session) => endSession(session.id));
    const done = props.sessions.length - failed.length;
    if (failed.length > 0) say(`${done} done, ${failed.length} not. ${sentence(failed[0]!)}`, true);
    else say(done === 1 ? "One session is being ended." : `${done} sessions are being ended.`);
    selected.value = new Set();
  };
  return (
    <Confirm title={`End ${number(props.sessions.length)}?`} yes={props.sessions.length === 1 ? "End it" : "End them"} onClose={props.onClose} onYes={() => void end()}>
      {running > 0 && (
        <p>
          {running === 1 ? "One program runs. It gets" : `${running} programs run. Each gets`} a hang-up and, if it is still there after five
          seconds, is ended without mercy. What it has not saved is lost.
        </p>
      )}
      {ended > 0 && <p>{ended === 1 ? "One has ended already, and is" : `${ended} have ended already, and are`} taken off the list.</p>}
      <ul class="names">
        {props.sessions.slice(0, 8).map((session) => (
          <li key={session.id} class="clip">
            {titleOf(session)}
          </li>
        ))}
        {props.sessions.length > 8 && <li class="muted">and {props.sessions.length - 8} more</li>}
      </ul>
    </Confirm>
  );
}

const number = (count: number): string => (count === 1 ? "one session" : `${count} sessions`);
