/** Keeps the app above the phone's keyboard, also where the keyboard covers the page instead of shrinking it (iOS). */

export function followViewport(): void {
  const viewport = window.visualViewport;
  if (!viewport) return;
  const follow = () => {
    // Pinched in, the visible part is a lens over the page, not the room there is.
    if (viewport.scale > 1.01) return;
    const covered = innerHeight - viewport.height > 1;
    const style = document.documentElement.style;
    if (covered) {
      style.setProperty("--height", `${viewport.height}px`);
      scrollTo(0, 0);
    } else {
      style.removeProperty("--height");
    }
    document.documentElement.classList.toggle("keyboard", covered);
  };
  viewport.addEventListener("resize", follow);
  viewport.addEventListener("scroll", follow);
}
