/** What a machine says of itself, taken apart: it is another program, and what is kept is shown at every start. */

import type { MachineMetadata, MachineState, MachineStatus, StopSource } from "./rpc";

/** The plaintexts of a machine's records (PROTOCOL 7.1), as it told them over its link or left them at its relay. Their key stays in the core. */
export interface Kept {
  metadata: MachineMetadata;
  state: MachineState;
}

/** Characters that are kept of each. A path is cut too: it is shown, and never opened. */
const LONGEST = 256;
const STATUS: readonly MachineStatus[] = ["running", "shutting-down", "offline"];
const SOURCES: readonly StopSource[] = ["call", "cli", "signal"];

/** Whether this is an earlier word of the same life of a daemon, which goes from running to offline and not back: a relay may have one. */
export function isBefore(state: MachineState, other: MachineState): boolean {
  const isSameLife = state.started_at === other.started_at && state.pid === other.pid;
  return isSameLife && STATUS.indexOf(state.status) < STATUS.indexOf(other.status);
}

type Fields = Record<string, unknown>;

const fields = (said: unknown): Fields => (typeof said === "object" && said !== null ? (said as Fields) : {});
const text = (said: unknown): string => (typeof said === "string" ? said.slice(0, LONGEST) : "");
const number = (said: unknown): number => (typeof said === "number" && Number.isFinite(said) ? said : 0);

/** null: it is none. */
export function recordOf(said: unknown): Kept | null {
  const [metadata, state] = [fields(fields(said).metadata), fields(fields(said).state)];
  const status = STATUS.find((known) => known === state.status);
  if (!status || typeof metadata.host !== "string") return null;
  const source = SOURCES.find((known) => known === state.shutdown_source);
  return {
    metadata: {
      name: text(metadata.name),
      host: text(metadata.host),
      platform: text(metadata.platform),
      version: text(metadata.version),
      home: text(metadata.home),
      happy_home: text(metadata.happy_home),
    },
    state: {
      status,
      pid: number(state.pid),
      port: number(state.port),
      started_at: number(state.started_at),
      ...(state.shutdown_requested_at === undefined ? {} : { shutdown_requested_at: number(state.shutdown_requested_at) }),
      ...(source ? { shutdown_source: source } : {}),
    },
  };
}
