/** What a machine is, and how it was when it was heard of last. */

import { now, type MachineView } from "../model";
import { Dot } from "../ui";
import { ago, shortPath } from "../words";
import { hasStopped, presence } from "./machines";

const STOPPED_BY = { call: "by a device", cli: "at the machine", signal: "by a signal, as when the machine is switched off" } as const;

export function About(props: { machine: MachineView }) {
  const { machine: m } = props;
  const metadata = m.record?.metadata;
  const { tone, text } = presence(m);
  return (
    <section class="panel about" aria-label="About this machine">
      <h2>About this machine</h2>
      <dl class="facts">
        <dt>Status</dt>
        <dd>
          <Dot tone={tone} /> {text}
        </dd>
        {metadata && (
          <>
            <dt>Host</dt>
            <dd class="mono">{metadata.host}</dd>
            <dt>System</dt>
            <dd>{metadata.platform}</dd>
            <dt>Version</dt>
            <dd>{metadata.version}</dd>
            <dt>Home</dt>
            <dd class="mono">{shortPath(metadata.happy_home, metadata.home)}</dd>
          </>
        )}
        {m.record && m.linked && (
          <>
            <dt>Started</dt>
            <dd>{ago(m.record.state.started_at, now.value)}</dd>
          </>
        )}
      </dl>
      {!m.linked && !m.here && (m.here === false || hasStopped(m)) && <p class="muted">{why(m)}</p>}
    </section>
  );
}

function why(m: MachineView): string {
  if (!hasStopped(m)) return "It has not said that it stops: it may sleep, have lost its network, or have crashed.";
  const source = m.record?.state.shutdown_source;
  return `It has said that it stops${source ? `: ${STOPPED_BY[source]}` : ""}. Its sessions go on if the machine itself does.`;
}
