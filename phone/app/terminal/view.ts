/** Keeps the rows on the page in step with the core: one drawing a frame at most, in a size that fits the room. */

import { copyText } from "../clipboard";
import type { Terminal, Viewer } from "../core";
import { attempt, say } from "../model";
import { fontSize, LARGEST_FONT, SMALLEST_FONT, typing } from "../settings";
import { keyboardHeight } from "../viewport";
import { thisDeviceName } from "../words";
import { Drawing, selectedText } from "./rows";
import { cellRatio, COMFORTABLE_PX, fit, type Fit } from "./size";
import { Touch } from "./touch";

/** The size of a phone's keyboard changes in several steps; one resize at the end is enough for the program. */
const RESIZE_AFTER_MS = 150;
/** A program that says "do not draw yet" and dies must not freeze the screen. */
const HOLD_MS = 150;

/** What the frame around the rows shows; the rows are drawn past Preact. */
export interface Frame {
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

export const NOTHING: Frame = {
  ready: false, attached: false, title: "", youControl: false, controller: "", takenFrom: "", ended: undefined, problem: undefined,
  unconfirmed: 0, cols: 80, rows: 24,
};

/** Opens a view of a session, over whatever leads to its machine. */
export type Open = (viewer: Viewer, changed: () => void) => Terminal;

export interface Told {
  show: (frame: Frame) => void;
  /** The end is out of sight. */
  scrolled: (away: boolean) => void;
  /** Text of the terminal is selected. */
  selected: (is: boolean) => void;
}

export class View {
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
    open: Open,
    control: boolean,
    private readonly told: Told,
  ) {
    this.ratio = cellRatio(scroller);
    const { cols, rows } = this.fitFor(80, true);
    this.terminal = open({ name: thisDeviceName(), cols, rows, control }, () => this.schedule());
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
