/** What a device shows when a machine does not let it in. */

import { useState } from "preact/hooks";
import { forgetMachine, machines, refusal, startAnew, type MachineView } from "../model";
import { go, replace } from "../route";
import { Confirm, Problem } from "../ui";

/** Why, and the way back in: a removed key never comes back, so that way is a new one. */
export function Refused(props: { machine: MachineView }) {
  const { device, name, refused } = props.machine;
  const [anew, setAnew] = useState(false);
  const others = machines.value.length - 1;
  return (
    <section class="refused">
      <Problem>{refusal(refused ?? "", name)}</Problem>
      <div class="buttons">
        {refused === "revoked" ? (
          <button class="button primary" onClick={() => setAnew(true)}>
            Start anew
          </button>
        ) : (
          <button class="button primary" onClick={() => go({ at: "pair" })}>
            Pair again
          </button>
        )}
        <button
          class="button quiet"
          onClick={() => {
            forgetMachine(device);
            replace({ at: "machines" });
          }}
        >
          Forget {name.length < 12 ? name : "it"}
        </button>
      </div>
      {anew && (
        <Confirm title="Start anew?" yes="Start anew" onClose={() => setAnew(false)} onYes={() => void startAnew()}>
          <p>
            This device gets a new key and forgets its machines.
            {others > 0 && ` It has to be paired again with ${others === 1 ? "the other one" : `the ${others} others`} too.`}
          </p>
        </Confirm>
      )}
    </section>
  );
}
