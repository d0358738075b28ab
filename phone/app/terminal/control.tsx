/** The size of the screen and of its text: who decides it, and the ways to change that. */

import { fontSize } from "../settings";
import { Icon, Sheet } from "../ui";
import type { Frame } from "./view";

/** Who decides the size, and the way to change that. */
export function Control(props: { frame: Frame; live: boolean; onTake: () => void; onGive: () => void }) {
  const { frame } = props;
  // Alone with the session there is nobody to give it to, and nothing to say.
  if (frame.youControl && !frame.takenFrom) return null;
  return (
    <div class="control">
      <span>
        {frame.youControl ? "You decide the size" : frame.controller ? `${frame.controller} decides the size` : "Nobody decides the size"}
        <span class="muted"> · {frame.cols}×{frame.rows}</span>
      </span>
      {/* It stays when the connection goes: without it the rows would have more room, and the program another size. */}
      <button class="button quiet" disabled={!props.live} onClick={frame.youControl ? props.onGive : props.onTake}>
        {frame.youControl ? "Give back" : "Take control"}
      </button>
    </div>
  );
}

const SIZES: [number, string][] = [
  [0, "Fit width"],
  [11, "11"],
  [13, "13"],
  [15, "15"],
  [18, "18"],
];

export function SizeSheet(props: { frame: Frame; mayControl: boolean; onControl: () => void; onText: () => void; onClose: () => void }) {
  const { frame } = props;
  return (
    <Sheet title="Size" onClose={props.onClose}>
      <div class="segments" role="radiogroup" aria-label="Text size">
        {SIZES.map(([value, label]) => (
          <button key={value} role="radio" aria-checked={fontSize.value === value} onClick={() => (fontSize.value = value)}>
            {label}
          </button>
        ))}
      </div>
      <p class="muted">
        The screen has {frame.cols} × {frame.rows} cells.{" "}
        {frame.youControl
          ? "This device decides its size."
          : frame.controller
            ? `${frame.controller} decides its size; here it is scaled.`
            : "Nobody decides its size at the moment."}
      </p>
      <button class={frame.youControl ? "button quiet wide" : "button primary wide"} disabled={!props.mayControl} onClick={props.onControl}>
        <Icon name="resize" /> {frame.youControl ? "Give the size back" : "Take control of the size"}
      </button>
      <p class="muted">
        {frame.youControl
          ? "Whoever decided it before decides it again."
          : "The session then takes the shape of this screen, for everyone who looks at it."}
      </p>
      <button class="button quiet wide" onClick={props.onText}>
        <Icon name="copy" /> Copy the screen as text
      </button>
      <button class="button quiet wide" onClick={props.onClose}>
        Done
      </button>
    </Sheet>
  );
}
