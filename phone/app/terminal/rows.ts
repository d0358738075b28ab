/**
 * Draws a terminal as rows of text. The rows are ordinary HTML, so scrolling, selecting, finding and reading aloud are the
 * browser's own. The core says what has changed; nothing else is touched.
 */

import { Attribute, GUESS_FIELDS, GUESS_HEAD, Mode, RUN_FIELDS, type Terminal } from "../core";
import { DEFAULT_BACKGROUND, DEFAULT_FOREGROUND, DIRECT, INDEXED, textOn } from "./palette";

/** Rows of history that stay in the document. */
const HISTORY_ROWS = 5_000;
/** History is built and dropped by the block, and the browser skips the blocks out of sight. */
const BLOCK_ROWS = 100;
/** So many rows are asked for at once, and so many more on either side of what is in sight. */
const PAGE_ROWS = 200;
const NEAR_ROWS = 60;
const QUIET_MS = 150;
/** Closer to the end than this counts as being there. */
const END_PX = 8;

const WRAPPED = "wrapped";

interface Block {
  element: HTMLElement;
  start: number;
  end: number;
  /** The rows are not here: the element only takes their room. */
  missing: boolean;
}

export class Drawing {
  private readonly history = div("history");
  private readonly screen = div("screen");
  private readonly cursor = div("cursor");
  /** What was typed and not echoed yet, over the rows. */
  private readonly guesses = div("guesses");
  private readonly composing = div("composing");
  private readonly rows: HTMLElement[] = [];
  private blocks: Block[] = [];
  /** The first history row that is not in the document yet. */
  private drawn = 0;
  private loaded = 0;
  private asking = 0;
  private generation = -1;
  /** Every row of the screen is to be drawn, not only those that have changed. */
  private everyRow = false;
  /** Whether the view moves with new output; only the person's own scrolling changes it, not a keyboard that comes up. */
  private following = true;
  /** The height of the view when it was put to where it stands. */
  private room = 0;
  /** Whether the view moves sideways with the cursor: from when one types until one moves it. */
  private sideways = false;
  private guessed = "";
  private guessedCursor: { row: number; column: number } | null = null;

  /** @param scroller The element that scrolls; its content is ours. */
  constructor(
    private readonly scroller: HTMLElement,
    private readonly terminal: Terminal,
  ) {
    this.cursor.ariaHidden = "true";
    this.guesses.ariaHidden = "true";
    this.composing.hidden = true;
    this.screen.append(this.cursor, this.guesses, this.composing);
    scroller.replaceChildren(this.history, this.screen);
  }

  /** To be called when the view has scrolled. @returns whether the end is in sight. */
  scrolled(): boolean {
    // A keyboard has come up since: nobody has scrolled away from what it covers, and the view is about to be told of it.
    if (this.following && this.scroller.clientHeight !== this.room) return true;
    this.following = this.scroller.scrollTop >= this.end() - END_PX;
    if (!this.following) this.wantMissing();
    return this.following;
  }

  toEnd(): void {
    this.following = true;
    this.stay();
  }

  /** Somebody has typed: what becomes of it is to be seen. */
  typed(): void {
    this.sideways = true;
    this.toEnd();
  }

  /** After the room or the size of the text has changed: if the end was in sight, it still is. */
  stay(): void {
    this.room = this.scroller.clientHeight;
    if (!this.following) return;
    this.scroller.scrollTop = this.end();
    if (!this.sideways || this.cursor.hidden) return;
    const { clientWidth, scrollLeft } = this.scroller;
    const [left, right] = [this.cursor.offsetLeft, this.cursor.offsetLeft + 2 * this.cursor.offsetWidth];
    // At the side where a line begins, so that one can read it.
    if (right <= clientWidth) this.scroller.scrollLeft = 0;
    else if (left < scrollLeft || right > scrollLeft + clientWidth) this.scroller.scrollLeft = right - clientWidth / 2;
  }

  /** Moves the view of a full-screen program by hand; gives back what could not be moved. */
  pan(dx: number, dy: number): { dx: number; dy: number } {
    const { scroller } = this;
    const [left, top] = [scroller.scrollLeft, scroller.scrollTop];
    if (dx !== 0) {
      scroller.scrollLeft = left - dx;
      this.sideways = false;
    }
    const above = this.screen.offsetTop;
    if (dy !== 0) scroller.scrollTop = Math.max(Math.min(top, above), top - dy);
    // Positions come back rounded to whole pixels of the display.
    const rest = (wanted: number, moved: number) => (Math.abs(wanted + moved) < 1 ? 0 : wanted + moved);
    return { dx: rest(dx, scroller.scrollLeft - left), dy: rest(dy, scroller.scrollTop - top) };
  }

  /** The size of the text becomes another one: what lies under a point of the page stays there. */
  zoomed(factor: number, x: number, y: number): void {
    const box = this.scroller.getBoundingClientRect();
    const along = (at: number, offset: number) => (at + offset) * factor - offset;
    this.scroller.scrollLeft = along(this.scroller.scrollLeft, x - box.left);
    if (this.following) this.stay();
    else this.scroller.scrollTop = along(this.scroller.scrollTop, y - box.top);
  }

  /** The cell under a point of the page. */
  cellAt(x: number, y: number): { column: number; row: number } | null {
    const box = this.screen.getBoundingClientRect();
    const { cols, rows } = this.terminal;
    const column = Math.floor((x - box.left) / this.cellWidth());
    const row = Math.floor((y - box.top) / this.linePx());
    return y >= box.top && row < rows && column >= 0 && column < cols ? { column, row } : null;
  }

  linePx(): number {
    return this.rows[0]?.offsetHeight || 16;
  }

  private cellWidth(): number {
    // The cursor is as wide as a cell, and measured with fractions; hidden it has no size.
    const { hidden } = this.cursor;
    this.cursor.hidden = false;
    const { width } = this.cursor.getBoundingClientRect();
    this.cursor.hidden = hidden;
    return width || 8;
  }

  /** Shows at the cursor what an input method is composing. */
  compose(text: string): void {
    this.composing.textContent = text;
    this.composing.hidden = text === "";
    this.cursor.classList.toggle("under", text !== "");
    if (text) this.typed();
  }

  /** Where the cursor is in the page, for what stands at its side. */
  cursorBox(): DOMRect {
    const box = this.screen.getBoundingClientRect();
    return new DOMRect(box.left + this.cursor.offsetLeft, box.top + this.cursor.offsetTop, this.cursor.offsetWidth, this.linePx());
  }

  /**
   * Where the view stands when it follows the program: at the bottom. A screen with more rows than there is room for, because nobody
   * can be asked for a smaller one or somebody else decides its size, is shown around its cursor.
   */
  private end(): number {
    const { clientHeight, scrollHeight } = this.scroller;
    const bottom = scrollHeight - clientHeight;
    const { offsetTop, offsetHeight } = this.screen;
    if (offsetHeight <= clientHeight || this.cursor.hidden) return bottom;
    const cursor = offsetTop + this.cursor.offsetTop + this.cursor.offsetHeight;
    return Math.min(bottom, Math.max(offsetTop, cursor - clientHeight));
  }

  /** Brings the document up to what the core has. */
  draw(): void {
    if (this.terminal.generation !== this.generation) this.startOver();
    // A full-screen program has no history. Who reads in it is not sent away.
    const alternate = (this.terminal.modes & Mode.Alternate) !== 0;
    if (this.following || !alternate) {
      // How the view stood over the other screen means nothing here.
      if (this.history.hidden && !alternate) this.following = true;
      this.history.hidden = alternate;
    }
    this.scroller.classList.toggle("alternate", alternate && this.history.hidden !== false);
    const removed = this.drawHistory();
    this.drawScreen();
    this.drawGuesses();
    this.drawCursor();
    if (this.following) this.stay();
    else if (removed !== 0) this.scroller.scrollTop -= removed;
    clearTimeout(this.asking);
    // Who follows a flood would ask with every screen for what the next one moves away.
    if (this.following) this.asking = window.setTimeout(() => this.wantMissing(), QUIET_MS);
    else this.wantMissing();
  }

  /** Draws everything anew, in colours that have changed; the person stays where they were. */
  recolour(): void {
    const { scrollTop } = this.scroller;
    const { following } = this;
    this.startOver();
    this.everyRow = true;
    this.draw();
    this.following = following;
    if (!following) this.scroller.scrollTop = scrollTop;
  }

  private startOver(): void {
    this.generation = this.terminal.generation;
    this.history.replaceChildren();
    this.blocks = [];
    this.drawn = 0;
    this.loaded = this.terminal.historyLoaded;
  }

  /** @returns how many pixels went away above what is left. */
  private drawHistory(): number {
    const end = this.terminal.historyEnd;
    const keepFrom = Math.max(this.terminal.historyStart, end - HISTORY_ROWS);
    let removed = 0;
    for (let first = this.blocks[0]; first && (first.end <= keepFrom || (first.missing && first.start < keepFrom)); first = this.blocks[0]) {
      const before = first.element.offsetHeight;
      if (first.end > keepFrom) {
        // What is missing takes as much room as the machine has rows for.
        first.start = keepFrom;
        tellRows(first);
        removed += before - first.element.offsetHeight;
        break;
      }
      removed += before;
      first.element.remove();
      this.blocks.shift();
    }
    if (this.loaded !== this.terminal.historyLoaded) this.fillGaps();
    // It became known that the history goes back further.
    const first = this.blocks[0];
    if (first && first.start > keepFrom) {
      this.blocks = [...this.build(keepFrom, first.start, first.element), ...this.blocks];
      removed -= this.blocks[0] === first ? 0 : first.element.offsetTop - this.blocks[0]!.element.offsetTop;
    }
    // A burst may have scrolled past more than is kept; what nobody can see is not built.
    const from = Math.max(this.drawn, keepFrom);
    if (from < end) this.append(from, end);
    this.drawn = end;
    return removed;
  }

  /** Adds rows at the end, to the last block while there is room in it. */
  private append(from: number, end: number): void {
    let row = from;
    const last = this.blocks.at(-1);
    if (last && last.end === row) {
      const here = this.terminal.historyHere(row);
      const until = last.missing ? Math.min(here, end) : here > row ? row : Math.min(end, last.start + BLOCK_ROWS);
      row = this.extend(last, until);
    }
    this.blocks.push(...this.build(row, end, null));
  }

  /** Builds the blocks of a range in front of an element: rows that are here, and room for those that are not. */
  private build(from: number, end: number, before: Element | null): Block[] {
    const blocks: Block[] = [];
    for (let row = from; row < end; ) {
      const here = Math.min(this.terminal.historyHere(row), end);
      const missing = here > row;
      const block: Block = { element: div(missing ? "gap" : "block"), start: row, end: row, missing };
      this.history.insertBefore(block.element, before);
      row = this.extend(block, missing ? here : Math.min(row + BLOCK_ROWS, end));
      blocks.push(block);
    }
    return blocks;
  }

  /** @returns where the block ends: at `end`, or before a row that is not here. */
  private extend(block: Block, end: number): number {
    if (block.missing) block.end = end;
    for (let row = block.end; row < end && this.terminal.historyHere(row) === row; row += 1) {
      const element = div("row");
      fill(element, this.terminal.historyText(row), this.terminal.historyRuns(row), this.terminal.historyWrapped(row), () => this.terminal.historyLinks(row));
      block.element.append(element);
      block.end = row + 1;
    }
    tellRows(block);
    return block.end;
  }

  /** A page has come: its rows take the place of the room that was kept for them. */
  private fillGaps(): void {
    this.loaded = this.terminal.historyLoaded;
    this.blocks = this.blocks.flatMap((block) => {
      if (!block.missing || this.terminal.historyHere(block.start) >= block.end) return [block];
      const filled = this.build(block.start, block.end, block.element);
      block.element.remove();
      return filled;
    });
  }

  /** Asks for the rows in sight that are not here. */
  private wantMissing(): void {
    const { scrollTop, clientHeight } = this.scroller;
    for (const block of this.blocks) {
      if (!block.missing) continue;
      const { offsetTop, offsetHeight } = block.element;
      const line = offsetHeight / (block.end - block.start);
      const near = NEAR_ROWS * line;
      if (line === 0 || offsetTop + offsetHeight < scrollTop - near || offsetTop > scrollTop + clientHeight + near) continue;
      const inSight = Math.ceil((scrollTop + clientHeight + near - offsetTop) / line);
      return this.terminal.wantHistory(Math.min(block.end, block.start + inSight), PAGE_ROWS);
    }
  }

  private drawScreen(): void {
    const { rows, cols } = this.terminal;
    this.scroller.style.setProperty("--cols", String(cols));
    while (this.rows.length < rows) {
      const row = div("row");
      this.rows.push(row);
      this.screen.append(row);
    }
    while (this.rows.length > rows) this.rows.pop()!.remove();
    const [scrolled = 0, ...changed] = this.terminal.takeChanges();
    // Moved, not drawn again: what a line at the bottom pushes up stays as it is.
    const moved = this.rows.splice(0, Math.min(scrolled, rows));
    this.rows.push(...moved);
    this.screen.append(...moved);
    this.scroller.classList.toggle("reversed", this.terminal.reversed);
    const due = this.everyRow ? this.rows.keys() : changed;
    this.everyRow = false;
    for (const index of due) {
      const row = this.rows[index];
      if (row) fill(row, this.terminal.rowText(index), this.terminal.rowRuns(index), this.terminal.rowWrapped(index), () => this.terminal.rowLinks(index));
    }
  }

  private drawGuesses(): void {
    const numbers = this.terminal.guesses();
    const [marked = 0, row = this.terminal.rows, column = 0] = numbers;
    this.guessedCursor = row < this.terminal.rows ? { row, column } : null;
    const key = numbers.join();
    if (key === this.guessed) return;
    this.guessed = key;
    this.guesses.classList.toggle("marked", marked !== 0);
    const cells: HTMLElement[] = [];
    for (let at = GUESS_HEAD; at + GUESS_FIELDS <= numbers.length; at += GUESS_FIELDS) {
      const cell = div("guess");
      cell.textContent = String.fromCodePoint(numbers[at + 2]!);
      place(cell, numbers[at + 1]!, numbers[at]!);
      cells.push(cell);
    }
    this.guesses.replaceChildren(...cells);
  }

  private drawCursor(): void {
    const { cursorVisible, ended } = this.terminal;
    const { row, column } = this.guessedCursor ?? { row: this.terminal.cursorRow, column: this.terminal.cursorColumn };
    this.cursor.hidden = !cursorVisible || ended !== undefined;
    place(this.cursor, column, row);
    place(this.composing, column, row);
  }
}

/** The selected text with lines as the program wrote them: a row that goes on in the next one ends without a break, and none ends with blanks. */
export function selectedText(selection: Selection): string {
  const texts: string[] = [];
  for (let index = 0; index < selection.rangeCount; index += 1) {
    const content = selection.getRangeAt(index).cloneContents();
    const rows = [...content.querySelectorAll(".row")];
    // Within one row there is none of them.
    if (rows.length === 0) texts.push(content.textContent ?? "");
    else texts.push(joinRows(rows.map((row) => ({ text: row.textContent ?? "", wrapped: row.classList.contains(WRAPPED) }))));
  }
  return texts.join("\n").replace(/ +$/, "");
}

/** Everything that is here as text: the screen, and the history above it on request. */
export function wholeText(terminal: Terminal, history: boolean): string {
  const rows: { text: string; wrapped: boolean }[] = [];
  if (history) {
    let expected = terminal.historyStart;
    for (let row = terminal.historyHere(expected); row < terminal.historyEnd; row = terminal.historyHere(expected)) {
      if (row > expected) rows.push({ text: `[${row - expected} rows are at the machine: scroll there to load them]`, wrapped: false });
      expected = row + 1;
      rows.push({ text: terminal.historyText(row), wrapped: terminal.historyWrapped(row) });
    }
  }
  for (let row = 0; row < terminal.rows; row += 1) rows.push({ text: terminal.rowText(row), wrapped: terminal.rowWrapped(row) });
  return joinRows(rows).replace(/\n+$/, "");
}

function joinRows(rows: { text: string; wrapped: boolean }[]): string {
  return rows
    .map(({ text, wrapped }, at) => (wrapped && at + 1 < rows.length ? text : `${text.replace(/ +$/, "")}\n`))
    .join("")
    .replace(/\n$/, "");
}

function fill(row: HTMLElement, text: string, runs: Uint32Array, wrapped: boolean, linksOf: () => string[]): void {
  row.classList.toggle(WRAPPED, wrapped);
  if (runs.length === 0) {
    // An empty row keeps its line when it is copied.
    row.replaceChildren(document.createElement("br"));
    return;
  }
  const parts: (Node | string)[] = [];
  let links: string[] | undefined;
  let at = 0;
  for (let i = 0; i + RUN_FIELDS <= runs.length; i += RUN_FIELDS) {
    const [length, cells, foreground, background, attributes, underline, link] = runs.subarray(i, i + RUN_FIELDS) as unknown as [
      number, number, number, number, number, number, number,
    ];
    const piece = text.slice(at, at + length);
    at += length;
    const plain = !(foreground || background || attributes || link);
    const element = plain ? piece : span(piece, cells, foreground, background, attributes, underline);
    const address = link ? (links ??= linksOf())[link - 1] : undefined;
    parts.push(address === undefined ? element : anchor(address, element));
  }
  row.replaceChildren(...parts);
}

/** A program chose both the text and the address, so a long press or a pointer shows the address. The core gives those of the web only. */
function anchor(address: string, content: Node | string): HTMLElement {
  const element = document.createElement("a");
  element.href = element.title = address;
  element.target = "_blank";
  element.rel = "noopener noreferrer";
  element.append(content);
  return element;
}

function span(text: string, cells: number, foreground: number, background: number, attributes: number, underline: number): HTMLElement {
  const element = document.createElement("span");
  element.textContent = text;
  const classes: string[] = [];
  const inverse = (attributes & Attribute.Inverse) !== 0;
  const [front, behind] = inverse ? [background, foreground] : [foreground, background];
  if (behind >= DIRECT) element.style.background = `#${(behind & 0xffffff).toString(16).padStart(6, "0")}`;
  else if (behind >= INDEXED) classes.push(`b${behind & 0xff}`);
  else if (inverse) classes.push("bd");
  if (inverse && !front && !behind) classes.push("fd");
  else if (behind) element.style.color = textOn(inverse && !front ? DEFAULT_BACKGROUND : front, behind);
  else if (inverse) element.style.color = textOn(front, DEFAULT_FOREGROUND);
  else if (front >= DIRECT) element.style.color = textOn(front, 0);
  else if (front >= INDEXED) classes.push(`f${front & 0xff}`);
  if (attributes & Attribute.Bold) classes.push("bold");
  if (attributes & Attribute.Faint) classes.push("faint");
  if (attributes & Attribute.Italic) classes.push("italic");
  if (attributes & Attribute.Concealed) classes.push("concealed");
  decorate(element, attributes, underline);
  if (attributes & Attribute.Fixed) {
    // The font may lack these characters, and what stands in for them has a width of its own.
    classes.push("fixed");
    element.style.width = `${cells}ch`;
  }
  if (classes.length > 0) element.className = classes.join(" ");
  return element;
}

const UNDERLINE_STYLES = ["solid", "double", "wavy", "dotted", "dashed"];

/** Lines under, over and through the text. */
function decorate(element: HTMLElement, attributes: number, color: number): void {
  const lines: string[] = [];
  if (attributes & Attribute.Underline) lines.push("underline");
  if (attributes & Attribute.Overline) lines.push("overline");
  if (attributes & Attribute.Strike) lines.push("line-through");
  if (lines.length === 0) return;
  element.style.textDecorationLine = lines.join(" ");
  element.style.textDecorationStyle = UNDERLINE_STYLES[Math.floor(attributes / Attribute.UnderlineStyle) & 7] ?? "solid";
  if (color) element.style.textDecorationColor = textOn(color, 0);
}

/** How much room a block takes, for when the browser has not laid it out. */
function tellRows(block: Block): void {
  block.element.style.setProperty("--rows", String(block.end - block.start));
}

/** Puts an element on a cell. */
function place(element: HTMLElement, column: number, row: number): void {
  element.style.left = `${column}ch`;
  element.style.top = `calc(${row} * var(--t-line))`;
}

function div(name: string): HTMLElement {
  const element = document.createElement("div");
  element.className = name;
  return element;
}
