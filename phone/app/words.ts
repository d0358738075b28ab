/** Words for people: times, roles, sizes. */

import type { Role, Session } from "./rpc";

export function ago(unixMs: number, nowMs: number): string {
  const minutes = Math.floor(Math.max(0, nowMs - unixMs) / 60_000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ago`;
  const days = Math.floor(hours / 24);
  return days === 1 ? "yesterday" : `${days} days ago`;
}

export function roleMeans(role: Role): string {
  switch (role) {
    case "owner":
      return "open shells, type, end sessions, change files, and add or remove other devices";
    case "operator":
      return "open shells, type, end sessions and change files";
    case "viewer":
      return "look at sessions, but not type";
    case "machine":
      return "open shells, type and end sessions, as another machine of yours";
  }
}

export function aRole(role: Role): string {
  return /^[aeiou]/.test(role) ? `an ${role}` : `a ${role}`;
}

export function mayAct(role: Role): boolean {
  return role !== "viewer";
}

export function sessionState(session: Session): { tone: "good" | "busy" | "idle" | "bad"; text: string } {
  // However it ended, somebody wanted it to.
  const wanted = session.told_to_end === true;
  switch (session.state) {
    case "running":
      if (session.paused) return { tone: "idle", text: "paused" };
      if (session.prompt) return { tone: "busy", text: "waits for you" };
      return { tone: "good", text: session.kind === "tmux" ? "running in tmux" : "running" };
    case "exited":
      return { tone: wanted || session.code === 0 ? "idle" : "bad", text: session.code === 0 ? "ended" : `ended with code ${session.code}` };
    case "killed":
      return { tone: wanted ? "idle" : "bad", text: `ended by signal ${session.signal}` };
    case "lost":
      return { tone: "bad", text: "lost: how it ended is unknown" };
  }
}

/** A home directory reads better as `~`. */
export function shortPath(path: string, home: string | undefined): string {
  return home && (path === home || path.startsWith(`${home}/`)) ? `~${path.slice(home.length)}` : path;
}

export function thisDeviceName(): string {
  const agent = navigator.userAgent;
  if (/iPhone/.test(agent)) return "iPhone";
  if (/iPad/.test(agent)) return "iPad";
  if (/Android/.test(agent)) return /Mobile/.test(agent) ? "Android phone" : "Android tablet";
  const browser = /Firefox/.test(agent) ? "Firefox" : /Edg/.test(agent) ? "Edge" : /Chrom/.test(agent) ? "Chrome" : "Browser";
  const system = /Mac/.test(agent) ? "Mac" : /Windows/.test(agent) ? "Windows" : /Linux/.test(agent) ? "Linux" : "this computer";
  return `${browser} on ${system}`;
}

/** An amount of data. */
export function amount(bytes: number): string {
  if (bytes < 1_000) return bytes === 1 ? "1 byte" : `${bytes} bytes`;
  const [unit, size] = bytes < 1_000_000 ? ["KB", bytes / 1_000] : ["MB", bytes / 1_000_000];
  return `${size < 10 ? size.toFixed(1) : Math.round(size)} ${unit}`;
}
