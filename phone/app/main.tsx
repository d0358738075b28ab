/** Starts the app: secure origin, one tab, state, core, screens; in this order, each with a page of its own when it fails. */

import { render } from "preact";
import { loadCore, type Core } from "./core";
import { handle, say, sentence, startAnew, startModel, STATE, stopModel, storeState, theCore } from "./model";
import { go, route, startRouting } from "./route";
import { Devices } from "./screens/devices";
import { Broken, Insecure, Loading, OtherTab } from "./screens/gate";
import { Machines } from "./screens/machines";
import { Pair } from "./screens/pair";
import { Sessions } from "./screens/sessions";
import { Settings } from "./screens/settings";
import { TerminalScreen } from "./screens/terminal";
import "./settings";
import { holdLink } from "./tabs";
import { Guarded, Notice } from "./ui";
import { Displaced, traceOf, Unreadable, Vanished, Vault } from "./vault";
import { followViewport } from "./viewport";

/** Survives one reload: this tab was told to take the link from another. */
const TAKE_OVER = "happy-take-over";

/** Where a machine's local API serves this app; nowhere else is there anything at this path. */
const DASHBOARD = "/dashboard";

const root = document.getElementById("app")!;

function App() {
  return (
    <>
      <Guarded key={JSON.stringify(route.value)} onLeave={() => go({ at: "machines" })}>
        <Screen />
      </Guarded>
      <Notice />
    </>
  );
}

function Screen() {
  const at = route.value;
  switch (at.at) {
    case "machines":
      return <Machines />;
    case "pair":
      return <Pair />;
    case "settings":
      return <Settings />;
    case "sessions":
      return <Sessions key={at.device} device={at.device} />;
    case "devices":
      return <Devices key={at.device} device={at.device} />;
    case "terminal":
      return <TerminalScreen device={at.device} session={at.session} />;
  }
}

async function boot(): Promise<void> {
  // Served by the local API of a machine, this is its dashboard: it has no keys, and no links.
  if (location.pathname === DASHBOARD) return (await import("./dashboard/main")).startDashboard(root);
  // An invitation leaves the address bar before anything else happens.
  startRouting();
  followViewport();
  if (!isSecureContext) return render(<Insecure />, root);
  render(<Loading />, root);
  const takeOver = sessionStorage.getItem(TAKE_OVER) !== null;
  sessionStorage.removeItem(TAKE_OVER);
  await hold(takeOver);
}

let lost = false;
let vault: Vault | null = null;

async function hold(takeOver: boolean): Promise<void> {
  try {
    const where = await holdLink(takeOver, movedAway);
    if (where === "elsewhere") return otherTab(false);
    await start();
    if (where === "unknown" && !lost) {
      say("This browser cannot tell whether the app is open in another tab. Use one tab only: the last one opened is the one that works.", true);
    }
  } catch (error) {
    broken(error);
  }
}

function otherTab(gone: boolean): void {
  // After losing the link this page's core is stopped for good; a fresh page is the honest way back.
  const takeOver = () => (gone ? reloadWithLink() : void hold(true));
  render(<OtherTab lost={gone} onTakeOver={takeOver} />, root);
}

function reloadWithLink(): void {
  sessionStorage.setItem(TAKE_OVER, "1");
  location.reload();
}

function movedAway(): void {
  lost = true;
  vault?.close();
  stopModel();
  otherTab(true);
}

/** Says what cannot be used, and why. Whatever is stored stays as it is. */
function broken(error: unknown): void {
  // The other tab has the word.
  if (lost) return;
  if (error instanceof Displaced) return movedAway();
  const anew = () => void startAnew();
  if (error instanceof Vanished) {
    const device = traceOf()?.slice(0, 8) ?? "";
    const what = "The database in which this browser kept the keys is gone. The browser may have cleared it because space was short.";
    const next = `Nothing was made in its place. If it does not come back, start anew and pair again; your machines still list the old device, ${device}.`;
    return render(<Broken title="The keys of this device are gone" what={what} next={next} onStartAnew={anew} />, root);
  }
  const what = sentence(error instanceof Error ? error.message : String(error));
  const title = error instanceof Unreadable ? "The stored keys cannot be read" : "This did not start";
  render(<Broken title={title} what={what} onStartAnew={anew} />, root);
}

async function start(): Promise<void> {
  const store = await Vault.open();
  // Another tab may have taken the lock while this one was loading.
  if (lost) return;
  vault = store;
  await store.claim();
  const [state, trace] = [await store.load(STATE), traceOf()];
  if (!state && trace !== null) throw new Vanished();
  const core = await loadCore(state, handle);
  const standing = core.standing(trace);
  if (standing === "sound" || standing === "trace_lost") {
    await connect(core, store);
    if (standing === "trace_lost" && !lost) {
      say("This browser has lost a part of what it stored, or its storage was copied. The keys are there; nothing else was lost.", true);
    }
    return;
  }
  const goOn = () => void connect(core, store).catch(broken);
  const copied = "Its storage was restored from a copy";
  const what =
    standing === "older"
      ? `What this browser has stored is older than what it stored last. ${copied}, or has lost its newest part.`
      : `What this browser has stored belongs to another device than what it stored last. ${copied}.`;
  const next = "You can go on with these keys. If a machine refuses them, pair with it again.";
  if (lost) return;
  const anew = () => void startAnew();
  render(<Broken title="These keys are an old copy" what={what} next={next} onContinue={goOn} onStartAnew={anew} />, root);
}

async function connect(core: Core, store: Vault): Promise<void> {
  // Nothing is said to anyone before the identity and the counters are safe.
  await storeState(core, store);
  if (lost) return;
  await startModel(core, store, movedAway);
  if (lost) return;
  watchLife();
  render(<App />, root);
}

/** Phones put pages to sleep without a word; whenever one wakes, find out at once whether the connection still lives. */
function watchLife(): void {
  const wake = () => {
    const visible = document.visibilityState === "visible";
    theCore().setActive(visible);
    if (visible) theCore().wake();
  };
  document.addEventListener("visibilitychange", wake);
  // A frozen page that is thawed may have been visible all the time.
  document.addEventListener("resume", wake);
  addEventListener("pageshow", wake);
  addEventListener("online", wake);
  addEventListener("pagehide", () => theCore().setActive(false));
  addEventListener("unhandledrejection", (event) => {
    say(`Something went wrong. ${sentence(event.reason instanceof Error ? event.reason.message : String(event.reason))}`, true);
  });
  wake();
}

void boot();
