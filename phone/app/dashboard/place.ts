/** What of the dashboard is shown: the overview, or the terminal of a session. It is in the address, so that the browser's own way back works. */

import { signal } from "@preact/signals";

const TERMINAL = /^#terminal=([\da-f-]{36})$/;

/** The session whose terminal is open. */
export const opened = signal<string | null>(read());
/** This page made the step in the history that leads back. */
let pushed = false;

function read(): string | null {
  return TERMINAL.exec(location.hash)?.[1] ?? null;
}

addEventListener("popstate", () => {
  opened.value = read();
  pushed = false;
});

export function openTerminal(session: string): void {
  history.pushState(null, "", `#terminal=${session}`);
  pushed = true;
  opened.value = session;
}

export function toOverview(): void {
  if (pushed) return history.back();
  history.replaceState(null, "", location.pathname);
  opened.value = null;
}
