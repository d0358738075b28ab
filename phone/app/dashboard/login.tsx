/** The page before the dashboard. */

import { useState } from "preact/hooks";
import { sentence } from "../model";
import { Problem } from "../ui";
import { login } from "./api";
import { enter } from "./state";

export function Login(props: { trouble: string }) {
  const [wrong, setWrong] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const password = new FormData(event.currentTarget as HTMLFormElement).get("password");
    setBusy(true);
    try {
      await login({ password: String(password) });
      enter();
    } catch (error) {
      setWrong(sentence(error instanceof Error ? error.message : String(error)));
    }
    setBusy(false);
  };
  return (
    <main class="gate">
      <img class="logo" src="/icon.svg" alt="" width="72" height="72" />
      <h1>The dashboard of this machine</h1>
      <p>
        Run <code>happy dashboard</code> on the machine and open the address that it prints.
      </p>
      {(wrong || props.trouble) && <Problem>{wrong || props.trouble}</Problem>}
      <form class="login" onSubmit={(event) => void submit(event)}>
        <label class="field">
          <span>Or, if you have set one, the password</span>
          <input type="password" name="password" autocomplete="current-password" required />
        </label>
        <button class="button primary wide" disabled={busy}>
          {busy ? "One moment…" : "Let me in"}
        </button>
      </form>
    </main>
  );
}
