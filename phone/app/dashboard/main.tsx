/** The dashboard: the sessions of the machine that serves this page, in one view. The phone app's parts, without its keys and links. */

import { signal } from "@preact/signals";
import { render } from "preact";
import { sentence } from "../model";
import { Insecure, Loading } from "../screens/gate";
import { Guarded, Notice } from "../ui";
import { followViewport } from "../viewport";
import { isLetIn, login, takeSecret } from "./api";
import { Login } from "./login";
import { Overview } from "./overview";
import { opened, toOverview } from "./place";
import { enter, letIn } from "./state";
import { Terminal } from "./terminal";
import "./dashboard.css";

/** Why an address did not let this page in. */
const trouble = signal("");

export async function startDashboard(root: HTMLElement): Promise<void> {
  if (!isSecureContext) return render(<Insecure />, root);
  render(<Loading />, root);
  followViewport();
  await byAddress();
  // An address that is opened in the tab that shows this page does not load it again.
  addEventListener("hashchange", () => void byAddress());
  if (isLetIn()) enter();
  render(<Dashboard />, root);
}

async function byAddress(): Promise<void> {
  const secret = takeSecret();
  if (secret === null) return;
  try {
    await login({ secret });
    enter();
  } catch (error) {
    trouble.value = sentence(error instanceof Error ? error.message : String(error));
  }
}

function Dashboard() {
  return (
    <>
      <Guarded key={opened.value} onLeave={toOverview}>
        <Screen />
      </Guarded>
      <Notice />
    </>
  );
}

function Screen() {
  if (!letIn.value) return <Login trouble={trouble.value} />;
  return opened.value === null ? <Overview /> : <Terminal key={opened.value} session={opened.value} />;
}
