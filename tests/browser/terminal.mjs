// A real terminal, run by tmux, and what it shows as a picture.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** A tmux server of its own with one window of a fixed size. */
export class Terminal {
  #socket;

  constructor(socket) {
    this.#socket = socket;
  }

  static async open(name, { cols = 80, rows = 24, env = {}, command, cwd }) {
    const terminal = new Terminal(`happy-${name}-${process.pid}`);
    const assignments = Object.entries(env).map(([key, value]) => `${key}=${value}`);
    // `env` rather than tmux's own -e, so that the command line is the same on every tmux.
    await terminal.#tmux('-f', '/dev/null', 'new-session', '-d', '-x', cols, '-y', rows, '-c', cwd,
      'env', ...assignments, ...command, ';', 'set-option', '-g', 'remain-on-exit', 'on');
    return terminal;
  }

  async #tmux(...words) {
    const { stdout } = await run('tmux', ['-L', this.#socket, ...words.map(String)], { maxBuffer: 1 << 24 });
    return stdout;
  }

  /** The screen as lines of text. */
  async text() {
    return this.#tmux('capture-pane', '-p');
  }

  /** The screen with its colours, as escape sequences, and with the spaces at the ends of lines: the margin of a code is made of them. */
  async coloured() {
    return this.#tmux('capture-pane', '-p', '-e', '-N');
  }

  /** Types text, then presses the named keys. */
  async type(text, ...keys) {
    if (text) await this.#tmux('send-keys', '-l', '--', text);
    for (const key of keys) await this.#tmux('send-keys', key);
  }

  /** Waits until the screen matches, and returns the match. */
  async waitFor(pattern, what = String(pattern), ms = 30_000) {
    return waitUntil(async () => (await this.text()).match(pattern), `the terminal to show ${what}`, ms, () => this.text());
  }

  async close() {
    await this.#tmux('kill-server').catch(() => {});
  }
}

/** Asks again and again until the answer is truthy, and fails with what was seen last. */
export async function waitUntil(ask, what, ms = 30_000, show = async () => '') {
  const deadline = Date.now() + ms;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`waited ${ms} ms for ${what}\n${await show()}`);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}

/**
 * Draws a captured screen as grey pixels, as a camera in front of it would see it: only blocks and colours matter, letters
 * become a middle grey.
 */
export function photograph(captured, { cols = 80, rows = 24, cellWidth = 8, cellHeight = 16 } = {}) {
  const width = cols * cellWidth;
  const height = rows * cellHeight;
  const pixels = Buffer.alloc(width * height, DEFAULT_BACKGROUND);
  const fill = (x, y, h, level) => {
    for (let line = y; line < y + h; line += 1) pixels.fill(level, line * width + x, line * width + x + cellWidth);
  };
  // tmux names a colour when it changes, be that lines ago.
  let colour = { foreground: DEFAULT_FOREGROUND, background: DEFAULT_BACKGROUND };
  captured.split('\n').slice(0, rows).forEach((line, row) => {
    let col = 0;
    for (const [, sgr, character] of line.matchAll(/\x1b\[([0-9;:]*)m|(.)/gu)) {
      if (character === undefined) {
        colour = applySgr(colour, sgr);
        continue;
      }
      const { foreground, background } = colour;
      const [top, bottom] = {
        '█': [foreground, foreground],
        '▀': [foreground, background],
        '▄': [background, foreground],
        ' ': [background, background],
      }[character] ?? [(foreground + background) / 2, (foreground + background) / 2];
      if (col < cols) {
        fill(col * cellWidth, row * cellHeight, cellHeight / 2, top);
        fill(col * cellWidth, row * cellHeight + cellHeight / 2, cellHeight / 2, bottom);
      }
      col += 1;
    }
  });
  return { width, height, pixels };
}

const DEFAULT_FOREGROUND = 200;
const DEFAULT_BACKGROUND = 40;
const BASIC = [0, 90, 90, 140, 60, 90, 120, 229, 127, 120, 150, 220, 100, 130, 180, 255];

function applySgr(colour, sgr) {
  const codes = sgr.split(/[;:]/).map(Number);
  const next = { ...colour };
  const indexed = (n) => (n < 16 ? BASIC[n] : n >= 232 ? 8 + (n - 232) * 10 : n === 231 ? 255 : n === 16 ? 0 : 128);
  for (let i = 0; i < codes.length; i += 1) {
    const code = codes[i];
    const side = code < 40 || (code >= 90 && code < 100) ? 'foreground' : 'background';
    if (code === 0) Object.assign(next, { foreground: DEFAULT_FOREGROUND, background: DEFAULT_BACKGROUND });
    else if (code === 7) Object.assign(next, { foreground: next.background, background: next.foreground });
    else if (code === 39) next.foreground = DEFAULT_FOREGROUND;
    else if (code === 49) next.background = DEFAULT_BACKGROUND;
    else if ((code === 38 || code === 48) && codes[i + 1] === 5) next[side] = indexed(codes[(i += 2)]);
    else if ((code === 38 || code === 48) && codes[i + 1] === 2) {
      next[side] = Math.round((codes[i + 2] + codes[i + 3] + codes[i + 4]) / 3);
      i += 4;
    } else if (code >= 30 && code <= 47) next[side] = BASIC[code % 10];
    else if (code >= 90 && code <= 107) next[side] = BASIC[8 + (code % 10)];
  }
  return next;
}

/** The picture as a film that a fake camera plays in a loop (YUV4MPEG2, 4:2:0), centred on 640×480 grey. */
export function film({ width, height, pixels }) {
  const [W, H] = [640, 480];
  const luma = Buffer.alloc(W * H, 90);
  const [left, top] = [Math.max(0, (W - width) >> 1), Math.max(0, (H - height) >> 1)];
  for (let y = 0; y < Math.min(height, H); y += 1) {
    pixels.copy(luma, (y + top) * W + left, y * width, y * width + Math.min(width, W));
  }
  const chroma = Buffer.alloc((W * H) / 2, 128);
  const frame = Buffer.concat([Buffer.from('FRAME\n'), luma, chroma]);
  return Buffer.concat([Buffer.from(`YUV4MPEG2 W${W} H${H} F15:1 Ip A1:1 C420jpeg\n`), frame, frame, frame]);
}
