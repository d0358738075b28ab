/** A button for each answer that can be given to a prompt. */

import { useEffect, useState } from "preact/hooks";
import type { PromptChoice } from "./rpc";

/** A finger that was on its way to what stood there before comes down within this time, and answers nothing. */
export const DEAD_MS = 600;

/** False at first, and again for a while whenever `what` becomes another. */
export function useSettled(what: string): boolean {
  const [settled, setSettled] = useState("");
  useEffect(() => {
    const timer = setTimeout(() => setSettled(what), DEAD_MS);
    return () => clearTimeout(timer);
  }, [what]);
  return settled === what;
}

/** @param prompt Its id: the buttons of another prompt are other buttons, though they look the same. */
export function Answers(props: { prompt: string; choices: PromptChoice[]; wide?: boolean; disabled: boolean; onAnswer: (choice: number) => void }) {
  const settled = useSettled(props.prompt);
  return (
    <div class={settled ? "answers" : "answers fresh"}>
      {props.choices.map((choice, index) => (
        <button
          key={`${props.prompt} ${index}`}
          class={props.wide ? "button quiet wide" : "button quiet"}
          disabled={props.disabled || !settled}
          onClick={() => props.onAnswer(index)}
        >
          {choice.label}
        </button>
      ))}
    </div>
  );
}
