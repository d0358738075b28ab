/** Agreeing to what many sessions ask: every question is read first, with the answer that would be given. */

import { useState } from "preact/hooks";
import { useSettled } from "../answers";
import { sentence } from "../model";
import { agreeing } from "../prompts";
import type { Prompt, Session } from "../rpc";
import { Sheet } from "../ui";
import { answerPrompt, each, reasonOf } from "./api";
import { endOf, promptOf, prompts, titleOf } from "./state";

interface Item {
  session: Session;
  prompt: Prompt | undefined;
  /** -1: a person has to choose. */
  choice: number;
}

type Outcome = { good: boolean; text: string };

/** Begins at the top of every sheet: what was asked when it was opened. What is asked later is not on it, and is not answered by it. */
export function Agree(props: { sessions: Session[]; onClose: () => void }) {
  const [items] = useState<Item[]>(() =>
    props.sessions.map((session) => {
      const prompt = promptOf(session);
      return { session, prompt, choice: prompt ? agreeing(prompt) : -1 };
    }),
  );
  const [outcomes, setOutcomes] = useState<ReadonlyMap<string, Outcome>>(new Map());
  const [step, setStep] = useState<"asks" | "works" | "done">("asks");
  const settled = useSettled("agree");
  const waits = (prompt: Prompt) => prompts.value.has(prompt.id);
  const answerable = items.filter(({ prompt, choice }) => prompt && choice >= 0);
  const due = answerable.filter(({ prompt }) => waits(prompt!));
  const told = (id: string, outcome: Outcome) => setOutcomes((before) => new Map(before).set(id, outcome));

  const work = async () => {
    setStep("works");
    await each(due, async ({ prompt, choice }) => {
      try {
        const given = await answerPrompt(prompt!.id, choice);
        told(prompt!.id, { good: true, text: `Answered: ${given.label}` });
      } catch (error) {
        told(prompt!.id, { good: false, text: sentence(reasonOf(error)) });
      }
    });
    setStep("done");
  };

  const outcomeOf = ({ prompt, choice }: Item): Outcome | null => {
    if (!prompt) return { good: false, text: "Answer it yourself: what it asks is not known here." };
    const outcome = outcomes.get(prompt.id);
    if (outcome) return outcome;
    if (!waits(prompt) && step !== "works") return { good: false, text: howItEnded(prompt) };
    return choice < 0 ? { good: false, text: "Answer it yourself: no answer is plainly a yes to this alone." } : null;
  };

  const answered = [...outcomes.values()].filter(({ good }) => good).length;
  return (
    <Sheet title={step === "asks" ? `Agree to ${questions(due.length)}?` : step === "works" ? "Answering…" : `${answered} of ${outcomes.size} answered`} onClose={props.onClose}>
      {step === "asks" && <p class="muted">Read what each asks. Each gets the answer below it, and only if it still asks this.</p>}
      <ul class="questions">
        {items.map((item) => {
          const outcome = outcomeOf(item);
          return (
            <li key={item.session.id} data-session={item.session.id} class={outcome && !outcome.good ? "left" : ""}>
              <strong class="clip">{titleOf(item.session)}</strong>
              {item.prompt && <p class="mono question">{item.prompt.question}</p>}
              {outcome ? (
                <p class={outcome.good ? "outcome good" : "outcome"}>{outcome.text}</p>
              ) : (
                <p class="outcome">
                  {item.prompt!.source === "screen" && <span class="tag">a guess</span>} Answer:{" "}
                  <b>{item.prompt!.choices[item.choice]!.label}</b>
                </p>
              )}
            </li>
          );
        })}
      </ul>
      <div class="buttons">
        {step !== "done" && (
          <button class="button primary" disabled={!settled || step !== "asks" || due.length === 0} onClick={() => void work()}>
            {step === "works" ? "One moment…" : due.length === 0 ? "Nothing to agree to" : `Give ${due.length === 1 ? "this answer" : `these ${due.length} answers`}`}
          </button>
        )}
        <button class="button quiet" onClick={props.onClose}>
          {step === "asks" ? "Cancel" : "Done"}
        </button>
      </div>
    </Sheet>
  );
}

const questions = (count: number): string => (count === 1 ? "one question" : `${count} questions`);

function howItEnded(prompt: Prompt): string {
  const end = endOf(prompt.id);
  if (end?.how === "answered") return sentence(`${end.by} was faster: ${end.label}`);
  if (end?.how === "typed") return "Somebody has typed into the session instead.";
  if (end?.how === "expired") return "It has waited for as long as it could.";
  return "It does not ask this any more.";
}
