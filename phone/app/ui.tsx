/** The few parts that every screen is made of. */

import type { ComponentChildren } from "preact";
import { useEffect, useErrorBoundary, useRef } from "preact/hooks";
import { notice, sentence, statusFor } from "./model";
import { back } from "./route";

const PATHS = {
  back: "M15 5l-7 7 7 7",
  gear: "M12 15.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM12 3v2.5M12 18.5V21M3 12h2.5M18.5 12H21M5.6 5.6l1.8 1.8M16.6 16.6l1.8 1.8M18.4 5.6l-1.8 1.8M7.4 16.6l-1.8 1.8",
  plus: "M12 5v14M5 12h14",
  camera: "M4 8h3l2-2.5h6L17 8h3v11H4zM12 16.5a3.2 3.2 0 1 0 0-6.4 3.2 3.2 0 0 0 0 6.4z",
  photo: "M4 5h16v14H4zM4 16l4.5-4.5 4 4 2.5-2.5 5 5M15.5 9.5h.01",
  chevron: "M9 5l7 7-7 7",
  terminal: "M5 7l5 5-5 5M12.5 17H19",
  machine: "M4 5h16v11H4zM9 20h6M12 16v4",
  devices: "M3 6h11v9H3zM6 19h5M17 9h4v10h-4z",
  send: "M12 19V5M6 11l6-6 6 6",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  close: "M6 6l12 12M18 6L6 18",
  lock: "M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3",
  down: "M12 5v14M6 13l6 6 6-6",
  end: "M6 6h12v12H6z",
  text: "M4 18L9 6l5 12M6 14h6M16 18l3-7 3 7M17 16h4",
  keyboard: "M3 7h18v10H3zM6.5 10.3h.01M10.2 10.3h.01M13.9 10.3h.01M17.6 10.3h.01M8 13.8h8",
  line: "M4 7h16v10H4zM8 10v4M7 10h2M7 14h2",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  theme: "M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16zM12 4v16M15 5.5v13M18 7.5v9",
  resize: "M4 9V4h5M20 15v5h-5M4 4l6 6M20 20l-6-6",
} as const;

export function Icon(props: { name: keyof typeof PATHS }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[props.name]} />
    </svg>
  );
}

export function TopBar(props: { title: string; subtitle?: string; device?: string | null; root?: boolean; children?: ComponentChildren }) {
  return (
    <Bar title={props.title} subtitle={props.subtitle} onBack={props.root ? null : back} status={<Connection device={props.device ?? null} />}>
      {props.children}
    </Bar>
  );
}

/** The bar at the top: the way back, or the sign of the app where there is none. */
export function Bar(props: {
  title: string;
  subtitle?: string | undefined;
  onBack: (() => void) | null;
  /** What a way back is called to those who hear it. */
  backLabel?: string;
  status: ComponentChildren;
  children?: ComponentChildren;
}) {
  return (
    <header class="topbar">
      {props.onBack ? (
        <button class="iconbutton" aria-label={props.backLabel ?? "Back"} onClick={props.onBack}>
          <Icon name="back" />
        </button>
      ) : (
        <span class="brand" aria-hidden="true">
          <svg viewBox="0 0 32 32">
            <path d="M8 9l6 5-6 5" />
            <path class="smile" d="M16 20c1 4 7 4 8 0" />
          </svg>
        </span>
      )}
      <div class="titles">
        <h1>{props.title}</h1>
        {props.subtitle && <p>{props.subtitle}</p>}
      </div>
      {props.status}
      {props.children}
    </header>
  );
}

/** Always in sight: whether what one sees is live. */
function Connection(props: { device: string | null }) {
  return <Standing {...statusFor(props.device)} />;
}

export function Standing(props: { tone: string; text: string; detail?: string }) {
  return (
    <div class={`connection ${props.tone}`} role="status" aria-live="polite" title={props.detail} data-state={props.tone}>
      <span class="dot" aria-hidden="true" />
      <span>{props.text}</span>
    </div>
  );
}

/** A screen that cannot be drawn takes no other with it. Give it a key of what it shows, so that another screen is tried anew. */
export function Guarded(props: { onLeave: () => void; children: ComponentChildren }) {
  const [error, tryAgain] = useErrorBoundary((thrown: unknown) => console.error(thrown));
  if (error === undefined) return <>{props.children}</>;
  return (
    <main class="page">
      <Problem>This screen cannot be shown. {sentence(error instanceof Error ? error.message : String(error))}</Problem>
      <p>Everything else goes on. If it happens again, update the app and the program on the machine.</p>
      <button class="button quiet wide" onClick={tryAgain}>
        Try again
      </button>
      <button class="button quiet wide" onClick={props.onLeave}>
        Leave this screen
      </button>
    </main>
  );
}

export function Dot(props: { tone: "good" | "busy" | "bad" | "idle" }) {
  return <span class={`dot ${props.tone}`} aria-hidden="true" />;
}

export function Empty(props: { icon: keyof typeof PATHS; title: string; children: ComponentChildren }) {
  return (
    <section class="empty">
      <span class="badge">
        <Icon name={props.icon} />
      </span>
      <h2>{props.title}</h2>
      {props.children}
    </section>
  );
}

export function Problem(props: { children: ComponentChildren }) {
  return (
    <p class="problem" role="alert">
      {props.children}
    </p>
  );
}

/** A sheet from below. The browser's own dialog keeps the focus inside and closes on Escape. */
export function Sheet(props: { title: string; onClose: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  return (
    <dialog
      ref={dialog}
      class="sheet"
      aria-label={props.title}
      onClose={props.onClose}
      onClick={(event) => {
        if (event.target === event.currentTarget) event.currentTarget.close();
      }}
    >
      <div class="sheetbody">
        {/* Otherwise the first field has the focus, and the phone's keyboard hides what is to be read first. */}
        <h2 tabIndex={-1} autofocus>
          {props.title}
        </h2>
        {props.children}
      </div>
    </dialog>
  );
}

export function Confirm(props: { title: string; yes: string; onYes: () => void; onClose: () => void; children: ComponentChildren }) {
  return (
    <Sheet title={props.title} onClose={props.onClose}>
      {props.children}
      <div class="buttons">
        <button class="button danger" onClick={() => { props.onClose(); props.onYes(); }}>
          {props.yes}
        </button>
        <button class="button quiet" onClick={props.onClose}>
          Cancel
        </button>
      </div>
    </Sheet>
  );
}

/** What just happened, said once. */
export function Notice() {
  const current = notice.value;
  return (
    <div class="notices" role="status" aria-live="polite">
      {current && <p class={current.bad ? "notice bad" : "notice"}>{current.text}</p>}
    </div>
  );
}
