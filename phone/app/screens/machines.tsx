/** Home: the machines that this device is paired with, and honestly what is known of each. */

import { machines, now, refusedShort, relays, type MachineView } from "../model";
import { go } from "../route";
import { Dot, Empty, Icon, TopBar } from "../ui";
import { ago } from "../words";

export function Machines() {
  const list = [...machines.value].sort((a, b) => Number(b.linked) - Number(a.linked) || a.name.localeCompare(b.name));
  return (
    <>
      <TopBar title="Machines" root>
        <button class="iconbutton" aria-label="Settings" onClick={() => go({ at: "settings" })}>
          <Icon name="gear" />
        </button>
      </TopBar>
      <main class="page">
        {list.length === 0 ? (
          <Empty icon="machine" title="Pair your first machine">
            <p>
              On your computer run <code>happy up</code>. It shows a code; scan it here, and its terminals are in your hand, encrypted from end
              to end.
            </p>
            <button class="button primary wide" onClick={() => go({ at: "pair" })}>
              <Icon name="camera" /> Scan the code
            </button>
          </Empty>
        ) : (
          <>
            <ul class="cards">
              {list.map((m) => (
                <li key={m.device}>
                  <button class="card" onClick={() => go({ at: "sessions", device: m.device })}>
                    <span class="badge">
                      <Icon name="machine" />
                    </span>
                    <span class="main">
                      <strong>{m.info?.name ?? m.name}</strong>
                      <span class="muted">
                        <Dot tone={presence(m).tone} /> {presence(m).text}
                      </span>
                    </span>
                    <span class="count">{running(m)}</span>
                    <Icon name="chevron" />
                  </button>
                </li>
              ))}
            </ul>
            <button class="button quiet wide" onClick={() => go({ at: "pair" })}>
              <Icon name="plus" /> Pair another machine
            </button>
          </>
        )}
      </main>
    </>
  );
}

function running(m: MachineView): string {
  if (!m.linked || !m.sessions) return "";
  const count = m.sessions.filter((s) => s.state === "running").length;
  return count === 0 ? "" : count === 1 ? "1 session" : `${count} sessions`;
}

/** The last that it said is that it stops. */
export const hasStopped = (m: MachineView): boolean => m.record !== null && m.record.state.status !== "running";

export function presence(m: MachineView): { tone: "good" | "busy" | "bad" | "idle"; text: string } {
  if (m.refused) return { tone: "bad", text: refusedShort(m.refused) };
  if (m.linked) return { tone: "good", text: "online" };
  if (m.here) return { tone: "busy", text: "online, connecting" };
  const seen = m.lastSeen === null ? "" : `last seen ${ago(m.lastSeen, now.value)}`;
  // One that has said that it stops is offline; of one that is gone without a word nobody knows why.
  const away = hasStopped(m) ? "offline" : "away";
  if (m.here === false) return { tone: "idle", text: seen ? `${away}, ${seen}` : away };
  const asking = m.relays.some((origin) => relays.value.get(origin)?.up);
  // Until the relay has answered what it knows of it.
  if (asking && hasStopped(m)) return { tone: "idle", text: seen ? `offline, ${seen}` : "offline" };
  return { tone: "idle", text: asking ? "asking…" : seen ? `unknown, ${seen}` : "unknown" };
}
