/** Settings, and the plain truth about who could read what. */

import { useEffect, useState } from "preact/hooks";
import { bundleHash } from "../bundle";
import { anyLinked, deviceId, machines, startAnew, theCore } from "../model";
import { theme, type Theme } from "../settings";
import { Confirm, Dot, TopBar } from "../ui";

const THEMES: [Theme, string][] = [
  ["system", "System"],
  ["light", "Light"],
  ["dark", "Dark"],
];

export function Settings() {
  const [forgetting, setForgetting] = useState(false);
  const [bundle, setBundle] = useState<string | null>(null);
  const [unreadable, setUnreadable] = useState(false);
  const [kept, setKept] = useState<boolean | null>(null);
  useEffect(() => {
    navigator.storage?.persisted?.().then(setKept, () => undefined);
    bundleHash().then(setBundle, () => setUnreadable(true));
  }, []);

  const told = machines.value.filter((m) => m.info?.app_hash);

  return (
    <>
      <TopBar title="Settings" />
      <main class="page">
        <section class="panel">
          <h2>Appearance</h2>
          <div class="segments" role="radiogroup" aria-label="Theme">
            {THEMES.map(([value, label]) => (
              <button key={value} role="radio" aria-checked={theme.value === value} onClick={() => (theme.value = value)}>
                {label}
              </button>
            ))}
          </div>
        </section>
        <section class="panel">
          <h2>Who could read what</h2>
          <p>
            Relay and network see sizes and times, never contents. But whoever serves this app could serve another one that reads everything.
            Here the app comes from <code>{location.host}</code>.
          </p>
          <p>Each machine knows the app that it was built with. Comparing the two finds a changed app, unless the changed app lies here too.</p>
          <dl class="facts">
            <dt>This app</dt>
            <dd class="mono">{bundle ? short(bundle) : unreadable ? "could not be read again" : "…"}</dd>
            {told.map((m) => (
              <>
                <dt>{m.info?.name}</dt>
                <dd>
                  {bundle === null ? (
                    <span class="mono">{short(m.info?.app_hash ?? "")}</span>
                  ) : m.info?.app_hash === bundle ? (
                    <>
                      <Dot tone="good" /> the same
                    </>
                  ) : (
                    <>
                      <Dot tone="bad" /> another: <span class="mono">{short(m.info?.app_hash ?? "")}</span>
                    </>
                  )}
                </dd>
              </>
            ))}
          </dl>
          {told.length === 0 && <p class="muted">{anyLinked.value ? "No machine has named one yet." : "No machine is connected to compare with."}</p>}
        </section>
        <section class="panel">
          <h2>This device</h2>
          <dl class="facts">
            <dt>Its key</dt>
            <dd class="mono">{deviceId.value.slice(0, 8)}</dd>
            <dt>Version</dt>
            <dd>{theCore().version}</dd>
            {kept !== null && (
              <>
                <dt>Storage</dt>
                <dd>{kept ? "kept until you clear it" : "the browser may clear it when space is short"}</dd>
              </>
            )}
          </dl>
          <button class="button quiet danger-text" onClick={() => setForgetting(true)}>
            Forget everything here
          </button>
        </section>
      </main>
      {forgetting && (
        <Confirm title="Forget everything?" yes="Forget it" onClose={() => setForgetting(false)} onYes={() => void startAnew()}>
          <p>
            The keys of this device and its list of machines are deleted here. Sessions go on. The machines still list this device until you
            remove it there.
          </p>
        </Confirm>
      )}
    </>
  );
}

function short(hash: string): string {
  return `${hash.slice(0, 8)} ${hash.slice(8, 16)}`;
}
