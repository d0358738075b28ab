// Fingers on the screen, as the browser's own input events, and programs that write down what they are sent.

import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { row } from './app.mjs';
import { waitUntil } from './terminal.mjs';

/** A hand above the page. */
export class Hand {
  #cdp;

  constructor(cdp) {
    this.#cdp = cdp;
  }

  static async above(page) {
    return new Hand(await page.context().newCDPSession(page));
  }

  async #touch(type, points) {
    await this.#cdp.send('Input.dispatchTouchEvent', { type, touchPoints: points.map(([x, y], id) => ({ x, y, id })) });
  }

  /** Puts a finger down at the first point and moves it along the others, a frame each; `lift` false leaves it there. */
  async drag([from, ...along], { lift = true, rest = 0 } = {}) {
    await this.#touch('touchStart', [from]);
    for (const point of along) {
      await this.#touch('touchMove', [point]);
      await pause(16);
    }
    await pause(rest);
    if (lift) await this.lift();
  }

  /** Straight from one point to another, `steps` times. */
  async swipe(from, to, { steps = 20, ...rest } = {}) {
    const at = (share) => [from[0] + (to[0] - from[0]) * share, from[1] + (to[1] - from[1]) * share];
    await this.drag(Array.from({ length: steps + 1 }, (_, step) => at(step / steps)), rest);
  }

  /**
   * A quick move that is lifted in full course. It is made by the page itself, a frame for each step: what counts is the time between the last of them and the end,
   * which must not depend on what else this machine does.
   */
  async flick(page, from, to) {
    await page.locator('.rows').evaluate(async (rows, points) => {
      const send = (type, [clientX, clientY]) => {
        const touch = new Touch({ identifier: 0, target: rows, clientX, clientY });
        const touches = type === 'touchend' ? [] : [touch];
        rows.dispatchEvent(new TouchEvent(type, { touches, targetTouches: touches, changedTouches: [touch], bubbles: true, cancelable: true }));
      };
      send('touchstart', points[0]);
      for (let step = 1; step <= 4; step += 1) {
        await new Promise((done) => requestAnimationFrame(done));
        send('touchmove', points[0].map((at, axis) => at + ((points[1][axis] - at) * step) / 4));
      }
      send('touchend', points[1]);
    }, [from, to]);
  }

  /** Two fingers around a point, from one distance to another. */
  async pinch([x, y], from, to, steps = 12) {
    const fingers = (distance) => [[x - distance / 2, y], [x + distance / 2, y]];
    await this.#touch('touchStart', fingers(from));
    for (let step = 1; step <= steps; step += 1) {
      await this.#touch('touchMove', fingers(from + ((to - from) * step) / steps));
      await pause(16);
    }
    await this.lift();
  }

  async tap(x, y) {
    await this.#touch('touchStart', [[x, y]]);
    await pause(30);
    await this.lift();
  }

  async pressLong(x, y, ms = 900) {
    await this.#touch('touchStart', [[x, y]]);
    await pause(ms);
    await this.lift();
  }

  async lift() {
    await this.#touch('touchEnd', []);
  }
}

/** A moment of a gesture. What follows from it is waited for as an event. */
export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/**
 * A session that prints `setup` and writes down every byte that it is sent, on the page that shows the sessions. Gives its id and a way to read
 * what came so far.
 */
export async function recorder({ folder, cli, page }, name, setup) {
  const [script, file] = [path.join(folder, `${name}.sh`), path.join(folder, `${name}.typed`)];
  await writeFile(file, '');
  await writeFile(script, `stty raw -echo\nprintf '${setup}'\nprintf 'listening\\r\\n'\nexec cat > '${file}'\n`);
  await cli('run', '-d', '--name', name, '--', 'sh', script);
  await open(page, name);
  await row(page, 'listening');
  const typed = () => readFile(file, 'latin1');
  return {
    typed,
    /** Waits until exactly this was sent since the last time. */
    async expect(text, ms = 20_000) {
      const already = this.read ?? 0;
      const fresh = async () => (await typed()).slice(already);
      await waitUntil(async () => (await fresh()) === Buffer.from(text).toString('latin1'), `${name} to be sent ${JSON.stringify(text)}`, ms,
        async () => `it was sent ${JSON.stringify((await fresh()).slice(0, 2_000))}`);
      this.read = already + Buffer.byteLength(text);
    },
    /** Waits for something and gives all that was sent since the last time. */
    async take(pattern, ms = 20_000) {
      const already = this.read ?? 0;
      const fresh = async () => (await typed()).slice(already);
      await waitUntil(async () => pattern.test(await fresh()), `${name} to be sent ${pattern}`, ms, async () => `it was sent ${JSON.stringify((await fresh()).slice(0, 2_000))}`);
      const text = await fresh();
      this.read = already + text.length;
      return text;
    },
  };
}

/** Opens a session from the list of its machine, to which it goes back first. */
export async function open(page, name) {
  const card = page.locator('.cards .row').filter({ hasText: name });
  if (await page.locator('main.terminal').count()) await page.goBack();
  await card.locator('.card').click();
  await page.locator('.rows').waitFor();
}

/** The rows of the screen and where it is scrolled to. */
export const view = (page) => page.locator('.rows').evaluate((rows) => ({
  top: rows.scrollTop, left: rows.scrollLeft, height: rows.clientHeight, whole: rows.scrollHeight, width: rows.clientWidth, wide: rows.scrollWidth,
  end: rows.scrollHeight - rows.clientHeight - rows.scrollTop < 2,
}));

/** Waits until what is scrolled has come to rest, and gives where. */
export async function atRest(page) {
  let last = await view(page);
  let still = 0;
  await waitUntil(async () => {
    const now = await view(page);
    still = now.top === last.top && now.left === last.left ? still + 1 : 0;
    last = now;
    return still >= 5;
  }, 'the view to come to rest', 10_000);
  return last;
}

/** The text of the first row that is wholly in sight, and how far below the edge it begins. */
export const firstRow = (page) => page.locator('.rows').evaluate((rows) => {
  const edge = rows.getBoundingClientRect().top;
  for (const row of rows.querySelectorAll('.row')) {
    const { top } = row.getBoundingClientRect();
    if (top >= edge) return { text: row.textContent.trimEnd(), at: top - edge };
  }
  return null;
});

/** The rows of the screen, without those of the history, as one would write them down. */
export const screenRows = async (page) => {
  const rows = await page.locator('.rows .screen .row').allTextContents();
  return rows.map((row) => row.trimEnd()).join('\n').trimEnd();
};
