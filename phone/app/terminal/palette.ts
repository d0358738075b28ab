/**
 * The 256 colours as classes in a constructed style sheet; the policy of the page allows no inline styles. Text is raised to
 * the contrast that WCAG AA asks for, on whatever background it stands.
 */

type Rgb = readonly [number, number, number];

interface Look {
  foreground: string;
  background: string;
  ansi: readonly string[];
}

const LIGHT: Look = {
  foreground: "#24272b",
  background: "#fdfdfb",
  ansi: [
    "#24272b", "#b3261e", "#1a7a3c", "#8a6100", "#1f5fbf", "#8b3fa8", "#0f7580", "#6a7078",
    "#565c64", "#cf3a30", "#248a48", "#9a6e00", "#2f6fd0", "#9d50bb", "#14838f", "#8a9098",
  ],
};

const DARK: Look = {
  foreground: "#e4e7ea",
  background: "#0e1012",
  ansi: [
    "#2a2e33", "#f2777a", "#7fc98f", "#e5c07b", "#7fb2ff", "#d49bf0", "#6fd0d8", "#c6cbd1",
    "#7b838c", "#ff9a94", "#9be3a9", "#f5d591", "#a3c8ff", "#e4b8fa", "#94e4ea", "#ffffff",
  ],
};

const AA = 4.5;

/** Colours as the core gives them: 0 for the default, an entry of the palette, or red, green and blue. */
export const INDEXED = 1 << 24;
export const DIRECT = 2 << 24;
/** Ours, for what is inverted: the default colours in the place of the other. */
export const DEFAULT_FOREGROUND = 3 << 24;
export const DEFAULT_BACKGROUND = DEFAULT_FOREGROUND + 1;

let installed: CSSStyleSheet | null = null;
let current = LIGHT;
/** Text colours on backgrounds, by both numbers. Programs use few pairs; a picture made of colours starts over. */
const onBackground = new Map<number, string>();
const MOST_PAIRS = 4_096;

/** Installs the classes: `f0…` text on the default background, `b0…` backgrounds. What was drawn before has to be drawn again. */
export function installPalette(dark: boolean): void {
  current = dark ? DARK : LIGHT;
  onBackground.clear();
  const background = parse(current.background);
  const rules = [`:root{--t-fg:${current.foreground};--t-bg:${current.background}}`];
  for (let index = 0; index < 256; index += 1) {
    const color = rgb(INDEXED | index, "foreground");
    rules.push(`.f${index}{color:${css(readable(color, background))}}`, `.b${index}{background:${css(color)}}`);
  }
  installed ??= adopt();
  installed.replaceSync(rules.join("\n"));
}

/** The colour for text on a background of its own, both as the core gives them. */
export function textOn(foreground: number, background: number): string {
  const pair = foreground * 2 ** 26 + background;
  let found = onBackground.get(pair);
  if (found === undefined) {
    if (onBackground.size >= MOST_PAIRS) onBackground.clear();
    found = css(readable(rgb(foreground, "foreground"), rgb(background, "background")));
    onBackground.set(pair, found);
  }
  return found;
}

function rgb(value: number, otherwise: "foreground" | "background"): Rgb {
  if (value === DEFAULT_FOREGROUND) return parse(current.foreground);
  if (value === DEFAULT_BACKGROUND) return parse(current.background);
  if (value >= DIRECT) return [(value >> 16) & 255, (value >> 8) & 255, value & 255];
  if (value < INDEXED) return parse(current[otherwise]);
  const index = value & 255;
  return index < 16 ? parse(current.ansi[index]!) : cube(index);
}

function adopt(): CSSStyleSheet {
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  return sheet;
}

/** The colour cube and the grey ramp of xterm. */
function cube(index: number): Rgb {
  if (index >= 232) {
    const grey = 8 + (index - 232) * 10;
    return [grey, grey, grey];
  }
  const level = (n: number) => (n === 0 ? 0 : 55 + n * 40);
  const n = index - 16;
  return [level(Math.floor(n / 36)), level(Math.floor(n / 6) % 6), level(n % 6)];
}

/** Moves a colour towards white or black, whichever stands out more, until it can be read. */
function readable(color: Rgb, background: Rgb): Rgb {
  const goal = contrast([255, 255, 255], background) > contrast([0, 0, 0], background) ? 255 : 0;
  const step = (channel: number, share: number) => channel + (goal - channel) * share;
  for (let share = 0; share < 1; share += 0.1) {
    const moved: Rgb = [step(color[0], share), step(color[1], share), step(color[2], share)];
    if (contrast(moved, background) >= AA) return moved;
  }
  return [goal, goal, goal];
}

function contrast(a: Rgb, b: Rgb): number {
  const [x, y] = [luminance(a), luminance(b)];
  return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
}

function luminance(color: Rgb): number {
  const [r, g, b] = color.map((channel) => {
    const c = channel / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function parse(hex: string): Rgb {
  const n = Number.parseInt(hex.slice(1), 16);
  return [n >> 16, (n >> 8) & 255, n & 255];
}

function css(color: Rgb): string {
  return `rgb(${color.map(Math.round).join(" ")})`;
}
