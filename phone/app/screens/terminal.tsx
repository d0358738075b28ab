/** One session, live. */

import { decidesSize, machine, online, queue, statusFor, theCore } from "../model";
import { back } from "../route";
import { Asked } from "../terminal/asked";
import { Session, SizeButton } from "../terminal/session";
import { useStageState } from "../terminal/stage";
import { TopBar } from "../ui";
import { aRole, mayAct } from "../words";
import { Queue } from "./queue";
import { Refused } from "./refused";
import { UnknownMachine } from "./sessions";

export function TerminalScreen(props: { device: string; session: string }) {
  const m = machine(props.device);
  if (!m) return <UnknownMachine />;
  return <Live key={`${props.device}/${props.session}`} {...props} />;
}

function Live(props: { device: string; session: string }) {
  const m = machine(props.device)!;
  const state = useStageState();
  const session = m.sessions?.find((s) => s.id === props.session);
  const now = state.frame.value;
  const role = m.info?.role ?? m.role;
  const act = mayAct(role);
  const title = now.title || session?.title || session?.name || "Terminal";
  const mayAnswer = act && !m.refused && now.ended === undefined && now.problem === undefined;
  return (
    <Session
      session={props.session}
      view={state}
      bar={(onSize) => (
        <TopBar title={title} subtitle={m.info?.name ?? m.name} device={props.device}>
          {onSize && <SizeButton onClick={onSize} />}
        </TopBar>
      )}
      onBack={back}
      open={(viewer, changed) => theCore().openTerminal(props.device, props.session, viewer, changed)}
      control={decidesSize(props.device, props.session)}
      title={title}
      opening={m.linked ? "Opening the session" : statusFor(props.device).detail}
      // A phone that says it has no network is believed, though the connection may not have noticed yet.
      live={m.linked && now.attached && online.value}
      act={act}
      onlooker={act ? "" : `You are ${aRole(role)} here: you can look, not type.`}
      refused={m.refused ? <Refused machine={m} /> : undefined}
      keys
      onQueue={(text) => queue(props.device, "session.type", { session: props.session, text, enter: true }, props.session)}
      queue={<Queue device={props.device} session={props.session} />}
    >
      {m.linked && now.ended === undefined && !state.selected.value && (
        <Asked device={props.device} session={props.session} prompt={session?.prompt} mayAnswer={mayAnswer} />
      )}
    </Session>
  );
}
