/**
 * Typing key by key. A phone's keyboard does not tell of keys: it edits a text field, backwards too, when it corrects a word or puts a full stop in the place of
 * two spaces. So there is a field, and what it holds is the truth: after every change the terminal gets the difference from what it was given before, as
 * deletions and text. However a keyboard spells an edit, in compositions, replacements or both, nothing can arrive twice.
 */

import type { Terminal } from "../core";
import { armed, sendKey } from "./keys";

/** Stands before what is typed, so that there is always something to delete: a keyboard tells nothing of a deletion in an empty field. */
const PAD = "\u00a0".repeat(24);
/** The field begins anew when so little of the padding is left, or so much was typed. */
const LEAST_PAD = 8;
const MOST_TYPED = 200;
const COMPOSITION = ["compositionstart", "compositionupdate", "compositionend"] as const;

export class LiveTyping {
  /** What the terminal has been given, padding included. */
  private given = PAD;

  /**
   * @param holds What is being composed is shown and kept until it is ready, as languages need it whose words are chosen from a list. Otherwise it is typed
   *   as it grows and changes.
   * @param show Draws what is being composed at the cursor; empty for nothing.
   * @param typed Something was sent.
   */
  constructor(
    private readonly field: HTMLInputElement,
    private readonly terminal: () => Terminal | null,
    private readonly holds: boolean,
    private readonly show: (composing: string) => void,
    private readonly typed: () => void,
  ) {
    field.value = PAD;
    field.addEventListener("input", this.onInput);
    for (const type of COMPOSITION) field.addEventListener(type, this.onComposition);
    for (const type of ["focus", "blur"]) field.addEventListener(type, this.onFocus);
  }

  close(): void {
    this.field.removeEventListener("input", this.onInput);
    for (const type of COMPOSITION) this.field.removeEventListener(type, this.onComposition);
    for (const type of ["focus", "blur"]) this.field.removeEventListener(type, this.onFocus);
  }

  private readonly onInput = (event: Event): void => {
    const { isComposing } = event as InputEvent;
    if (!isComposing || !this.holds) this.bringUpToDate(isComposing);
  };

  private readonly onComposition = (event: CompositionEvent): void => {
    const ended = event.type === "compositionend";
    if (this.holds) this.show(ended ? "" : event.data);
    if (ended) this.bringUpToDate(false);
  };

  private readonly onFocus = (): void => this.beginAnew();

  /** Whatever comes next has nothing to do with what is in the field: a key has moved the cursor, or sent the line. */
  beginAnew(): void {
    this.show("");
    this.given = PAD;
    if (this.field.value !== PAD) this.field.value = PAD;
    // Some browsers give the focus to what is selected.
    if (document.activeElement === this.field) this.field.setSelectionRange(PAD.length, PAD.length);
  }

  private bringUpToDate(composing: boolean): void {
    const terminal = this.terminal();
    const before = [...this.given];
    const after = [...this.field.value];
    let same = 0;
    while (same < before.length && same < after.length && before[same] === after[same]) same += 1;
    this.given = this.field.value;
    if (!terminal || (same === before.length && same === after.length)) return;
    this.typed();
    for (let count = before.length - same; count > 0; count -= 1) sendKey(terminal, "Backspace");
    const added = after.slice(same);
    // With Ctrl or Alt pressed in the key bar a character is a key, not text.
    if (added.length === 1 && armed()) {
      sendKey(terminal, added[0]!);
      return this.beginAnew();
    }
    if (added.length > 0) terminal.text(added.join(""));
    const typed = after.length - PAD.length;
    // To change the field in the middle of a composition would end it.
    if (!composing && (typed > MOST_TYPED || typed < LEAST_PAD - PAD.length)) this.beginAnew();
  }
}
