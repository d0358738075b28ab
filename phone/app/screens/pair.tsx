/** Pairing: find an invitation, say what it gives to whom, show the code that is typed at the machine. */

import { useEffect, useRef, useState } from "preact/hooks";
import { readInvitation, type Invitation } from "../core";
import { machine, pairedWith, pairing, say, sentence, theCore } from "../model";
import { openedBy, replace } from "../route";
import { CameraProblem, readPhoto, startCamera } from "../scan";
import { Icon, Problem, Sheet, TopBar } from "../ui";
import { aRole, roleMeans, thisDeviceName } from "../words";

interface Found {
  link: string;
  invitation: Invitation;
}

export function Pair() {
  const [found, setFound] = useState<Found | null>(null);
  const [problem, setProblem] = useState<string | null>(null);

  const take = (link: string) => {
    try {
      setFound({ link, invitation: readInvitation(link) });
      setProblem(null);
    } catch (error) {
      setProblem(sentence(error instanceof Error ? error.message : String(error)));
    }
  };

  const opened = openedBy.value;
  useEffect(() => {
    if (!opened) return;
    openedBy.value = null;
    take(opened);
  }, [opened]);

  const paired = pairedWith.value;
  useEffect(() => {
    if (!paired) return;
    pairedWith.value = null;
    say(`Paired with ${machine(paired)?.name ?? "the machine"}.`);
    replace({ at: "sessions", device: paired });
  }, [paired]);
  useEffect(() => cancel, []);

  const step = pairing.value;
  if (step.step === "code") {
    return (
      <>
        <TopBar title="Pair a machine" />
        <main class="page center">
          <h2 class="lead">Type this code at {step.machine}</h2>
          <p class="code" role="status" aria-label={`The code is ${[...step.code.replace(/\D/g, "")].join(" ")}`}>
            {step.code}
          </p>
          <p>
            {step.machine} is waiting for it in the window where the QR code is. Typing it there makes this device {aRole(step.role)}: it may{" "}
            {roleMeans(step.role)}.
          </p>
          <p class="muted">Only type it when you are pairing this device yourself.</p>
          <button class="button quiet" onClick={() => cancel()}>
            Cancel
          </button>
        </main>
      </>
    );
  }
  if (step.step === "calling") {
    return (
      <>
        <TopBar title="Pair a machine" />
        <main class="page center" aria-busy="true">
          <span class="spinner" aria-hidden="true" />
          <h2 class="lead">Calling the machine</h2>
          <p role="status">Proving the invitation and agreeing on keys.</p>
          <button class="button quiet" onClick={() => cancel()}>
            Cancel
          </button>
        </main>
      </>
    );
  }
  return (
    <>
      <TopBar title="Pair a machine" />
      <main class="page">
        {step.step === "failed" && <Problem>{step.message}</Problem>}
        {problem && <Problem>{problem}</Problem>}
        <p class="lead">
          On the computer run <code>happy up</code> or <code>happy pair</code>, and hold this phone before the code that it shows.
        </p>
        <Camera paused={found !== null} onText={take} />
        <Paste onText={take} />
      </main>
      {found && (
        <Offer
          found={found}
          onClose={() => setFound(null)}
          onPair={(name) => {
            setFound(null);
            pairing.value = { step: "calling", link: found.link };
            theCore().pair(found.link, name);
          }}
        />
      )}
    </>
  );
}

function cancel(): void {
  theCore().cancelPairing();
  pairing.value = { step: "none" };
}

/** What is given to whom, before anything is sent. */
function Offer(props: { found: Found; onClose: () => void; onPair: (name: string) => void }) {
  const { invitation } = props.found;
  const [name, setName] = useState(thisDeviceName);
  const [left, setLeft] = useState(secondsLeft(invitation));
  useEffect(() => {
    const timer = setInterval(() => setLeft(secondsLeft(invitation)), 1_000);
    return () => clearInterval(timer);
  }, [invitation]);
  const usable = name.trim().length > 0 && new TextEncoder().encode(name.trim()).length <= 64;

  return (
    <Sheet title="Pair with this machine?" onClose={props.onClose}>
      <dl class="facts">
        <dt>Reached through</dt>
        <dd class="mono">{invitation.origin.replace(/^https?:\/\//, "")}</dd>
        <dt>You become</dt>
        <dd>{invitation.role}</dd>
        <dt>You may</dt>
        <dd>{roleMeans(invitation.role)}</dd>
      </dl>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (usable) props.onPair(name.trim());
        }}
      >
        <label class="field">
          <span>Name of this device on the machine</span>
          <input value={name} maxLength={64} autocomplete="off" enterkeyhint="go" onInput={(event) => setName(event.currentTarget.value)} />
        </label>
        <p class="muted">
          {left > 0 ? `The invitation is good for ${left} more seconds.` : "By this device's clock the invitation has expired; the machine decides."}
        </p>
        <div class="buttons">
          <button class="button primary" type="submit" disabled={!usable}>
            Pair
          </button>
          <button class="button quiet" type="button" onClick={props.onClose}>
            Cancel
          </button>
        </div>
      </form>
    </Sheet>
  );
}

function secondsLeft(invitation: Invitation): number {
  return Math.max(0, Math.round(invitation.expires - Date.now() / 1_000));
}

function Camera(props: { paused: boolean; onText: (text: string) => void }) {
  const video = useRef<HTMLVideoElement>(null);
  const stop = useRef<(() => void) | null>(null);
  const gone = useRef(false);
  const [state, setState] = useState<"off" | "starting" | "on">("off");
  const [problem, setProblem] = useState<string | null>(null);
  // The camera looks ten times a second; the same code is worth one report.
  const last = useRef("");
  const paused = useRef(props.paused);
  useEffect(() => {
    paused.current = props.paused;
    if (!props.paused) last.current = "";
  }, [props.paused]);

  const start = async () => {
    if (!video.current || state !== "off") return;
    setState("starting");
    setProblem(null);
    try {
      const halt = await startCamera(video.current, (text) => {
        if (paused.current || text === last.current) return;
        last.current = text;
        props.onText(text);
      });
      if (gone.current) return halt();
      stop.current = halt;
      setState("on");
    } catch (error) {
      setState("off");
      setProblem(error instanceof CameraProblem ? error.message : "The camera did not start. Paste the link instead.");
    }
  };
  useEffect(() => {
    // Asked once, browsers remember; then nobody has to tap again.
    navigator.permissions
      ?.query({ name: "camera" as PermissionName })
      .then((permission) => permission.state === "granted" && !gone.current && void start())
      .catch(() => undefined);
    return () => {
      gone.current = true;
      stop.current?.();
    };
  }, []);

  return (
    <section class="camera" aria-label="Camera">
      <div class="viewfinder" data-state={state}>
        <video ref={video} muted playsInline aria-label="What the camera sees" />
        <span class="corners" aria-hidden="true" />
        {state !== "on" && (
          <button class="button primary" onClick={() => void start()} disabled={state === "starting"}>
            <Icon name="camera" /> {state === "starting" ? "Starting…" : "Start the camera"}
          </button>
        )}
      </div>
      {problem && <Problem>{problem}</Problem>}
      <label class="button quiet wide filebutton">
        <Icon name="photo" /> Use a photo of the code
        <input
          type="file"
          accept="image/*"
          onChange={(event) => {
            const file = event.currentTarget.files?.[0];
            event.currentTarget.value = "";
            if (file) void photo(file, props.onText, setProblem);
          }}
        />
      </label>
    </section>
  );
}

async function photo(file: File, onText: (text: string) => void, setProblem: (problem: string | null) => void): Promise<void> {
  try {
    const texts = await readPhoto(file);
    setProblem(texts.length === 0 ? "There is no QR code to be found in that photo. Come closer and hold still." : null);
    texts.forEach(onText);
  } catch {
    setProblem("That file cannot be read as a picture.");
  }
}

function Paste(props: { onText: (text: string) => void }) {
  const [text, setText] = useState("");
  return (
    <form
      class="paste"
      onSubmit={(event) => {
        event.preventDefault();
        if (text.trim()) props.onText(text.trim());
      }}
    >
      <label class="field" for="link">
        <span>Or paste the link of the invitation</span>
      </label>
      <div class="together">
        <input
          id="link"
          value={text}
          inputMode="url"
          autocomplete="off"
          autocapitalize="off"
          spellcheck={false}
          placeholder="https://…/#…"
          onInput={(event) => setText(event.currentTarget.value)}
        />
        <button class="button quiet" type="submit" aria-label="Use the link" disabled={!text.trim()}>
          Use
        </button>
      </div>
    </form>
  );
}
