/** The keys that a phone's keyboard lacks. Pressing one keeps the keyboard up and the place where one was typing. */

import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import type { Terminal } from "../core";
import { say } from "../model";
import { typing } from "../settings";
import { Icon } from "../ui";
import { alt, ctrl, press, sendKey } from "./keys";
import { requestPaste } from "./paste";

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

const ARROWS: Key[] = [
  { face: "←", name: "ArrowLeft", label: "Left", repeats: true },
  { face: "↓", name: "ArrowDown", label: "Down", repeats: true },
  { face: "↑", name: "ArrowUp", label: "Up", repeats: true },
  { face: "→", name: "ArrowRight", label: "Right", repeats: true },
];
/** Beside the switch when there is no text field in that place. */
const SECOND: Key[] = [
  { face: "^C", name: "c", label: "Control C, ^C", ctrl: true },
  { face: "^D", name: "d", label: "Control D, ^D", ctrl: true },
  { face: "⏎", name: "Enter", label: "Enter" },
];
const MORE: Key[] = [
  ...SECOND,
  { face: "^Z", name: "z", label: "Control Z, ^Z", ctrl: true },
  { face: "^R", name: "r", label: "Control R, ^R", ctrl: true },
  { face: "^L", name: "l", label: "Control L, ^L", ctrl: true },
  { face: "⌫", name: "Backspace", label: "Backspace", repeats: true },
  { face: "Del", name: "Delete", label: "Delete", repeats: true },
  { face: "Home", name: "Home", label: "Home" },
  { face: "End", name: "End", label: "End" },
  { face: "PgUp", name: "PageUp", label: "PgUp, page up", repeats: true },
  { face: "PgDn", name: "PageDown", label: "PgDn, page down", repeats: true },
  { face: "|", name: "|", label: "Pipe" },
  { face: "/", name: "/", label: "Slash" },
  { face: "-", name: "-", label: "Dash" },
  { face: "~", name: "~", label: "Tilde" },
  { face: "`", name: "`", label: "Backtick" },
  { face: "Ins", name: "Insert", label: "Insert" },
  ...Array.from({ length: 12 }, (_, index) => ({ face: `F${index + 1}`, name: `F${index + 1}`, label: `F${index + 1}` })),
];

export interface KeyBarProps {
  terminal: () => Terminal | null;
  disabled: boolean;
  /** A key was sent. */
  onKey: () => void;
  /** Shows what is on the screen as text. */
  onText: () => void;
}

export function KeyBar(props: KeyBarProps) {
  const [more, setMore] = useState(false);
  const { disabled } = props;
  return (
    <>
      {more && (
        <div class="morekeys" role="toolbar" aria-label="More keys">
          <KeyButton face="Paste" label="Paste" disabled={disabled} onPress={() => void pasteInto(props)} />
          <KeyButton face="Copy…" label="Screen as text" disabled={false} onPress={props.onText} />
          {MORE.map((key) => (
            <SentKey key={key.face} of={key} {...props} />
          ))}
        </div>
      )}
      <div class="keyrow">
        <div class="keybar" role="toolbar" aria-label="Extra keys">
          <SentKey of={{ face: "Esc", name: "Escape", label: "Esc" }} {...props} />
          <SentKey of={{ face: "Tab", name: "Tab", label: "Tab" }} {...props} />
          <Modifier face="Ctrl" label="Ctrl" modifier={ctrl} disabled={disabled} />
          <Modifier face="Alt" label="Alt" modifier={alt} disabled={disabled} />
          {ARROWS.map((key) => (
            <SentKey key={key.name} of={key} {...props} />
          ))}
          <KeyButton face="Paste" label="Paste" disabled={disabled} onPress={() => void pasteInto(props)} />
        </div>
        <KeyButton face={<Icon name="more" />} label="More keys" pressed={more} disabled={false} onPress={() => setMore(!more)} />
      </div>
    </>
  );
}

/** Stands where the text field does, for who types key by key. */
export function SecondKeys(props: KeyBarProps & { onKeyboard: () => void }) {
  return (
    <div class="secondkeys" role="toolbar" aria-label="Keys for typing">
      <TypingSwitch disabled={props.disabled} onSwitch={() => undefined} />
      <KeyButton face={<Icon name="keyboard" />} label="Show the keyboard" disabled={props.disabled} onPress={props.onKeyboard} />
      {SECOND.map((key) => (
        <SentKey key={key.face} of={key} {...props} />
      ))}
      <KeyButton face="Paste" label="Paste here" disabled={props.disabled} onPress={() => void pasteInto(props)} />
    </div>
  );
}

/** Between a line that is sent whole and typing key by key. */
export function TypingSwitch(props: { disabled: boolean; onSwitch: () => void }) {
  const keys = typing.value === "keys";
  return (
    <button
      type="button"
      class={keys ? "typingswitch once" : "typingswitch"}
      aria-label="Type key by key"
      aria-pressed={keys}
      disabled={props.disabled}
      onPointerDown={(event) => event.preventDefault()}
      onClick={() => {
        typing.value = keys ? "line" : "keys";
        props.onSwitch();
      }}
    >
      <Icon name={keys ? "line" : "keyboard"} />
    </button>
  );
}

async function pasteInto(props: KeyBarProps): Promise<void> {
  try {
    const text = await navigator.clipboard.readText();
    const terminal = props.terminal();
    if (terminal) requestPaste(terminal, text);
    props.onKey();
  } catch {
    say("This browser does not let the page read the clipboard. Press long in the text field and paste there.", true);
  }
}

function SentKey(props: KeyBarProps & { of: Key }) {
  const { of: key } = props;
  const send = () => {
    const terminal = props.terminal();
    if (!terminal) return;
    sendKey(terminal, key.name, { ctrl: key.ctrl ?? false, alt: false, shift: false });
    props.onKey();
  };
  return <KeyButton face={key.face} label={key.label} repeats={key.repeats ?? false} disabled={props.disabled} onPress={send} />;
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
      onClick={(event) => press(props.modifier, event.timeStamp)}
    >
      {props.face}
      {state === "locked" && <Icon name="lock" />}
    </button>
  );
}

interface Face {
  face: ComponentChildren;
  label: string;
  repeats?: boolean;
  pressed?: boolean;
  disabled: boolean;
  onPress: () => void;
}

function KeyButton(props: Face) {
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
      type="button"
      class={props.pressed ? "key once" : "key"}
      aria-label={props.label}
      aria-pressed={props.pressed}
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
