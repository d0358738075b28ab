/** Where a session is shown and typed into: the rows, the field behind them that a keyboard writes into, and what lies over them. */

import { signal, type Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Terminal } from "../core";
import { say } from "../model";
import { fontSize, isDark, typing } from "../settings";
import { Icon } from "../ui";
import { amount } from "../words";
import { handleKeyDown, releaseAll } from "./keys";
import { LiveTyping } from "./live";
import { installPalette } from "./palette";
import { requestPaste } from "./paste";
import { selectedText } from "./rows";
import { NOTHING, View, type Frame, type Open } from "./view";

/** Fingers are a phone's or a tablet's; its keyboard edits text, and asks to be called up. */
export const COARSE = matchMedia("(pointer: coarse)").matches;

/** More than this that waits to be typed is a paste, and its progress is shown. */
export const PROGRESS_FROM = 64 * 1024;

/** A phone's keyboard offers no words for a password and corrects none; an input method composes in a text. */
const FIELD = { type: COARSE ? "password" : "text" } as { type: "text" };

/** What is shown around a stage. */
export interface StageState {
  frame: Signal<Frame>;
  selected: Signal<boolean>;
}

export function useStageState(): StageState {
  return useState(() => ({ frame: signal(NOTHING), selected: signal(false) }))[0];
}

/** What is around a stage acts on it by this. */
export interface StageHandle {
  view: View;
  /** A key was sent by other means than the stage's own. */
  onKey: () => void;
  /** Calls the keyboard up. */
  focus: () => void;
}

interface StageProps {
  handle: { current: StageHandle | null };
  view: StageState;
  /** Read once, like `control`. */
  open: Open;
  /** Decide the size from the start. */
  control: boolean;
  title: string;
  hidden: boolean;
  /** What is seen is not the present. */
  stale: boolean;
  mayType: boolean;
  /** A tap calls a phone's keyboard up. */
  typesOnTap: boolean;
  /** What is waited for while there is nothing to show. */
  opening: string;
  /** Lies over the rows. */
  children?: ComponentChildren;
}

export function Stage(props: StageProps) {
  const { mayType } = props;
  const { frame, selected } = props.view;
  const scroller = useRef<HTMLDivElement>(null);
  const field = useRef<HTMLInputElement>(null);
  const view = useRef<View | null>(null);
  const [away] = useState(() => signal(false));
  const terminal = (): Terminal | null => view.current?.terminal ?? null;

  const latest = useRef(props);
  latest.current = props;
  /** Nobody types it any more once the terminal is left. */
  const tellUntyped = (left: Terminal) => {
    const [bytes, { stale, title }] = [left.unconfirmedInput, latest.current];
    // With a connection a few bytes are on their way, and arrive.
    if (left.ended !== undefined || bytes === 0 || (!stale && bytes < PROGRESS_FROM)) return;
    say(`Not all was typed: the last ${amount(bytes)} may not have reached ${title}.`, true);
  };

  const dark = isDark();
  useLayoutEffect(() => {
    installPalette(dark);
    // Only the colours: the view, and what it shows while there is no connection, stays.
    view.current?.recolour();
  }, [dark]);
  useLayoutEffect(() => {
    const live = new View(scroller.current!, field.current!, props.open, props.control, {
      show: (next) => (frame.value = next),
      scrolled: (scrolled) => (away.value = scrolled),
      selected: (is) => (selected.value = is),
    });
    view.current = live;
    const keys = new LiveTyping(field.current!, terminal, !COARSE, (text) => live.compose(text), () => live.typed());
    props.handle.current = {
      view: live,
      onKey: () => {
        keys.beginAnew();
        live.typed();
      },
      focus: () => field.current?.focus({ preventScroll: true }),
    };
    // A finger would call up the phone's keyboard; a mouse belongs to someone with a real one.
    if (!COARSE) field.current!.focus({ preventScroll: true });
    return () => {
      view.current = null;
      props.handle.current = null;
      keys.close();
      tellUntyped(live.terminal);
      live.close();
      releaseAll();
    };
  }, []);
  const size = fontSize.value;
  useEffect(() => view.current?.measure(), [size, typing.value]);
  useEffect(() => view.current?.setMayType(mayType), [mayType]);

  const onKeyDown = (event: KeyboardEvent) => {
    if (event.shiftKey && event.key === "Escape") return (event.currentTarget as HTMLElement).blur();
    const open = terminal();
    if (!mayType || !open || !handleKeyDown(open, event)) return;
    event.preventDefault();
    props.handle.current?.onKey();
  };
  const onPaste = (event: ClipboardEvent) => {
    const text = event.clipboardData?.getData("text/plain");
    const open = terminal();
    if (!mayType || !text || !open) return;
    event.preventDefault();
    requestPaste(open, text);
    props.handle.current?.onKey();
  };

  return (
    <div class="stage" hidden={props.hidden}>
      <div
        ref={scroller}
        class={props.stale ? "rows stale" : "rows"}
        tabIndex={0}
        role="group"
        aria-label={`Terminal: ${props.title}`}
        aria-describedby="terminal-help"
        onKeyDown={onKeyDown}
        onClick={(event) => {
          // What was selected stays so that it can be copied.
          if (getSelection()?.type === "Range") return;
          view.current?.tap(event.clientX, event.clientY);
          if (mayType && (props.typesOnTap || !COARSE)) field.current?.focus({ preventScroll: true });
          // The keyboard comes, and with it somebody who types.
          if (mayType && props.typesOnTap && COARSE) view.current?.typed();
        }}
        onCopy={(event) => {
          const selection = getSelection();
          const text = selection && selectedText(selection);
          if (!text) return;
          event.preventDefault();
          event.clipboardData?.setData("text/plain", text);
        }}
        onPaste={onPaste}
      />
      <input
        ref={field}
        class="livefield"
        {...FIELD}
        aria-label="Keys for the terminal"
        aria-describedby="terminal-help"
        autocapitalize="off"
        autocomplete="off"
        autocorrect="off"
        spellcheck={false}
        enterkeyhint="enter"
        tabIndex={-1}
        disabled={!mayType}
        data-1p-ignore
        data-lpignore="true"
        onKeyDown={onKeyDown}
        onPaste={onPaste}
      />
      <p id="terminal-help" class="unseen">
        What you type goes to the session. Shift and Escape leave the terminal.
      </p>
      {!frame.value.ready && !props.hidden && (
        <p class="waiting" role="status">
          <span class="spinner" aria-hidden="true" /> {props.opening}
        </p>
      )}
      {away.value && (
        <button class="jump" onClick={() => view.current?.toEnd()}>
          <Icon name="down" /> Latest
        </button>
      )}
      {props.children}
      {selected.value && (
        <div class="selection">
          <button class="button primary" onPointerDown={(event) => event.preventDefault()} onClick={() => void view.current?.copySelection()}>
            <Icon name="copy" /> Copy
          </button>
          <span role="status">New output waits while text is selected.</span>
        </div>
      )}
    </div>
  );
}
