/** Pasting. Several lines are shown first: what a web page puts on the clipboard may not be what it showed. */

import { signal } from "@preact/signals";
import { Mode, type Terminal } from "../core";
import { say } from "../model";
import { Sheet } from "../ui";
import { amount } from "../words";

/** More than this is shown before it is pasted, even on one line. */
const LONG = 2_000;
/** So much of it is shown. */
const SHOWN_LINES = 12;
const SHOWN_CHARACTERS = 1_000;

const asked = signal<string | null>(null);

/** Pastes, or asks first. */
export function requestPaste(terminal: Terminal, text: string): void {
  if (!text) return say("The clipboard is empty.");
  if (text.length > LONG || /[\r\n]/.test(text)) asked.value = text;
  else paste(terminal, text);
}

function paste(terminal: Terminal, text: string): void {
  if (!terminal.paste(text)) say("That is too much to paste, or the session takes no more input. Nothing was pasted.", true);
}

/** Asks, when something waits to be pasted. */
export function PasteSheet(props: { terminal: () => Terminal | null; onPaste: () => void }) {
  const text = asked.value;
  if (text === null) return null;
  const terminal = props.terminal();
  const lines = text.replace(/[\r\n]+$/, "").split(/\r\n|\r|\n/);
  const shown = lines.slice(0, SHOWN_LINES).join("\n").slice(0, SHOWN_CHARACTERS);
  const whole = ((terminal?.modes ?? 0) & Mode.BracketedPaste) !== 0;
  const much = lines.length > 1 ? `${lines.length.toLocaleString("en")} lines` : amount(new Blob([text]).size);
  return (
    <Sheet title={`Paste ${much}?`} onClose={() => (asked.value = null)}>
      <pre class="excerpt" tabIndex={0}>
        {shown}
        {(lines.length > SHOWN_LINES || shown.length === SHOWN_CHARACTERS) && "\n…"}
      </pre>
      <p class="muted">
        {whole
          ? "The program takes it as one piece; it can be looked over before it is sent."
          : /[\r\n]/.test(text)
            ? "The program gets it as if it were typed: each line end is an Enter."
            : "The program gets it as if it were typed."}
      </p>
      <div class="buttons">
        <button
          class="button primary"
          onClick={() => {
            asked.value = null;
            if (terminal) paste(terminal, text);
            props.onPaste();
          }}
        >
          Paste
        </button>
        <button class="button quiet" onClick={() => (asked.value = null)}>
          Cancel
        </button>
      </div>
    </Sheet>
  );
}
