/** How large a cell is, and how many fit. */

/** With this size a phone held upright shows about fifty columns: what one sees when one decides the size. */
export const COMFORTABLE_PX = 13;
const SMALLEST_PX = 4;
const LINE = 1.25;

export interface Fit {
  fontPx: number;
  linePx: number;
  cols: number;
  rows: number;
}

/** About what a session would show here, before there is a screen to measure: top bar, key bar and text field take their part. */
export function roomForNewSession(): { cols: number; rows: number } {
  const px = COMFORTABLE_PX;
  const clamp = (n: number, least: number, most: number) => Math.min(most, Math.max(least, Math.floor(n)));
  return { cols: clamp((innerWidth - 16) / (px * 0.61), 20, 160), rows: clamp((innerHeight - 170) / Math.round(px * LINE), 10, 60) };
}

/** The advance of a character at one pixel of font size. */
export function cellRatio(scroller: HTMLElement): number {
  const probe = document.createElement("span");
  probe.className = "probe";
  probe.textContent = "0".repeat(100);
  scroller.append(probe);
  const ratio = probe.getBoundingClientRect().width / 100 / 100;
  probe.remove();
  return ratio > 0 ? ratio : 0.6;
}

/**
 * @param fontPx The size wanted; 0 to fit `cols` into the width.
 * @param room The height that the rows have, padding included.
 */
export function fit(scroller: HTMLElement, ratio: number, fontPx: number, cols: number, room: number): Fit {
  const style = getComputedStyle(scroller);
  const width = scroller.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  const height = room - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
  const fitting = Math.floor((width / (cols * ratio)) * 20) / 20;
  const px = fontPx > 0 ? fontPx : Math.max(SMALLEST_PX, Math.min(COMFORTABLE_PX + 1, fitting));
  const linePx = Math.max(1, Math.round(px * LINE));
  return {
    fontPx: px,
    linePx,
    cols: Math.max(2, Math.floor(width / (px * ratio) + 0.01)),
    rows: Math.max(1, Math.floor(height / linePx)),
  };
}
