/**
 * What a finger does in a full-screen program. History scrolls by itself, as every page does; the alternate screen has none, so there a drag is for the
 * program: wheel reports if it tracks the mouse, arrows if not. Two fingers change the size of the text in both.
 */

import { Mode, Mouse, type Terminal } from "../core";

/** A finger that has moved less is still. */
const SLOP_PX = 8;
/** A finger that stays for so long selects a word, if the browser has not done it by then. */
const LONG_PRESS_MS = 650;
/** What belongs together in paths, addresses and options. */
const WORD = /[\p{L}\p{M}\p{N}_./~:@%+#=?&-]/u;
/** Momentum: how much of the speed is left after a millisecond, and where it ends. */
const FRICTION = 0.997;
const SLOWEST = 0.05;
/** The speed at which a drag ends is that of its last moments. */
const SPEED_OVER_MS = 100;
/** One gesture sends no more at once, whatever the browser has saved up. */
const MOST_NOTCHES = 30;

interface Finger {
  x: number;
  y: number;
  axis: "x" | "y" | null;
  /** Where it was lately, for its speed. */
  trail: { at: number; y: number }[];
}

export interface Gestures {
  /** The cell under a point of the page; null outside of the screen. */
  cellAt(x: number, y: number): { column: number; row: number } | null;
  /** Moves the view over a screen that is larger than its room; gives back what could not be moved. */
  pan(dx: number, dy: number): { dx: number; dy: number };
  linePx(): number;
  mayType(): boolean;
  /** The size of the text, times `factor`, around a point of the page. */
  zoom(factor: number, x: number, y: number, done: boolean): void;
}

export class Touch {
  private finger: Finger | null = null;
  private pinch: number | null = null;
  /** What was dragged and is less than a row. */
  private rest = 0;
  private momentum = 0;
  private longPress = 0;

  constructor(
    private readonly scroller: HTMLElement,
    private readonly terminal: Terminal,
    private readonly gestures: Gestures,
  ) {
    const listen = { passive: false };
    scroller.addEventListener("touchstart", this.onStart, listen);
    scroller.addEventListener("touchmove", this.onMove, listen);
    scroller.addEventListener("touchend", this.onEnd, listen);
    scroller.addEventListener("touchcancel", this.onEnd, listen);
    scroller.addEventListener("wheel", this.onWheel, listen);
  }

  close(): void {
    this.stop();
    this.scroller.removeEventListener("touchstart", this.onStart);
    this.scroller.removeEventListener("touchmove", this.onMove);
    this.scroller.removeEventListener("touchend", this.onEnd);
    this.scroller.removeEventListener("touchcancel", this.onEnd);
    this.scroller.removeEventListener("wheel", this.onWheel);
  }

  /** A press and a release where the program wants to know. @returns whether it did. */
  tap(x: number, y: number): boolean {
    const cell = this.gestures.cellAt(x, y);
    if (!cell || !this.gestures.mayType() || !(this.terminal.modes & Mode.Mouse)) return false;
    const pressed = this.terminal.mouse(Mouse.Press, cell.column, cell.row);
    this.terminal.mouse(Mouse.Release, cell.column, cell.row);
    return pressed;
  }

  private stop(): void {
    clearTimeout(this.longPress);
    cancelAnimationFrame(this.momentum);
    this.momentum = 0;
  }

  private readonly onStart = (event: TouchEvent): void => {
    this.stop();
    const [first, second] = [event.touches[0]!, event.touches[1]];
    if (second) {
      this.finger = null;
      this.pinch = distance(first, second);
      return;
    }
    this.finger = { x: first.clientX, y: first.clientY, axis: null, trail: [{ at: event.timeStamp, y: first.clientY }] };
    this.rest = 0;
    this.longPress = window.setTimeout(() => selectWord(this.scroller, first.clientX, first.clientY), LONG_PRESS_MS);
  };

  private readonly onMove = (event: TouchEvent): void => {
    const [first, second] = [event.touches[0]!, event.touches[1]];
    if (second && this.pinch !== null) {
      if (event.cancelable) event.preventDefault();
      const now = distance(first, second);
      this.gestures.zoom(now / this.pinch, (first.clientX + second.clientX) / 2, (first.clientY + second.clientY) / 2, false);
      return;
    }
    const { finger } = this;
    if (!finger) return;
    const [dx, dy] = [first.clientX - finger.x, first.clientY - finger.y];
    if (Math.max(Math.abs(dx), Math.abs(dy)) >= SLOP_PX) clearTimeout(this.longPress);
    if (!this.isFullScreen()) return;
    if (!finger.axis) {
      if (Math.max(Math.abs(dx), Math.abs(dy)) < SLOP_PX) return;
      finger.axis = Math.abs(dx) > Math.abs(dy) ? "x" : "y";
    }
    // Somebody is selecting: the browser's own handles are being dragged.
    if (getSelection()?.type === "Range") return;
    if (event.cancelable) event.preventDefault();
    [finger.x, finger.y] = [first.clientX, first.clientY];
    finger.trail.push({ at: event.timeStamp, y: first.clientY });
    while (finger.trail.length > 1 && finger.trail[0]!.at < event.timeStamp - SPEED_OVER_MS) finger.trail.shift();
    if (finger.axis === "x") this.gestures.pan(dx, 0);
    else this.scroll(dy, first.clientX, first.clientY);
  };

  private readonly onEnd = (event: TouchEvent): void => {
    clearTimeout(this.longPress);
    if (this.pinch !== null) {
      this.gestures.zoom(0, 0, 0, true);
      this.pinch = null;
      this.finger = null;
      return;
    }
    const { finger } = this;
    this.finger = null;
    if (finger?.axis !== "y" || event.type === "touchcancel" || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const from = finger.trail[0]!;
    const time = event.timeStamp - from.at;
    // One that rested before it was lifted does not push.
    const lately = event.timeStamp - finger.trail.at(-1)!.at < SPEED_OVER_MS;
    if (time > 0 && lately) this.glide((finger.y - from.y) / time, finger.x, finger.y);
  };

  private readonly onWheel = (event: WheelEvent): void => {
    if (!this.isFullScreen() || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    const unit = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? this.gestures.linePx() : 1;
    this.scroll(-event.deltaY * unit, event.clientX, event.clientY);
  };

  private isFullScreen(): boolean {
    return (this.terminal.modes & Mode.Alternate) !== 0;
  }

  /** A finger has moved down by so many pixels, or up. */
  private scroll(dy: number, x: number, y: number): void {
    this.rest += this.gestures.pan(0, dy).dy;
    const line = this.gestures.linePx();
    const notches = Math.trunc(this.rest / line);
    if (notches === 0) return;
    this.rest -= notches * line;
    if (!this.gestures.mayType()) return;
    const tracked = (this.terminal.modes & Mode.Mouse) !== 0;
    const cell = this.gestures.cellAt(x, y) ?? { column: 0, row: 0 };
    for (let count = Math.min(Math.abs(notches), MOST_NOTCHES); count > 0; count -= 1) {
      if (tracked) this.terminal.mouse(notches > 0 ? Mouse.WheelUp : Mouse.WheelDown, cell.column, cell.row);
      else this.terminal.key(notches > 0 ? "ArrowUp" : "ArrowDown", false, false, false);
    }
  }

  /** Goes on at a speed, in pixels a millisecond, that wears off. */
  private glide(speed: number, x: number, y: number): void {
    let last = performance.now();
    const step = (now: number) => {
      const time = Math.max(0, now - last);
      last = now;
      speed *= FRICTION ** time;
      if (Math.abs(speed) < SLOWEST || !this.isFullScreen()) return this.stop();
      this.scroll(speed * time, x, y);
      this.momentum = requestAnimationFrame(step);
    };
    this.momentum = requestAnimationFrame(step);
  }
}

/** Selects the word under a point of the page, unless something is selected. */
function selectWord(scroller: HTMLElement, x: number, y: number): void {
  if (getSelection()?.type === "Range") return;
  const caret = caretAt(x, y);
  const row = (caret?.node instanceof Element ? caret.node : caret?.node.parentElement)?.closest(".row");
  if (!caret || !row || !scroller.contains(row)) return;
  const before = document.createRange();
  before.setStart(row, 0);
  before.setEnd(caret.node, caret.offset);
  const text = row.textContent ?? "";
  let [start, end] = [before.toString().length, before.toString().length];
  while (start > 0 && WORD.test(text[start - 1]!)) start -= 1;
  while (end < text.length && WORD.test(text[end]!)) end += 1;
  // A full stop or a colon at its end is of the sentence.
  while (end > start + 1 && /[.:?]/.test(text[end - 1]!)) end -= 1;
  const [from, to] = [placeIn(row, start), placeIn(row, end)];
  if (start < end && from && to) getSelection()?.setBaseAndExtent(from.node, from.offset, to.node, to.offset);
}

interface Place {
  node: Node;
  offset: number;
}

function caretAt(x: number, y: number): Place | null {
  // The second is what Safari had first.
  const position = document.caretPositionFromPoint?.(x, y);
  if (position) return { node: position.offsetNode, offset: position.offset };
  const range = document.caretRangeFromPoint?.(x, y);
  return range ? { node: range.startContainer, offset: range.startOffset } : null;
}

/** Where in a row its text has come to so many characters. */
function placeIn(row: Element, offset: number): Place | null {
  const walker = document.createTreeWalker(row, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const length = node.textContent?.length ?? 0;
    if (offset <= length) return { node, offset };
    offset -= length;
  }
  return null;
}

function distance(a: globalThis.Touch, b: globalThis.Touch): number {
  return Math.max(1, Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY));
}
