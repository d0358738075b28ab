/**
 * Where we are, in the fragment, so that reload and the phone's back gesture work. An invitation arrives in the fragment
 * too; it is taken out of the address at once, before it can reach the history or a screenshot.
 */

import { signal } from "@preact/signals";

export type Route =
  | { at: "machines" }
  | { at: "pair" }
  | { at: "settings" }
  | { at: "sessions"; device: string }
  | { at: "devices"; device: string }
  | { at: "terminal"; device: string; session: string };

export const route = signal<Route>({ at: "machines" });
/** The link by which this page was opened, until someone has dealt with it. */
export const openedBy = signal<string | null>(null);

/** How many of our own entries lie behind us; with none, "back" goes up instead of out of the app. */
let depth = 0;

export function startRouting(): void {
  readLocation();
  addEventListener("popstate", () => {
    depth = Math.max(0, depth - 1);
    readLocation();
  });
  addEventListener("hashchange", readLocation);
}

export function go(to: Route): void {
  depth += 1;
  history.pushState(null, "", format(to));
  route.value = to;
}

export function replace(to: Route): void {
  history.replaceState(null, "", format(to));
  route.value = to;
}

export function back(): void {
  if (depth > 0) history.back();
  else replace(above(route.value));
}

function above(at: Route): Route {
  return at.at === "terminal" || at.at === "devices" ? { at: "sessions", device: at.device } : { at: "machines" };
}

function readLocation(): void {
  const fragment = location.hash.slice(1);
  // PROTOCOL 4: digits only; anything else is ours.
  if (/^\d{20,200}$/.test(fragment)) {
    history.replaceState(null, "", format({ at: "pair" }));
    openedBy.value = `${location.origin}/#${fragment}`;
    route.value = { at: "pair" };
    return;
  }
  route.value = parse(fragment);
}

function format(to: Route): string {
  switch (to.at) {
    case "machines":
      return "#/";
    case "pair":
    case "settings":
      return `#/${to.at}`;
    case "sessions":
      return `#/${to.device}`;
    case "devices":
      return `#/${to.device}/devices`;
    case "terminal":
      return `#/${to.device}/${to.session}`;
  }
}

function parse(fragment: string): Route {
  const [first, second] = fragment.replace(/^\//, "").split("/");
  if (first === "pair" || first === "settings") return { at: first };
  if (!first || !/^[\w-]{43}$/.test(first)) return { at: "machines" };
  if (second === "devices") return { at: "devices", device: first };
  if (second && /^[0-9a-f-]{36}$/.test(second)) return { at: "terminal", device: first, session: second };
  return { at: "sessions", device: first };
}
