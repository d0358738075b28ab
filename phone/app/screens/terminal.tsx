/** One session, live. */

import { signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Terminal } from "../core";
import { attempt, decidesSize, machine, online, queue, sentence, statusFor, theCore } from "../model";
import { back } from "../route";
import type { Role } from "../rpc";
import { fontSize, isDark } from "../settings";
import { Compose } from "../terminal/compose";
import { KeyBar } from "../terminal/keybar";
import { handleKeyDown, releaseAll } from "../terminal/keys";
import { installPalette } from "../terminal/palette";
import { Drawing, selectedText } from "../terminal/rows";
import { cellRatio, COMFORTABLE_PX, fit, type Fit } from "../terminal/size";
import { Icon, Problem, Sheet, TopBar } from "../ui";
import { aRole, mayAct, thisDeviceName } from "../words";
import { Queue } from "./queue";
import { Refused } from "./refused";
import { UnknownMachine } from "./sessions";

/** The size of a phone's keyboard changes in several steps; one resize at the end is enough for the program. */
const RESIZE_AFTER_MS = 150;
/** A program that says "do not draw yet" and dies must not freeze the screen. */
const HOLD_MS = 150;

/** What the frame around the rows shows; the rows are drawn past Preact. */
interface Frame {
  ready: boolean;
  attached: boolean;
  title: string;
  youControl: boolean;
  controller: string;
  ended: string | undefined;
  problem: string | undefined;
  unconfirmed: number;
  cols: number;
  rows: number;
}

const NOTHING: Frame = {
  ready: false, attached: false, title: "", youControl: false, controller: "", ended: undefined, problem: undefined,
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
  const [choosing, setChoosing] = useState(false);

  const dark = isDark();
  useLayoutEffect(() => {
    installPalette(dark);
    // Only the colours: the view, and what it shows while there is no connection, stays.
    view.current?.recolour();
  }, [dark]);
  useLayoutEffect(() => {
    const live = new View(scroller.current!, props.device, props.session, (next) => (frame.value = next), (scrolled) => (away.value = scrolled));
    view.current = live;
    // A finger would call up the phone's keyboard; a mouse belongs to someone with a real one.
    if (matchMedia("(pointer: fine)").matches) scroller.current!.focus({ preventScroll: true });
    return () => {
      view.current = null;
      live.close();
      releaseAll();
    };
  }, []);
  const size = fontSize.value;
  useEffect(() => view.current?.measure(), [size]);

  const session = m.sessions?.find((s) => s.id === props.session);
  const now = frame.value;
  const act = mayAct(m.info?.role ?? m.role);
  const title = now.title || session?.title || session?.name || "Terminal";
  // A phone that says it has no network is believed, though the connection may not have noticed yet.
  const live = m.linked && now.attached && online.value;
  const terminal = () => view.current?.terminal ?? null;
  // A screen that was seen before the machine refused this device stays in sight, but nothing else of the session does.
  const nothing = now.problem !== undefined || (m.refused !== null && !now.ready);
  const typing = act && !m.refused && now.ended === undefined && now.problem === undefined;

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
            onKeyDown={(event) => {
              if (event.shiftKey && event.key === "Escape") return event.currentTarget.blur();
              const open = terminal();
              if (typing && open && handleKeyDown(open, event)) {
                event.preventDefault();
                view.current?.toEnd();
              }
            }}
            onCopy={(event) => {
              const selection = getSelection();
              const text = selection && selectedText(selection);
              if (!text) return;
              event.preventDefault();
              event.clipboardData?.setData("text/plain", text);
            }}
            onPaste={(event) => {
              const text = event.clipboardData?.getData("text/plain");
              if (!typing || !text) return;
              event.preventDefault();
              terminal()?.paste(text);
            }}
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
        </div>
        {!m.refused && <Strip frame={now} live={live} role={m.info?.role ?? m.role} />}
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
              <KeyBar terminal={terminal} disabled={!typing} />
              <Compose
                terminal={terminal}
                disabled={!typing}
                live={live}
                onQueue={(text) => queue(props.device, "session.type", { session: props.session, text, enter: true }, props.session)}
                draft={drafts.get(props.session) ?? ""}
                onDraft={(text) => (text ? drafts.set(props.session, text) : drafts.delete(props.session))}
              />
            </div>
          )
        )}
      </main>
      {choosing && (
        <SizeSheet
          frame={now}
          mayControl={typing && live}
          onControl={() => {
            setChoosing(false);
            void view.current?.takeControl();
          }}
          onClose={() => setChoosing(false)}
        />
      )}
    </>
  );
}

/** One quiet line that says why what one sees or typed is not the present. */
function Strip(props: { frame: Frame; live: boolean; role: Role }) {
  const { frame, live } = props;
  let text = "";
  if (frame.ended !== undefined || frame.problem !== undefined) return null;
  if (!live && frame.unconfirmed > 0) text = `Not typed yet: ${frame.unconfirmed} bytes. They go out when the connection is back.`;
  else if (!live && frame.ready) text = "Not connected: this is how it was.";
  else if (!mayAct(props.role)) text = `You are ${aRole(props.role)} here: you can look, not type.`;
  return (
    // What passes lies over the rows: if it took their room, the program would be resized whenever a connection comes and goes.
    <p class={!text ? "strip none" : live ? "strip" : "strip over"} role="status" aria-live="polite">
      {text}
    </p>
  );
}

const SIZES: [number, string][] = [
  [0, "Fit width"],
  [11, "11"],
  [13, "13"],
  [15, "15"],
  [18, "18"],
];

function SizeSheet(props: { frame: Frame; mayControl: boolean; onControl: () => void; onClose: () => void }) {
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
      {!frame.youControl && (
        <>
          <button class="button primary wide" disabled={!props.mayControl} onClick={props.onControl}>
            <Icon name="resize" /> Take control of the size
          </button>
          <p class="muted">The session then takes the shape of this screen, for everyone who looks at it.</p>
        </>
      )}
      <button class="button quiet wide" onClick={props.onClose}>
        Done
      </button>
    </Sheet>
  );
}

/** Keeps the rows on the page in step with the core, one drawing a frame at most. */
class View {
  readonly terminal: Terminal;
  private readonly drawing: Drawing;
  private readonly ratio: number;
  private readonly observer: ResizeObserver;
  private frameRequest = 0;
  private resizeTimer = 0;
  private heldSince: number | null = null;
  private controlled = false;
  private cols = 0;

  constructor(
    private readonly scroller: HTMLElement,
    device: string,
    session: string,
    private readonly show: (frame: Frame) => void,
    private readonly scrolled: (away: boolean) => void,
  ) {
    this.ratio = cellRatio(scroller);
    const { cols, rows } = this.fitFor(80, true);
    const viewer = { name: thisDeviceName(), cols, rows, control: decidesSize(device, session) };
    this.terminal = theCore().openTerminal(device, session, viewer, () => this.schedule());
    this.drawing = new Drawing(scroller, this.terminal);
    this.observer = new ResizeObserver(() => this.measure());
    this.observer.observe(scroller);
    scroller.addEventListener("scroll", this.onScroll, { passive: true });
    this.measure();
  }

  close(): void {
    cancelAnimationFrame(this.frameRequest);
    clearTimeout(this.resizeTimer);
    this.observer.disconnect();
    this.scroller.removeEventListener("scroll", this.onScroll);
    this.terminal.close();
  }

  toEnd(): void {
    this.drawing.toEnd();
  }

  recolour(): void {
    if (this.terminal.ready) this.drawing.recolour();
  }

  async takeControl(): Promise<void> {
    const size = this.fitFor(this.terminal.cols, true);
    await attempt("The size was not taken over.", () => this.terminal.takeControl(size.cols, size.rows));
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

  private fitFor(cols: number, control: boolean): Fit {
    return fit(this.scroller, this.ratio, fontSize.value || (control ? COMFORTABLE_PX : 0), Math.max(2, cols));
  }

  private readonly onScroll = (): void => this.scrolled(!this.drawing.scrolled());

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
    if (t.ready) this.drawing.draw();
    if (t.youControl !== this.controlled || t.cols !== this.cols) this.measure();
    this.show({
      ready: t.ready, attached: t.attached, title: t.title, youControl: t.youControl, controller: t.controller, ended: t.ended,
      problem: t.problem, unconfirmed: t.unconfirmedInput, cols: t.cols, rows: t.rows,
    });
  }
}
