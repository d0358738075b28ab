/** What was asked of a machine and has not been done yet, or came to nothing. */

import { outbox, sentence, theCore } from "../model";
import type { Entry } from "../rpc";
import { Dot, Icon } from "../ui";

/** The commands of a machine: those about one session, or all. What is done is not shown: it can be seen. */
export function Queue(props: { device: string; session?: string }) {
  const shown = outbox.value.filter(
    (entry) =>
      entry.machine === props.device &&
      (props.session === undefined || entry.session === props.session) &&
      entry.state.is !== "done" &&
      entry.state.is !== "cancelled",
  );
  if (shown.length === 0) return null;
  return (
    <ul class="queue" aria-label="Waiting to be sent">
      {shown.map((entry) => {
        const state = stateOf(entry);
        return (
          <li key={entry.number}>
            <span class="main">
              <span class="clip">{what(entry)}</span>
              <span class="muted" role="status">
                <Dot tone={state.tone} /> {state.text}
              </span>
            </span>
            {(state.ended || entry.state.is === "draft" || entry.state.is === "queued") && (
              <button
                class="iconbutton"
                aria-label={state.ended ? "Take this off the list" : "Do not send this"}
                onClick={() => {
                  if (state.ended || !theCore().cancelCommand(entry.number)) theCore().dismissCommand(entry.number);
                }}
              >
                <Icon name="close" />
              </button>
            )}
          </li>
        );
      })}
    </ul>
  );
}

function what(entry: Entry): string {
  const { method, params } = entry.request as { method: string; params: { text?: string } };
  if (method === "session.type") return params.text ?? "";
  if (method === "session.create") return "New shell";
  return method;
}

function stateOf(entry: Entry): { tone: "busy" | "bad" | "idle"; text: string; ended: boolean } {
  const { state } = entry;
  switch (state.is) {
    case "draft":
      return { tone: "idle", text: "Being kept…", ended: false };
    case "queued":
      return { tone: "idle", text: "Queued. Sent when connected.", ended: false };
    case "sent":
      return { tone: "busy", text: "Sent.", ended: false };
    case "delivered":
      return { tone: "busy", text: "The machine has it.", ended: false };
    case "expired":
      return { tone: "bad", text: "Too late: it was not done.", ended: true };
    case "failed":
      return { tone: "bad", text: `Not done. ${sentence(state.error.message)}`, ended: true };
    case "indeterminate":
      return { tone: "bad", text: `Nobody knows whether it was done. ${sentence(state.error.message)}`, ended: true };
    default:
      return { tone: "idle", text: "", ended: true };
  }
}
