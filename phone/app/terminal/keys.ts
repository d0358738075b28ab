/** From the browser's keyboard events to the core's keys, and the sticky modifiers of the key bar. */

import { signal } from "@preact/signals";
import type { Terminal } from "../core";

export type Sticky = "off" | "once" | "locked";

export const ctrl = signal<Sticky>("off");
export const alt = signal<Sticky>("off");

/** Two taps within this time are one double tap. */
const DOUBLE_TAP_MS = 400;
let tapped: { modifier: typeof ctrl; at: number } | null = null;

/** One tap for the next key, a double tap to keep it, a tap to let go. */
export function press(modifier: typeof ctrl, at: number): void {
  const double = tapped?.modifier === modifier && at - tapped.at < DOUBLE_TAP_MS;
  tapped = { modifier, at };
  modifier.value = modifier.value === "off" ? "once" : modifier.value === "once" && double ? "locked" : "off";
}

export function armed(): boolean {
  return ctrl.value !== "off" || alt.value !== "off";
}

/** Sends a key with the sticky modifiers on top of those really held. */
export function sendKey(terminal: Terminal, name: string, held = { ctrl: false, alt: false, shift: false }): boolean {
  const taken = terminal.key(name, held.ctrl || ctrl.value !== "off", held.alt || alt.value !== "off", held.shift);
  if (ctrl.value === "once") ctrl.value = "off";
  if (alt.value === "once") alt.value = "off";
  return taken;
}

export function releaseAll(): void {
  ctrl.value = "off";
  alt.value = "off";
}

/** @returns whether the event was for the terminal. */
export function handleKeyDown(terminal: Terminal, event: KeyboardEvent): boolean {
  // What a phone's keyboard or an input method makes of a key comes as text (229).
  if (event.isComposing || event.keyCode === 229 || event.metaKey) return false;
  // Copy and paste stay the browser's own; so does the way out of the terminal, told in its description.
  if (event.ctrlKey && event.shiftKey && /^[cv]$/i.test(event.key)) return false;
  if (event.ctrlKey && !event.altKey && event.key === "v") return false;
  if (event.shiftKey && (event.key === "Insert" || event.key === "Escape")) return false;
  if ((event.shiftKey && (event.key === "PageUp" || event.key === "PageDown")) || event.key === "Unidentified") return false;
  const single = [...event.key].length === 1;
  // AltGr makes characters; what it was made of is not meant.
  const altGraph = event.getModifierState("AltGraph");
  const held = { ctrl: event.ctrlKey && !altGraph, alt: event.altKey && !altGraph, shift: event.shiftKey };
  if (single && !held.ctrl && !held.alt && !armed()) return terminal.text(event.key);
  return sendKey(terminal, event.key, held);
}
