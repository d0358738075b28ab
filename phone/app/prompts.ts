/** What can be said of a prompt without asking anybody. */

import type { Prompt } from "./rpc";

/** How it is known that it is a question; a guess is called one. */
export const SOURCE: Record<Prompt["source"], string> = {
  hook: "The program asks",
  notification: "The program calls for you",
  screen: "Looks like a question",
};

/** A choice that agrees begins with one of these words. */
const AGREES = /^(?:y|yes|allow|approve|accept|agree|proceed|continue|confirm|ok|okay)\b/i;
/** It says more than this once, or something that is not yes. */
const MORE_THAN_ONCE =
  /\b(?:all|always|any|anything|every|everything|again|ever|forever|never|permanent(?:ly)?|remember|session|future|from now|whenever|until|auto|automatic(?:ally)?|bypass|skip|prefix|similar|commands?|project|projects|folder|directory|workspace|repository|host|domain|hour|hours|day|days|full|access|mode|edits|tools?)\b/i;
const NOT_YES = /\b(?:no|not|none|nothing|don.?t|cancel|deny|reject|decline|without|except|but)\b/i;
/** Nothing but consent. */
const PLAIN = /^(?:y|yes|allow|approve|accept|agree|proceed|continue|confirm|ok|okay)(?:,? (?:proceed|continue|allow|approve))?\s*(?:\((?:y|yes|enter|return)\))?[.!]?$/i;
const ONCE = /\b(?:once|this time|just this)\b/i;
/** Where nothing can be refused nobody asks for consent: it may be a list of things to run. */
const REFUSES = /^(?:n|no|not|never|none|deny|reject|decline|refuse|disallow|cancel|abort|quit|exit|stop|skip|go back|don.?t|do not)\b/i;

/**
 * The choice that agrees to what is asked, in its narrowest form: "once" before plain yes, that before a longer one, and never "always" or "don't ask again". -1 when it is not
 * certain that there is one: then a person has to choose.
 */
export function agreeing(prompt: Prompt): number {
  if (prompt.kind === "password" || prompt.kind === "somebody") return -1;
  const labels = prompt.choices.map(({ label }) => label.trim().replace(/^\W*\d+[.)]\s*/, ""));
  if (!labels.some((label) => REFUSES.test(label))) return -1;
  const agree = (label: string) => AGREES.test(label) && !MORE_THAN_ONCE.test(label) && !NOT_YES.test(label);
  const once = labels.findIndex((label) => agree(label) && ONCE.test(label));
  if (once >= 0) return once;
  const plain = labels.findIndex((label) => agree(label) && PLAIN.test(label));
  return plain >= 0 ? plain : labels.findIndex(agree);
}
