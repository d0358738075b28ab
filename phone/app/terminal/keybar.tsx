/** The keys that a phone's keyboard lacks. Pressing one keeps the keyboard up and the place where one was typing. */

import { useRef } from "preact/hooks";
import type { Terminal } from "../core";
import { say } from "../model";
import { alt, ctrl, press, sendKey } from "./keys";

/** Held arrows and deletions repeat like those of a keyboard. */
const REPEAT_AFTER_MS = 400;
const REPEAT_EVERY_MS = 60;

interface Key {
  face: string;
  name: string;
  /** For those who hear it. */
  label: string;
  ctrl?: boolean;
  repeats?: boolean;
}

const KEYS: Key[] = [
  { face: "←", name: "ArrowLeft", label: "Left", repeats: true },
  { face: "↓", name: "ArrowDown", label: "Down", repeats: true },
  { face: "↑", name: "ArrowUp", label: "Up", repeats: true },
  { face: "→", name: "ArrowRight", label: "Right", repeats: true },
];
const MORE: Key[] = [
  { face: "^C", name: "c", label: "Control C, ^C", ctrl: true },
  { face: "^D", name: "d", label: "Control D, ^D", ctrl: true },
  { face: "⌫", name: "Backspace", label: "Backspace", repeats: true },
  { face: "⏎", name: "Enter", label: "Enter" },
  { face: "|", name: "|", label: "Pipe" },
  { face: "/", name: "/", label: "Slash" },
  { face: "-", name: "-", label: "Dash" },
  { face: "~", name: "~", label: "Tilde" },
  { face: "Home", name: "Home", label: "Home" },
  { face: "End", name: "End", label: "End" },
  { face: "PgUp", name: "PageUp", label: "PgUp, page up", repeats: true },
  { face: "PgDn", name: "PageDown", label: "PgDn, page down", repeats: true },
];

export function KeyBar(props: { terminal: () => Terminal | null; disabled: boolean }) {
  const send = (key: Key) => {
    const terminal = props.terminal();
    if (terminal) sendKey(terminal, key.name, { ctrl: key.ctrl ?? false, alt: false, shift: false });
  };
  const paste = async () => {
    try {
      const text = await navigator.clipboard.readText();
      if (text) props.terminal()?.paste(text);
      else say("The clipboard is empty.");
    } catch {
      say("This browser does not let the page read the clipboard. Press long in the text field and paste there.", true);
    }
  };
  const { disabled } = props;
  return (
    <div class="keybar" role="toolbar" aria-label="Extra keys">
      <KeyButton face="Esc" label="Esc" disabled={disabled} onPress={() => send({ face: "Esc", name: "Escape", label: "Esc" })} />
      <KeyButton face="Tab" label="Tab" disabled={disabled} onPress={() => send({ face: "Tab", name: "Tab", label: "Tab" })} />
      <Modifier face="Ctrl" label="Ctrl" modifier={ctrl} disabled={disabled} />
      <Modifier face="Alt" label="Alt" modifier={alt} disabled={disabled} />
      {KEYS.map((key) => (
        <KeyButton key={key.name} face={key.face} label={key.label} repeats disabled={disabled} onPress={() => send(key)} />
      ))}
      <KeyButton face="Paste" label="Paste" disabled={disabled} onPress={() => void paste()} />
      {MORE.map((key) => (
        <KeyButton key={key.face} face={key.face} label={key.label} repeats={key.repeats ?? false} disabled={disabled} onPress={() => send(key)} />
      ))}
    </div>
  );
}

function Modifier(props: { face: string; label: string; modifier: typeof ctrl; disabled: boolean }) {
  const state = props.modifier.value;
  return (
    <button
      class={`key ${state}`}
      aria-label={state === "locked" ? `${props.label}, held` : props.label}
      aria-pressed={state !== "off"}
      disabled={props.disabled}
      onPointerDown={(event) => event.preventDefault()}
      onClick={() => press(props.modifier)}
    >
      {props.face}
    </button>
  );
}

function KeyButton(props: { face: string; label: string; repeats?: boolean; disabled: boolean; onPress: () => void }) {
  const timer = useRef(0);
  const repeated = useRef(false);
  // The timer outlives this drawing of the button; what it does must not.
  const latest = useRef(props.onPress);
  latest.current = props.onPress;
  const stop = () => clearTimeout(timer.current);
  const repeat = () => {
    repeated.current = true;
    latest.current();
    timer.current = window.setTimeout(repeat, REPEAT_EVERY_MS);
  };
  return (
    <button
      class="key"
      aria-label={props.label}
      disabled={props.disabled}
      onPointerDown={(event) => {
        // The text field keeps the focus, and with it the phone keeps its keyboard up.
        event.preventDefault();
        repeated.current = false;
        if (props.repeats) timer.current = window.setTimeout(repeat, REPEAT_AFTER_MS);
      }}
      onPointerUp={stop}
      onPointerCancel={stop}
      onPointerLeave={stop}
      onClick={() => {
        stop();
        if (!repeated.current) props.onPress();
        repeated.current = false;
      }}
      onContextMenu={(event) => event.preventDefault()}
    >
      {props.face}
    </button>
  );
}
