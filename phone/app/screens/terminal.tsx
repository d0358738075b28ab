/** One session, live. */

import { signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { copyText } from "../clipboard";
import type { Terminal } from "../core";
import { attempt, decidesSize, machine, online, queue, say, sentence, statusFor, theCore } from "../model";
import { back } from "../route";
import type { Role } from "../rpc";
import { fontSize, isDark, LARGEST_FONT, SMALLEST_FONT, typing } from "../settings";
import { Compose } from "../terminal/compose";
import { KeyBar, SecondKeys } from "../terminal/keybar";
import { handleKeyDown, releaseAll } from "../terminal/keys";
import { LiveTyping } from "../terminal/live";
import { installPalette } from "../terminal/palette";
import { PasteSheet, requestPaste } from "../terminal/paste";
import { Drawing, selectedText } from "../terminal/rows";
import { cellRatio, COMFORTABLE_PX, fit, type Fit } from "../terminal/size";
import { TextSheet } from "../terminal/text";
import { Touch } from "../terminal/touch";
import { Icon, Problem, Sheet, TopBar } from "../ui";
import { keyboardHeight } from "../viewport";
import { amount, aRole, mayAct, thisDeviceName } from "../words";
import { Queue } from "./queue";
import { Refused } from "./refused";
import { UnknownMachine } from "./sessions";

/** The size of a phone's keyboard changes in several steps; one resize at the end is enough for the program. */
const RESIZE_AFTER_MS = 150;
/** A program that says "do not draw yet" and dies must not freeze the screen. */
const HOLD_MS = 150;
/** More than this that waits to be typed is a paste, and its progress is shown. */
const PROGRESS_FROM = 64 * 1024;
/** Fingers are a phone's or a tablet's; its keyboard edits text, and asks to be called up. */
const COARSE = matchMedia("(pointer: coarse)").matches;

/** A phone's keyboard offers no words for a password and corrects none; an input method composes in a text. */
const FIELD = { type: COARSE ? "password" : "text" } as { type: "text" };

/** What the frame around the rows shows; the rows are drawn past Preact. */
interface Frame {
  ready: boolean;
  attached: boolean;
  title: string;
  youControl: boolean;
  controller: string;
  /** From whom this device has taken control; empty when nobody had it. */
  takenFrom: string;
  ended: string | undefined;
  problem: string | undefined;
  unconfirmed: number;
  cols: number;
  rows: number;
}

const NOTHING: Frame = {
  ready: false, attached: false, title: "", youControl: false, controller: "", takenFrom: "", ended: undefined, problem: undefined,
  unconfirmed: 0, cols: 80, rows: 24,
};

/** What was typed and not sent, by session, for as long as the page lives. */
const drafts = new Map<string, string>();

export function TerminalScreen(props: { device: string; session: string }) {
  const m = machine(props.device);
  if (!m) return <UnknownMachine />;
  return <Live key={`${props.device}/${props.session}`} {...props} />;
}

function Live(props: { device: string; session: string }) {
  const m = machine(props.device)!;
  const scroller = useRef<HTMLDivElement>(null);
  const view = useRef<View | null>(null);
  const [frame] = useState(() => signal(NOTHING));
  const [away] = useState(() => signal(false));
  const [selected] = useState(() => signal(false));
  const [choosing, setChoosing] = useState(false);
  const [reading, setReading] = useState(false);
  const field = useRef<HTMLInputElement>(null);
  const typist = useRef<LiveTyping | null>(null);

  const dark = isDark();
  useLayoutEffect(() => {
    installPalette(dark);
    // Only the colours: the view, and what it shows while there is no connection, stays.
    view.current?.recolour();
  }, [dark]);
  useLayoutEffect(() => {
    const live = new View(scroller.current!, field.current!, props.device, props.session, {
      show: (next) => (frame.value = next),
      scrolled: (scrolled) => (away.value = scrolled),
      selected: (is) => (selected.value = is),
    });
    view.current = live;
    const keys = new LiveTyping(field.current!, terminal, !COARSE, (text) => live.compose(text), () => live.typed());
    typist.current = keys;
    // A finger would call up the phone's keyboard; a mouse belongs to someone with a real one.
    if (!COARSE) field.current!.focus({ preventScroll: true });
    return () => {
      view.current = null;
      typist.current = null;
      keys.close();
      live.close();
      releaseAll();
    };
  }, []);
  const size = fontSize.value;
  useEffect(() => view.current?.measure(), [size, typing.value]);

  const session = m.sessions?.find((s) => s.id === props.session);
  const now = frame.value;
  const act = mayAct(m.info?.role ?? m.role);
  const title = now.title || session?.title || session?.name || "Terminal";
  // A phone that says it has no network is believed, though the connection may not have noticed yet.
  const live = m.linked && now.attached && online.value;
  const terminal = () => view.current?.terminal ?? null;
  // A screen that was seen before the machine refused this device stays in sight, but nothing else of the session does.
  const nothing = now.problem !== undefined || (m.refused !== null && !now.ready);
  const mayType = act && !m.refused && now.ended === undefined && now.problem === undefined;
  useEffect(() => view.current?.setMayType(mayType), [mayType]);
  const keyByKey = typing.value === "keys";
  const onKey = () => {
    typist.current?.beginAnew();
    view.current?.typed();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.shiftKey && event.key === "Escape") return (event.currentTarget as HTMLElement).blur();
    const open = terminal();
    if (!mayType || !open || !handleKeyDown(open, event)) return;
    event.preventDefault();
    onKey();
  };
  const onPaste = (event: ClipboardEvent) => {
    const text = event.clipboardData?.getData("text/plain");
    const open = terminal();
    if (!mayType || !text || !open) return;
    event.preventDefault();
    requestPaste(open, text);
    onKey();
  };
  const keys = { terminal, disabled: !mayType, onKey, onText: () => setReading(true) };

  return (
    <>
      <TopBar title={title} subtitle={m.info?.name ?? m.name} device={props.device}>
        {!nothing && (
          <button class="iconbutton" aria-label="Size and control" onClick={() => setChoosing(true)}>
            <Icon name="text" />
          </button>
        )}
      </TopBar>
      <main class="terminal">
        {now.problem !== undefined && !m.refused && (
          <div class="nosession">
            <Problem>{sentence(now.problem)}</Problem>
            <button class="button quiet wide" onClick={back}>
              Back to the sessions
            </button>
          </div>
        )}
        <div class="stage" hidden={nothing}>
          <div
            ref={scroller}
            class={live || now.ended !== undefined ? "rows" : "rows stale"}
            tabIndex={0}
            role="group"
            aria-label={`Terminal: ${title}`}
            aria-describedby="terminal-help"
            onKeyDown={onKeyDown}
            onClick={(event) => {
              // What was selected stays so that it can be copied.
              if (getSelection()?.type === "Range") return;
              view.current?.tap(event.clientX, event.clientY);
              if (mayType && (keyByKey || !COARSE)) field.current?.focus({ preventScroll: true });
              // The keyboard comes, and with it somebody who types.
              if (mayType && keyByKey && COARSE) view.current?.typed();
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
          {!now.ready && !nothing && (
            <p class="waiting" role="status">
              <span class="spinner" aria-hidden="true" /> {m.linked ? "Opening the session" : statusFor(props.device).detail}
            </p>
          )}
          {away.value && (
            <button class="jump" onClick={() => view.current?.toEnd()}>
              <Icon name="down" /> Latest
            </button>
          )}
          {selected.value && (
            <div class="selection">
              <button
                class="button primary"
                onPointerDown={(event) => event.preventDefault()}
                onClick={() => void view.current?.copySelection()}
              >
                <Icon name="copy" /> Copy
              </button>
              <span role="status">New output waits while text is selected.</span>
            </div>
          )}
        </div>
        {!m.refused && <Strip frame={now} live={live} role={m.info?.role ?? m.role} onStop={() => terminal()?.takeBackInput()} />}
        {!m.refused && mayType && now.ready && <Control frame={now} live={live} onTake={() => void view.current?.takeControl()} onGive={() => void view.current?.giveControl()} />}
        {m.refused ? (
          <div class={nothing ? "nosession" : "nosession below"}>
            <Refused machine={m} />
          </div>
        ) : now.ended !== undefined ? (
          <div class="ended">
            <p role="status">{now.ended}</p>
            <button class="button quiet" onClick={back}>
              Back to the sessions
            </button>
          </div>
        ) : (
          act &&
          now.problem === undefined && (
            <div class="input">
              <Queue device={props.device} session={props.session} />
              <KeyBar {...keys} />
              {keyByKey ? (
                <SecondKeys {...keys} onKeyboard={() => field.current?.focus({ preventScroll: true })} />
              ) : (
              <Compose
                terminal={terminal}
                disabled={!mayType}
                live={live}
                onSent={onKey}
                onQueue={(text) => queue(props.device, "session.type", { session: props.session, text, enter: true }, props.session)}
                draft={drafts.get(props.session) ?? ""}
                onDraft={(text) => (text ? drafts.set(props.session, text) : drafts.delete(props.session))}
              />
              )}
            </div>
          )
        )}
      </main>
      {choosing && (
        <SizeSheet
          frame={now}
          mayControl={mayType && live}
          onControl={() => {
            setChoosing(false);
            void (now.youControl ? view.current?.giveControl() : view.current?.takeControl());
          }}
          onText={() => {
            setChoosing(false);
            setReading(true);
          }}
          onClose={() => setChoosing(false)}
        />
      )}
      {reading && <TextSheet terminal={terminal} onClose={() => setReading(false)} />}
      <PasteSheet terminal={terminal} onPaste={onKey} />
    </>
  );
}

/** One quiet line that says why what one sees or typed is not the present. */
function Strip(props: { frame: Frame; live: boolean; role: Role; onStop: () => void }) {
  const { frame, live } = props;
  let text = "";
  if (frame.ended !== undefined || frame.problem !== undefined) return null;
  if (!live && frame.unconfirmed > 0) text = `Not typed yet: ${frame.unconfirmed} bytes. They go out when the connection is back.`;
  else if (!live && frame.ready) text = "Not connected: this is how it was.";
  else if (!mayAct(props.role)) text = `You are ${aRole(props.role)} here: you can look, not type.`;
  if (live && frame.unconfirmed >= PROGRESS_FROM) {
    return (
      <div class="strip over pasting" role="status">
        <span>Pasting: {amount(frame.unconfirmed)} to go</span>
        <button class="button quiet" onClick={props.onStop}>
          Stop
        </button>
      </div>
    );
  }
  return (
    // What passes lies over the rows: if it took their room, the program would be resized whenever a connection comes and goes.
    <p class={!text ? "strip none" : live ? "strip" : "strip over"} role="status" aria-live="polite">
      {text}
    </p>
  );
}

/** Who decides the size, and the way to change that. */
function Control(props: { frame: Frame; live: boolean; onTake: () => void; onGive: () => void }) {
  const { frame } = props;
  // Alone with the session there is nobody to give it to, and nothing to say.
  if (frame.youControl && !frame.takenFrom) return null;
  return (
    <div class="control">
      <span>
        {frame.youControl ? "You decide the size" : frame.controller ? `${frame.controller} decides the size` : "Nobody decides the size"}
        <span class="muted"> · {frame.cols}×{frame.rows}</span>
      </span>
      {/* It stays when the connection goes: without it the rows would have more room, and the program another size. */}
      <button class="button quiet" disabled={!props.live} onClick={frame.youControl ? props.onGive : props.onTake}>
        {frame.youControl ? "Give back" : "Take control"}
      </button>
    </div>
  );
}

const SIZES: [number, string][] = [
  [0, "Fit width"],
  [11, "11"],
  [13, "13"],
  [15, "15"],
  [18, "18"],
];

function SizeSheet(props: { frame: Frame; mayControl: boolean; onControl: () => void; onText: () => void; onClose: () => void }) {
  const { frame } = props;
  return (
    <Sheet title="Size" onClose={props.onClose}>
      <div class="segments" role="radiogroup" aria-label="Text size">
        {SIZES.map(([value, label]) => (
          <button key={value} role="radio" aria-checked={fontSize.value === value} onClick={() => (fontSize.value = value)}>
            {label}
          </button>
        ))}
      </div>
      <p class="muted">
        The screen has {frame.cols} × {frame.rows} cells.{" "}
        {frame.youControl
          ? "This device decides its size."
          : frame.controller
            ? `${frame.controller} decides its size; here it is scaled.`
            : "Nobody decides its size at the moment."}
      </p>
      <button class={frame.youControl ? "button quiet wide" : "button primary wide"} disabled={!props.mayControl} onClick={props.onControl}>
        <Icon name="resize" /> {frame.youControl ? "Give the size back" : "Take control of the size"}
      </button>
      <p class="muted">
        {frame.youControl
          ? "Whoever decided it before decides it again."
          : "The session then takes the shape of this screen, for everyone who looks at it."}
      </p>
      <button class="button quiet wide" onClick={props.onText}>
        <Icon name="copy" /> Copy the screen as text
      </button>
      <button class="button quiet wide" onClick={props.onClose}>
        Done
      </button>
    </Sheet>
  );
}

interface Told {
  show: (frame: Frame) => void;
  /** The end is out of sight. */
  scrolled: (away: boolean) => void;
  /** Text of the terminal is selected. */
  selected: (is: boolean) => void;
}

/** Keeps the rows on the page in step with the core, one drawing a frame at most. */
class View {
  readonly terminal: Terminal;
  private readonly drawing: Drawing;
  private readonly touch: Touch;
  private readonly ratio: number;
  private readonly observer: ResizeObserver;
  private frameRequest = 0;
  private resizeTimer = 0;
  private heldSince: number | null = null;
  private controlled = false;
  private cols = 0;
  private mayType = false;
  private selecting = false;
  /** The colours changed while text was selected. */
  private recolourDue = false;
  private takenFrom = "";
  /** The size of the text when two fingers began to change it. */
  private zoomedFrom: number | null = null;
  /** The most room that the rows had in this window, and which one that was. */
  private room = { of: "", height: 0 };

  constructor(
    private readonly scroller: HTMLElement,
    private readonly field: HTMLElement,
    device: string,
    session: string,
    private readonly told: Told,
  ) {
    this.ratio = cellRatio(scroller);
    const { cols, rows } = this.fitFor(80, true);
    const viewer = { name: thisDeviceName(), cols, rows, control: decidesSize(device, session) };
    this.terminal = theCore().openTerminal(device, session, viewer, () => this.schedule());
    this.drawing = new Drawing(scroller, this.terminal);
    this.touch = new Touch(scroller, this.terminal, {
      cellAt: (x, y) => this.drawing.cellAt(x, y),
      pan: (dx, dy) => this.drawing.pan(dx, dy),
      linePx: () => this.drawing.linePx(),
      mayType: () => this.mayType,
      zoom: (factor, x, y, done) => this.zoom(factor, x, y, done),
    });
    this.observer = new ResizeObserver(() => this.measure());
    this.observer.observe(scroller);
    scroller.addEventListener("scroll", this.onScroll, { passive: true });
    document.addEventListener("selectionchange", this.onSelection);
    this.measure();
  }

  close(): void {
    cancelAnimationFrame(this.frameRequest);
    clearTimeout(this.resizeTimer);
    this.observer.disconnect();
    this.touch.close();
    this.scroller.removeEventListener("scroll", this.onScroll);
    document.removeEventListener("selectionchange", this.onSelection);
    this.terminal.close();
  }

  setMayType(may: boolean): void {
    this.mayType = may;
  }

  toEnd(): void {
    this.drawing.toEnd();
  }

  /** Somebody has typed: what was selected is not needed any more, and the cursor is to be seen. */
  typed(): void {
    if (this.selecting) getSelection()?.removeAllRanges();
    this.drawing.typed();
  }

  /** What an input method is composing, at the cursor. */
  compose(text: string): void {
    this.drawing.compose(text);
    this.placeField();
  }

  tap(x: number, y: number): void {
    this.touch.tap(x, y);
  }

  async copySelection(): Promise<void> {
    const selection = getSelection();
    const text = selection ? selectedText(selection) : "";
    if (await copyText(text)) {
      getSelection()?.removeAllRanges();
      say("Copied.");
    } else {
      say("This browser does not let the page write to the clipboard. Press long on the selected text and copy there.", true);
    }
  }

  recolour(): void {
    this.recolourDue = this.selecting;
    if (this.terminal.ready && !this.selecting) this.drawing.recolour();
  }

  async takeControl(): Promise<void> {
    const size = this.fitFor(this.terminal.cols, true);
    const from = this.terminal.controller;
    await attempt("The size was not taken over.", async () => {
      await this.terminal.takeControl(size.cols, size.rows);
      this.takenFrom = from;
      this.schedule();
    });
  }

  async giveControl(): Promise<void> {
    clearTimeout(this.resizeTimer);
    await attempt("The size was not given back.", () => this.terminal.giveControl());
    this.takenFrom = "";
  }

  /** Chooses the font for the room there is, and tells the program when this device decides its size. */
  measure(): void {
    const { youControl, cols } = this.terminal;
    const size = this.fitFor(cols, youControl);
    const style = this.scroller.style;
    style.setProperty("--t-font", `${size.fontPx}px`);
    style.setProperty("--t-line", `${size.linePx}px`);
    this.controlled = youControl;
    this.cols = cols;
    this.drawing.stay();
    clearTimeout(this.resizeTimer);
    if (youControl) this.resizeTimer = window.setTimeout(() => this.terminal.resize(size.cols, size.rows), RESIZE_AFTER_MS);
  }

  /**
   * What fits into the window. A keyboard that slides up, and whatever else takes room from the rows for a while, does not count: a program that
   * is resized whenever one begins to type draws everything anew each time.
   */
  private fitFor(cols: number, control: boolean): Fit {
    const of = [innerWidth, innerHeight, typing.value, control].join();
    const height = this.scroller.clientHeight + keyboardHeight();
    if (this.room.of !== of) this.room = { of, height };
    this.room.height = Math.max(this.room.height, height);
    return fit(this.scroller, this.ratio, fontSize.value || (control ? COMFORTABLE_PX : 0), Math.max(2, cols), this.room.height);
  }

  private zoom(factor: number, x: number, y: number, done: boolean): void {
    if (done) {
      this.zoomedFrom = null;
      return;
    }
    const now = parseFloat(this.scroller.style.getPropertyValue("--t-font")) || COMFORTABLE_PX;
    this.zoomedFrom ??= now;
    const wanted = Math.min(LARGEST_FONT, Math.max(SMALLEST_FONT, Math.round(this.zoomedFrom * factor * 2) / 2));
    if (wanted === now) return;
    fontSize.value = wanted;
    this.measure();
    this.drawing.zoomed(wanted / now, x, y);
  }

  private readonly onScroll = (): void => this.told.scrolled(!this.drawing.scrolled());

  private readonly onSelection = (): void => {
    const selection = getSelection();
    const is = selection?.type === "Range" && this.scroller.contains(selection.anchorNode);
    if (is === this.selecting) return;
    this.selecting = is;
    this.told.selected(is);
    if (is) return;
    if (this.recolourDue) this.recolour();
    this.schedule();
  };

  private schedule(): void {
    if (this.frameRequest !== 0) return;
    this.frameRequest = requestAnimationFrame((time) => {
      this.frameRequest = 0;
      if (this.terminal.updating && (this.heldSince ??= time) > time - HOLD_MS) return this.schedule();
      this.heldSince = null;
      this.draw();
    });
  }

  private draw(): void {
    const t = this.terminal;
    // Rows that are drawn anew take a selection with them. The core goes on, and what it has is drawn afterwards.
    if (t.ready && !this.selecting) this.drawing.draw();
    if (t.youControl !== this.controlled || t.cols !== this.cols) this.measure();
    if (!t.youControl && this.takenFrom && t.controller) this.takenFrom = "";
    if (document.activeElement === this.field) this.placeField();
    this.told.show({
      ready: t.ready, attached: t.attached, title: t.title, youControl: t.youControl, controller: t.controller, takenFrom: this.takenFrom,
      ended: t.ended, problem: t.problem, unconfirmed: t.unconfirmedInput, cols: t.cols, rows: t.rows,
    });
  }

  /** Input methods open their windows beside the field. */
  private placeField(): void {
    const box = this.drawing.cursorBox();
    const around = this.scroller.getBoundingClientRect();
    this.field.style.left = `${Math.max(0, Math.min(box.left - around.left, around.width - 16))}px`;
    this.field.style.top = `${Math.max(0, Math.min(box.top - around.top, around.height - box.height))}px`;
  }
}
