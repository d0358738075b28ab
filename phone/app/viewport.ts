let covered = 0;

/** How many pixels the phone's keyboard takes of the page. */
export function keyboardHeight(): number {
  return covered;
}

/** Keeps the app above the phone's keyboard, also where the keyboard covers the page instead of shrinking it (iOS). */

export function followViewport(): void {
  const viewport = window.visualViewport;
  if (!viewport) return;
  const follow = () => {
    // Pinched in, the visible part is a lens over the page, not the room there is.
    if (viewport.scale > 1.01) return;
    covered = innerHeight - viewport.height > 1 ? innerHeight - viewport.height : 0;
    const style = document.documentElement.style;
    if (covered > 0) {
      style.setProperty("--height", `${viewport.height}px`);
      scrollTo(0, 0);
    } else {
      style.removeProperty("--height");
    }
    document.documentElement.classList.toggle("keyboard", covered > 0);
  };
  viewport.addEventListener("resize", follow);
  viewport.addEventListener("scroll", follow);
}
