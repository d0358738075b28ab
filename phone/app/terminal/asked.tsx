/** The question with which a program waits, and a button for each of its answers. */

import { useEffect, useState } from "preact/hooks";
import { Answers } from "../answers";
import { attempt, say, theCore } from "../model";
import { SOURCE } from "../prompts";
import type { Prompt } from "../rpc";

export function Asked(props: { device: string; session: string; prompt: string | undefined; mayAnswer: boolean }) {
  const [asked, setAsked] = useState<Prompt | null>(null);
  const [answering, setAnswering] = useState(false);
  // Whoever wants to see what is under it, or to type, puts it away; the next question comes again.
  const [hidden, setHidden] = useState("");
  const { device, session, prompt } = props;
  useEffect(() => {
    let stale = false;
    setAsked(null);
    if (prompt) {
      void attempt("What the program asks could not be read.", async () => {
        const waiting = await theCore().call(device, "prompt.list", { session });
        if (!stale) setAsked(waiting.find((it) => it.id === prompt) ?? null);
      });
    }
    return () => {
      stale = true;
    };
  }, [device, session, prompt]);
  if (!asked || asked.id !== prompt || hidden === asked.id) return null;

  const answer = async (choice: number) => {
    setAnswering(true);
    // What it was shown for is over by then, whoever answered.
    await attempt("It was not answered.", async () => {
      const given = await theCore().call(device, "prompt.answer", { prompt: asked.id, choice });
      say(`Answered: ${given.label}`);
    });
    setAnswering(false);
  };
  return (
    <section class="asked" aria-label={SOURCE[asked.source]}>
      <header>
        <strong>
          {SOURCE[asked.source]} {asked.source === "screen" && <span class="tag">a guess</span>}
        </strong>
        <button class="button quiet" onClick={() => setHidden(asked.id)}>
          Hide
        </button>
      </header>
      <p class="mono">{asked.question}</p>
      {asked.kind === "password" && <p class="muted">Type it below; it is not shown.</p>}
      {props.mayAnswer && asked.choices.length > 0 && (
        <Answers prompt={asked.id} choices={asked.choices} wide disabled={answering} onAnswer={(choice) => void answer(choice)} />
      )}
    </section>
  );
}
