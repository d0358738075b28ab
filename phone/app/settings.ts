/** Small choices that are no secret. */

import { effect, signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";

export const theme = signal<Theme>(stored("theme", ["system", "light", "dark"] as const));
/** Font size of the terminal in pixels; 0 fits the machine's width into the phone's. */
export const SMALLEST_FONT = 6;
export const LARGEST_FONT = 28;
export const fontSize = signal(storedFont());
/** How one types: a line that is sent as a whole, or each key as it is pressed. */
export type Typing = "line" | "keys";
export const typing = signal<Typing>(stored("typing", ["line", "keys"] as const));

const dark = matchMedia("(prefers-color-scheme: dark)");
const systemDark = signal(dark.matches);
dark.addEventListener("change", () => (systemDark.value = dark.matches));

export function isDark(): boolean {
  return theme.value === "dark" || (theme.value === "system" && systemDark.value);
}

effect(() => {
  localStorage.setItem("happy-theme", theme.value);
  document.documentElement.dataset["theme"] = isDark() ? "dark" : "light";
  for (const meta of document.querySelectorAll<HTMLMetaElement>("meta[name=theme-color]")) {
    meta.content = isDark() ? "#121416" : "#f6f5f2";
  }
});
effect(() => localStorage.setItem("happy-font", String(fontSize.value)));
effect(() => localStorage.setItem("happy-typing", typing.value));

function storedFont(): number {
  const size = Number(localStorage.getItem("happy-font"));
  return size >= SMALLEST_FONT && size <= LARGEST_FONT ? size : 0;
}

function stored<T extends string>(name: string, allowed: readonly [T, ...T[]]): T {
  const value = localStorage.getItem(`happy-${name}`) as T | null;
  return value !== null && allowed.includes(value) ? value : allowed[0];
}
