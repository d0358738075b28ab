/**
 * The 256 colours as classes in constructed style sheets, one per theme; the policy of the page allows no inline styles.
 * Text on the default background is raised to the contrast that WCAG AA asks for; on a background of its own it stays as
 * the program meant it.
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

let installed: CSSStyleSheet | null = null;

/** Installs the classes: `f0…` text on the default background, `g0…` text on another, `b0…` backgrounds. */
export function installPalette(dark: boolean): void {
  const look = dark ? DARK : LIGHT;
  const background = parse(look.background);
  const rules = [`:root{--t-fg:${look.foreground};--t-bg:${look.background}}`];
  for (let index = 0; index < 256; index += 1) {
    const color = index < 16 ? parse(look.ansi[index]!) : cube(index);
    rules.push(`.f${index}{color:${css(readable(color, background, dark))}}`);
    rules.push(`.g${index}{color:${css(color)}}`, `.b${index}{background:${css(color)}}`);
  }
  installed ??= adopt();
  installed.replaceSync(rules.join("\n"));
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

/** Moves a colour towards white or black until it can be read. */
function readable(color: Rgb, background: Rgb, dark: boolean): Rgb {
  const goal = dark ? 255 : 0;
  let current = color;
  for (let step = 0; step < 20 && contrast(current, background) < AA; step += 1) {
    current = [current[0] + (goal - current[0]) * 0.12, current[1] + (goal - current[1]) * 0.12, current[2] + (goal - current[2]) * 0.12];
  }
  return current;
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
