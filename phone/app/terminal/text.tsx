/** What is on the screen as plain text, to take parts of it or all. */

import { useState } from "preact/hooks";
import { copyText } from "../clipboard";
import type { Terminal } from "../core";
import { say } from "../model";
import { Sheet } from "../ui";
import { wholeText } from "./rows";

export function TextSheet(props: { terminal: () => Terminal | null; onClose: () => void }) {
  const [history, setHistory] = useState(false);
  // What the screen showed when one asked, not what it shows now.
  const [texts] = useState(() => {
    const terminal = props.terminal();
    return { screen: terminal ? wholeText(terminal, false) : "", history: terminal ? wholeText(terminal, true) : "" };
  });
  const text = history ? texts.history : texts.screen;
  const copy = async () => {
    if (await copyText(text)) {
      say("Copied.");
      props.onClose();
    } else {
      say("This browser does not let the page write to the clipboard. Select the text and copy it there.", true);
    }
  };
  return (
    <Sheet title="Screen as text" onClose={props.onClose}>
      <div class="segments" role="radiogroup" aria-label="How much">
        <button role="radio" aria-checked={!history} onClick={() => setHistory(false)}>
          Screen
        </button>
        <button role="radio" aria-checked={history} onClick={() => setHistory(true)}>
          With what scrolled off
        </button>
      </div>
      <textarea class="excerpt" readOnly rows={12} value={text} aria-label="The text" />
      <div class="buttons">
        <button class="button primary" disabled={!text} onClick={() => void copy()}>
          Copy all
        </button>
        <button class="button quiet" onClick={props.onClose}>
          Done
        </button>
      </div>
    </Sheet>
  );
}
