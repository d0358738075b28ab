/** The terminal of a session of this machine, over a websocket of the local API. */

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { loadTerminals } from "../core";
import { sentence } from "../model";
import { NoSession, Session, SizeButton } from "../terminal/session";
import { COARSE, useStageState } from "../terminal/stage";
import { Bar } from "../ui";
import { Status } from "./overview";
import { toOverview } from "./place";
import { live as follows, sessions, titleOf } from "./state";
import { overLocal } from "./wire";

export function Terminal(props: { session: string }) {
  const [loaded, setLoaded] = useState(false);
  const [trouble, setTrouble] = useState("");
  useEffect(() => {
    loadTerminals().then(
      () => setLoaded(true),
      (error: unknown) => setTrouble(sentence(error instanceof Error ? error.message : String(error))),
    );
  }, []);
  if (loaded) return <Live {...props} />;
  return (
    <>
      <Top title="Terminal" />
      <main class="terminal">
        {trouble ? (
          <NoSession onBack={toOverview}>The terminal could not be loaded. {trouble}</NoSession>
        ) : (
          <p class="hint" role="status">
            Loading the terminal…
          </p>
        )}
      </main>
    </>
  );
}

function Top(props: { title: string; subtitle?: string | undefined; children?: ComponentChildren }) {
  return <Bar {...props} onBack={toOverview} backLabel="Back to the sessions" status={<Status />} />;
}

function Live(props: { session: string }) {
  const state = useStageState();
  const now = state.frame.value;
  const session = sessions.value?.find(({ id }) => id === props.session);
  const title = now.title || (session ? titleOf(session) : "") || "Terminal";
  return (
    <Session
      session={props.session}
      view={state}
      bar={(onSize) => (
        <Top title={title} subtitle={session?.cwd}>
          {onSize && <SizeButton onClick={onSize} />}
        </Top>
      )}
      onBack={toOverview}
      open={overLocal(props.session)}
      control={false}
      title={title}
      opening="Opening the session"
      live={now.attached && follows.value}
      act
      onlooker=""
      keys={COARSE}
      onQueue={null}
    />
  );
}
