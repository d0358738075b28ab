/** Starts the app: secure origin, one tab, state, core, screens; in this order, each with a page of its own when it fails. */

import { render } from "preact";
import { loadCore } from "./core";
import { handle, say, sentence, startModel, STATE, stopModel, theCore } from "./model";
import { route, startRouting } from "./route";
import { Devices } from "./screens/devices";
import { Broken, Insecure, Loading, OtherTab } from "./screens/gate";
import { Machines } from "./screens/machines";
import { Pair } from "./screens/pair";
import { Sessions } from "./screens/sessions";
import { Settings } from "./screens/settings";
import { TerminalScreen } from "./screens/terminal";
import "./settings";
import { holdLink } from "./tabs";
import { Notice } from "./ui";
import { Vault } from "./vault";
import { followViewport } from "./viewport";

/** Survives one reload: this tab was told to take the link from another. */
const TAKE_OVER = "happy-take-over";

const root = document.getElementById("app")!;

function App() {
  return (
    <>
      <Screen />
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
  // An invitation leaves the address bar before anything else happens.
  startRouting();
  followViewport();
  if (!isSecureContext) return render(<Insecure />, root);
  render(<Loading />, root);
  const takeOver = sessionStorage.getItem(TAKE_OVER) !== null;
  sessionStorage.removeItem(TAKE_OVER);
  if (!(await holdLink(takeOver, movedAway))) return otherTab(false);
  await start();
}

function otherTab(gone: boolean): void {
  const takeOver = () =>
    // After losing the link this page's core is stopped for good; a fresh page is the honest way back.
    gone ? reloadWithLink() : void holdLink(true, movedAway).then(start);
  render(<OtherTab lost={gone} onTakeOver={takeOver} />, root);
}

function reloadWithLink(): void {
  sessionStorage.setItem(TAKE_OVER, "1");
  location.reload();
}

let lost = false;

function movedAway(): void {
  lost = true;
  stopModel();
  otherTab(true);
}

async function start(): Promise<void> {
  let vault: Vault | null = null;
  try {
    vault = await Vault.open();
    const state = await vault.load(STATE);
    const core = await loadCore(state, handle);
    // Nothing is said to anyone before the identity and the counters are safe.
    await vault.save(STATE, core.exportState());
    // Another tab may have taken the link while this one was loading.
    if (lost) return;
    await startModel(core, vault);
    void navigator.storage?.persist?.();
  } catch (error) {
    const opened = vault;
    const forget = async () => {
      await opened?.destroy();
      location.reload();
    };
    const what = sentence(error instanceof Error ? error.message : String(error));
    return render(<Broken what={what} onForget={opened ? () => void forget() : null} />, root);
  }
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
  addEventListener("pageshow", wake);
  addEventListener("online", wake);
  addEventListener("pagehide", () => theCore().setActive(false));
  addEventListener("unhandledrejection", (event) => {
    say(`Something went wrong. ${sentence(event.reason instanceof Error ? event.reason.message : String(event.reason))}`, true);
  });
  wake();
}

void boot();
