/**
 * A real text field whose content is sent whole: corrections, dictation, input methods and several lines work as everywhere
 * on the phone, and no keyboard can rewrite what the terminal has already got.
 */

import { useRef, useState } from "preact/hooks";
import type { Terminal } from "../core";
import { say } from "../model";
import { Icon } from "../ui";
import { TypingSwitch } from "./keybar";
import { armed, sendKey } from "./keys";

const MOST_LINES = 6;

export function Compose(props: {
  terminal: () => Terminal | null;
  disabled: boolean;
  /** There is a connection: what is sent is typed at once. */
  live: boolean;
  /** Puts a text on a list until there is one; false when it was not taken. null: there is no list, and the text stays where it is. */
  onQueue: ((text: string) => boolean) | null;
  /** Something was sent. */
  onSent: () => void;
  draft: string;
  onDraft: (text: string) => void;
}) {
  const [text, setText] = useState(props.draft);
  const field = useRef<HTMLTextAreaElement>(null);
  const change = (value: string) => {
    setText(value);
    props.onDraft(value);
  };
  const send = () => {
    const terminal = props.terminal();
    if (!terminal) return;
    if (!props.live && text) {
      if (!props.onQueue) say("There is no connection, so nothing was sent.", true);
      else if (props.onQueue(text)) change("");
      field.current?.focus();
      return;
    }
    // The field is emptied only when all of it was taken.
    if (text && !terminal.paste(text)) return;
    terminal.key("Enter", false, false, false);
    props.onSent();
    change("");
    field.current?.focus();
  };
  return (
    <form
      class="compose"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <TypingSwitch disabled={props.disabled} onSwitch={() => undefined} />
      <textarea
        ref={field}
        value={text}
        rows={Math.min(MOST_LINES, text.split("\n").length)}
        placeholder={props.live ? "Type a command" : props.onQueue ? "Sent when connected" : "Not connected"}
        aria-label="Text to send to the terminal"
        autocapitalize="off"
        autocomplete="off"
        spellcheck={false}
        enterkeyhint="send"
        disabled={props.disabled}
        onInput={(event) => {
          const value = event.currentTarget.value;
          const added = typed(text, value);
          const terminal = props.terminal();
          // With Ctrl or Alt pressed in the key bar a character is a key, not text.
          if (added && armed() && terminal) {
            sendKey(terminal, added);
            props.onSent();
            event.currentTarget.value = text;
          } else {
            change(value);
          }
        }}
        onKeyDown={(event) => {
          if (event.isComposing || event.key !== "Enter" || event.shiftKey) return;
          event.preventDefault();
          send();
        }}
      />
      <button
        class="sendbutton"
        type="submit"
        aria-label={!props.live && text && props.onQueue ? "Send when connected" : text ? "Send with Enter" : "Send Enter"}
        disabled={props.disabled}
        onPointerDown={(event) => event.preventDefault()}
      >
        <Icon name="send" />
      </button>
    </form>
  );
}

/** The one character by which `after` is longer than `before`, if that is the difference. */
function typed(before: string, after: string): string | null {
  if (after.length <= before.length) return null;
  let start = 0;
  while (start < before.length && before[start] === after[start]) start += 1;
  const length = after.length - before.length;
  if (before.slice(start) !== after.slice(start + length)) return null;
  const added = after.slice(start, start + length);
  return [...added].length === 1 ? added : null;
}
