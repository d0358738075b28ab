/** The devices that a machine knows: who they are, what they may do, and removing them. */

import { useEffect, useState } from "preact/hooks";
import { attempt, deviceId, machine, now, refreshDevices, say, statusFor, theCore } from "../model";
import type { Device } from "../rpc";
import { Confirm, Dot, Icon, TopBar } from "../ui";
import { ago } from "../words";
import { Refused } from "./refused";
import { UnknownMachine } from "./sessions";

export function Devices(props: { device: string }) {
  const m = machine(props.device);
  const linked = m?.linked ?? false;
  const [removing, setRemoving] = useState<Device | null>(null);
  useEffect(() => {
    if (linked) void refreshDevices(props.device);
  }, [props.device, linked]);
  if (!m) return <UnknownMachine />;

  const owner = (m.info?.role ?? m.role) === "owner";
  const devices = [...(m.devices ?? [])].sort((a, b) => Number(!!a.removed_at) - Number(!!b.removed_at) || a.added_at - b.added_at);
  const remove = (device: Device) =>
    attempt("The device was not removed.", async () => {
      await theCore().call(m.device, "device.revoke", { device: device.device });
      say(`${device.name} was removed.`);
      await refreshDevices(m.device);
    });

  return (
    <>
      <TopBar title="Devices" subtitle={`that ${m.info?.name ?? m.name} lets in`} device={m.device} />
      <main class="page">
        {m.refused && <Refused machine={m} />}
        {!linked && !m.refused && <p class="hint">{statusFor(m.device).detail}{m.devices && " What you see is from before."}</p>}
        {linked && !m.devices && <p class="hint" role="status">Reading the devices…</p>}
        <ul class={linked ? "cards" : "cards stale"} hidden={m.refused !== null}>
          {devices.map((device) => (
            <li key={device.device} class="panel">
              <div class="main">
                <div class="split">
                  <strong>
                    {device.name}
                    {device.device === deviceId.value && <span class="tag">this device</span>}
                  </strong>
                  <span class="tag">{device.role}</span>
                </div>
                <span class="muted">
                  <Dot tone={device.removed_at !== null ? "bad" : device.presence === "here" ? "good" : "idle"} /> {where(device, now.value)}
                </span>
              </div>
              <div class="foot">
                <details>
                  <summary>Safety number</summary>
                  <SafetyNumber digits={device.safety_number} />
                  <p class="muted">The same number on both devices means that nobody stands between them.</p>
                </details>
                {owner && device.removed_at === null && (
                  <button class="button quiet danger-text" disabled={!linked} onClick={() => setRemoving(device)}>
                    Remove
                  </button>
                )}
              </div>
            </li>
          ))}
        </ul>
        <section class="panel" hidden={m.refused !== null}>
          <div class="main">
            <strong>{m.info?.name ?? m.name}</strong>
            <span class="muted">The machine itself, as this device knows it</span>
          </div>
          <details>
            <summary>Safety number</summary>
            <SafetyNumber digits={theCore().safetyNumber(m.device)} />
            <p class="muted">
              <Icon name="lock" /> Compare it with <code>happy devices</code> on the machine.
            </p>
          </details>
        </section>
      </main>
      {removing && (
        <Confirm title={`Remove ${removing.name} for good?`} yes="Remove" onClose={() => setRemoving(null)} onYes={() => void remove(removing)}>
          <p>
            {removing.device === deviceId.value
              ? `This is the device in your hand. ${m.name} cuts it off at once and for good. To use it again, start anew with a new key and pair it.`
              : `${m.name} cuts it off at once, and its key never comes back. To use the device again, start anew on it and pair it.`}
          </p>
        </Confirm>
      )}
    </>
  );
}

function where(device: Device, nowMs: number): string {
  if (device.removed_at !== null) return `removed ${ago(device.removed_at, nowMs)}`;
  const paired = `paired ${ago(device.added_at, nowMs)}`;
  return device.presence === "here" ? `connected · ${paired}` : device.presence === "away" ? `away · ${paired}` : paired;
}

function SafetyNumber(props: { digits: string }) {
  const groups = props.digits.replace(/\D/g, "").match(/\d{5}/g) ?? [];
  return (
    <p class="safety" aria-label="Safety number">
      {groups.map((group, index) => (
        <span key={index}>{group} </span>
      ))}
    </p>
  );
}
