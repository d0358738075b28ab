/** Everything of a session that is looked at and typed into, whatever leads to its machine: the rows, what lies over them, and what one types with. */

import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import { sentence } from "../model";
import { typing } from "../settings";
import { Icon, Problem } from "../ui";
import { amount } from "../words";
import { Compose } from "./compose";
import { Control, SizeSheet } from "./control";
import { KeyBar, SecondKeys } from "./keybar";
import { PasteSheet } from "./paste";
import { PROGRESS_FROM, Stage, type StageHandle, type StageState } from "./stage";
import { TextSheet } from "./text";
import type { Frame, Open } from "./view";

/** What was typed and not sent, by session, for as long as the page lives. */
const drafts = new Map<string, string>();

export interface SessionProps {
  session: string;
  view: StageState;
  /** Draws the bar at the top, with the way to the size when there is a screen. */
  bar: (onSize: (() => void) | null) => ComponentChildren;
  /** Where one goes from a session that is not there any more. */
  onBack: () => void;
  /** Read once, like `control`. */
  open: Open;
  /** Decide the size from the start. */
  control: boolean;
  title: string;
  /** What is waited for while there is nothing to show. */
  opening: string;
  /** What is seen is the present. */
  live: boolean;
  /** This device may type here, as long as the session takes it. */
  act: boolean;
  /** Why one may not type, shown while one looks on; empty when one may. */
  onlooker: string;
  /** The machine does not serve this device any more: what is said of that in place of everything else. */
  refused?: ComponentChildren;
  /** A field and keys are shown to type with. */
  keys: boolean;
  /** Puts a text on a list until there is a connection; false when it was not taken. null: there is no list. */
  onQueue: ((text: string) => boolean) | null;
  /** What waits on that list. */
  queue?: ComponentChildren;
  /** Lies over the rows. */
  children?: ComponentChildren;
}

export function Session(props: SessionProps) {
  const { live, refused } = props;
  const handle = useRef<StageHandle | null>(null);
  const [choosing, setChoosing] = useState(false);
  const [reading, setReading] = useState(false);
  const now = props.view.frame.value;
  // A screen that was seen before the machine refused this device stays in sight, but nothing else of the session does.
  const nothing = now.problem !== undefined || (refused !== undefined && !now.ready);
  const mayType = props.act && refused === undefined && now.ended === undefined && now.problem === undefined;
  const terminal = () => handle.current?.view.terminal ?? null;
  const take = () => void handle.current?.view.takeControl();
  const give = () => void handle.current?.view.giveControl();
  return (
    <>
      {props.bar(nothing ? null : () => setChoosing(true))}
      <main class="terminal">
        {now.problem !== undefined && refused === undefined && <NoSession onBack={props.onBack}>{sentence(now.problem)}</NoSession>}
        <Stage
          handle={handle}
          view={props.view}
          open={props.open}
          control={props.control}
          title={props.title}
          hidden={nothing}
          stale={!live && now.ended === undefined}
          mayType={mayType}
          typesOnTap={!props.keys || typing.value === "keys"}
          opening={props.opening}
        >
          {props.children}
        </Stage>
        {refused === undefined && <Strip frame={now} live={live} onlooker={props.onlooker} onStop={() => terminal()?.takeBackInput()} />}
        {mayType && now.ready && <Control frame={now} live={live} onTake={take} onGive={give} />}
        {refused !== undefined ? (
          <div class={nothing ? "nosession" : "nosession below"}>{refused}</div>
        ) : now.ended !== undefined ? (
          <div class="ended">
            <p role="status">{now.ended}</p>
            <Back onBack={props.onBack} />
          </div>
        ) : (
          mayType && props.keys && <Typing {...props} handle={handle} onText={() => setReading(true)} />
        )}
      </main>
      {choosing && (
        <SizeSheet
          frame={now}
          mayControl={mayType && live}
          onControl={() => {
            setChoosing(false);
            if (now.youControl) give();
            else take();
          }}
          onText={() => {
            setChoosing(false);
            setReading(true);
          }}
          onClose={() => setChoosing(false)}
        />
      )}
      {reading && <TextSheet terminal={terminal} onClose={() => setReading(false)} />}
      <PasteSheet terminal={terminal} onPaste={() => handle.current?.onKey()} />
    </>
  );
}

/** The way to the size, for the bar at the top. */
export function SizeButton(props: { onClick: () => void }) {
  return (
    <button class="iconbutton" aria-label="Size and control" onClick={props.onClick}>
      <Icon name="text" />
    </button>
  );
}

/** In place of a terminal that cannot be shown: why, and the way back. */
export function NoSession(props: { onBack: () => void; children: ComponentChildren }) {
  return (
    <div class="nosession">
      <Problem>{props.children}</Problem>
      <Back onBack={props.onBack} wide />
    </div>
  );
}

function Back(props: { onBack: () => void; wide?: boolean }) {
  return (
    <button class={props.wide ? "button quiet wide" : "button quiet"} onClick={props.onBack}>
      Back to the sessions
    </button>
  );
}

/** What one types with where there is no keyboard with keys. */
function Typing(props: SessionProps & { handle: { current: StageHandle | null }; onText: () => void }) {
  const { handle, session } = props;
  const terminal = () => handle.current?.view.terminal ?? null;
  const onKey = () => handle.current?.onKey();
  const keys = { terminal, disabled: false, onKey, onText: props.onText };
  return (
    <div class="input">
      {props.queue}
      <KeyBar {...keys} />
      {typing.value === "keys" ? (
        <SecondKeys {...keys} onKeyboard={() => handle.current?.focus()} />
      ) : (
        <Compose
          terminal={terminal}
          disabled={false}
          live={props.live}
          onSent={onKey}
          onQueue={props.onQueue}
          draft={drafts.get(session) ?? ""}
          onDraft={(text) => (text ? drafts.set(session, text) : drafts.delete(session))}
        />
      )}
    </div>
  );
}

/** One quiet line that says why what one sees or typed is not the present. */
function Strip(props: { frame: Frame; live: boolean; onlooker: string; onStop: () => void }) {
  const { frame, live } = props;
  let text = "";
  if (frame.ended !== undefined || frame.problem !== undefined) return null;
  if (!live && frame.unconfirmed > 0) text = `Not typed yet: ${amount(frame.unconfirmed)}. It goes out when the connection is back.`;
  else if (!live && frame.ready) text = "Not connected: this is how it was.";
  else text = props.onlooker;
  if (live && frame.unconfirmed >= PROGRESS_FROM) {
    return (
      <div class="strip over pasting" role="status">
        <span>Pasting: {amount(frame.unconfirmed)} to go</span>
        <button class="button quiet" onClick={props.onStop}>
          Stop
        </button>
      </div>
    );
  }
  return (
    // What passes lies over the rows: if it took their room, the program would be resized whenever a connection comes and goes.
    <p class={!text ? "strip none" : live ? "strip" : "strip over"} role="status" aria-live="polite">
      {text}
    </p>
  );
}
