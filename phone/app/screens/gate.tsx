/** Full pages that stand before the app. */

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { Confirm } from "../ui";

function Gate(props: { title: string; children: ComponentChildren }) {
  return (
    <main class="gate">
      <img class="logo" src="/icon.svg" alt="" width="72" height="72" />
      <h1>{props.title}</h1>
      {props.children}
    </main>
  );
}

/** On plain http anyone on the network could put another program in our place; keys do not belong there. */
export function Insecure() {
  return (
    <Gate title="This page needs a secure address">
      <p>
        It was opened over plain <code>http</code>. Anyone on this network could change it on the way and read what you type, so no
        keys are made here.
      </p>
      <p>On your computer, use one of these instead:</p>
      <ul class="plain">
        <li>
          <code>happy up</code> and scan the code that it prints: the address in it begins with <code>https</code>.
        </li>
        <li>
          <code>happy up --relay https://your-relay</code>, when you run a relay with a certificate.
        </li>
        <li>
          In a browser on the computer itself: <code>http://127.0.0.1</code> with the port that <code>happy up</code> names.
        </li>
      </ul>
    </Gate>
  );
}

export function OtherTab(props: { onTakeOver: () => void; lost: boolean }) {
  return (
    <Gate title={props.lost ? "Moved to another tab" : "Open in another tab"}>
      <p>Happy Remote is connected in another tab of this browser. One device has one connection, so only one tab can use it.</p>
      <button class="button primary wide" onClick={props.onTakeOver}>
        Use it here
      </button>
    </Gate>
  );
}

/** What is stored here cannot be used as it is. Nothing is deleted unless someone says so, twice. */
export function Broken(props: { title: string; what: string; next?: string; onContinue?: () => void; onStartAnew: () => void }) {
  const [anew, setAnew] = useState(false);
  return (
    <Gate title={props.title}>
      <p class="problem" role="alert">
        {props.what}
      </p>
      {props.next && <p>{props.next}</p>}
      {props.onContinue ? (
        <button class="button primary wide" onClick={props.onContinue}>
          Go on with it
        </button>
      ) : (
        <button class="button primary wide" onClick={() => location.reload()}>
          Try again
        </button>
      )}
      <button class="button quiet danger-text wide" onClick={() => setAnew(true)}>
        Start anew
      </button>
      {anew && (
        <Confirm title="Start anew?" yes="Start anew" onClose={() => setAnew(false)} onYes={props.onStartAnew}>
          <p>
            What this browser has stored is deleted, and this device gets a new key. It has to be paired with your machines again; remove the
            old one there.
          </p>
        </Confirm>
      )}
    </Gate>
  );
}

export function Loading() {
  return (
    <main class="gate" aria-busy="true">
      <img class="logo pulse" src="/icon.svg" alt="" width="72" height="72" />
      <p role="status">Opening…</p>
    </main>
  );
}
