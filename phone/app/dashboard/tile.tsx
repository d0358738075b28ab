/** One session in the overview. */

import { useState } from "preact/hooks";
import { Answers, DEAD_MS } from "../answers";
import { say, sentence } from "../model";
import { SOURCE } from "../prompts";
import type { Prompt, Session } from "../rpc";
import { Dot, Icon } from "../ui";
import { ago, sessionState, shortPath } from "../words";
import { answerPrompt, reasonOf } from "./api";
import { openTerminal } from "./place";
import { isWaiting, lineOf, machine, now, promptOf, select, selected, titleOf } from "./state";

export function Tile(props: { session: Session }) {
  const { session } = props;
  const state = sessionState(session);
  const line = lineOf(session.id).value?.line;
  const on = selected.value.has(session.id);
  const waits = isWaiting(session);
  const title = titleOf(session);
  return (
    <li class={`tile${on ? " chosen" : ""}${waits ? " waits" : ""}`} data-session={session.id}>
      <div class="head">
        <label>
          <input type="checkbox" checked={on} onChange={(event) => select(session.id, event.currentTarget.checked)} />
          <strong class="clip">{title}</strong>
        </label>
        <button class="iconbutton" aria-label={`Open the terminal of ${title}`} title="Open the terminal" onClick={() => openTerminal(session.id)}>
          <Icon name="terminal" />
        </button>
      </div>
      <div class="line">
        <p class="mono clip" title={line}>
          {line || "\u00a0"}
        </p>
        <ProgressOf session={session} />
      </div>
      {waits && <Question session={session} />}
      <p class="muted clip">
        <Dot tone={state.tone} /> {state.text} · {ago(session.created_at, now.value)}
        {session.viewers > 0 && ` · ${session.viewers} looking`}
        {session.kind !== "tmux" && ` · ${shortPath(session.cwd, machine.value?.home)}`}
      </p>
    </li>
  );
}

/** How far the program says it is, under its last line. It takes no room of its own, so that nothing moves when it comes and goes. */
function ProgressOf(props: { session: Session }) {
  const { progress } = props.session;
  if (!progress || props.session.state !== "running") return null;
  const { state, percent } = progress;
  const words = { normal: "", error: "failed", paused: "stands still", indeterminate: "works" }[state];
  const text = [percent === undefined || state === "indeterminate" ? "" : `${percent} %`, words].filter(Boolean).join(", ");
  return (
    <>
      <span class="percent">{text}</span>
      <div
        class={`progress ${state}`}
        role="progressbar"
        aria-label="Progress"
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={state === "indeterminate" ? undefined : percent}
        aria-valuetext={text}
      >
        <span style={{ width: state === "indeterminate" || percent === undefined ? "100%" : `${percent}%` }} />
      </div>
    </>
  );
}

function Question(props: { session: Session }) {
  const prompt = promptOf(props.session);
  const open = (
    <button class="button quiet" onClick={() => openTerminal(props.session.id)}>
      Answer in the terminal
    </button>
  );
  if (!prompt) return <div class="ask">{open}</div>;
  return (
    <section class="ask" aria-label={SOURCE[prompt.source]}>
      <p class="source">
        {SOURCE[prompt.source]} {prompt.source === "screen" && <span class="tag">a guess</span>}
      </p>
      <p class="mono question">{prompt.question}</p>
      {prompt.choices.length > 0 ? <Choices prompt={prompt} /> : open}
    </section>
  );
}

function Choices(props: { prompt: Prompt }) {
  const { prompt } = props;
  const [answering, setAnswering] = useState(false);
  const answer = async (choice: number) => {
    // Tiles move when others grow, come and go: a finger may be on its way to what was here before.
    if (hasJustMoved(prompt.session)) return say("This had just moved, so nothing was answered. Look, and press again.", true);
    setAnswering(true);
    try {
      const given = await answerPrompt(prompt.id, choice);
      say(`Answered: ${given.label}`);
    } catch (error) {
      // It says who was faster.
      say(`It was not answered. ${sentence(reasonOf(error))}`, true);
    }
    setAnswering(false);
  };
  return <Answers prompt={prompt.id} choices={prompt.choices} disabled={answering} onAnswer={(choice) => void answer(choice)} />;
}

/** Where the tiles that wait stand, and when each came there. */
const places = new Map<string, { top: number; left: number; since: number }>();

/** To be called whenever tiles may have moved. */
export function notePlaces(list: HTMLElement): void {
  const here = new Set<string>();
  for (const tile of list.querySelectorAll<HTMLElement>(".tile.waits")) {
    const id = tile.dataset["session"] ?? "";
    const { offsetTop: top, offsetLeft: left } = tile;
    const before = places.get(id);
    here.add(id);
    if (!before || before.top !== top || before.left !== left) places.set(id, { top, left, since: performance.now() });
  }
  for (const id of places.keys()) if (!here.has(id)) places.delete(id);
}

function hasJustMoved(session: string): boolean {
  const place = places.get(session);
  return place !== undefined && performance.now() - place.since < DEAD_MS;
}
