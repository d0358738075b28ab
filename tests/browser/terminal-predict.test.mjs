// What is typed on a slow line is seen before its echo comes; a password is not.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';

import { pairedPhone, picture, row, rowsOf } from './app.mjs';
import { freePort, program } from './system.mjs';
import { open, screenRows } from './touch.mjs';
import { Terminal, waitUntil } from './terminal.mjs';

/** Each way. */
const LATE_MS = 150;
/** What a key may take to be seen: the bound of the issue, with a machine in mind that does other things. */
const SEEN_WITHIN_MS = 50;

/** A line that is late, between the browser and whatever it connects to at `to`. */
async function lateLine(t, to) {
  const port = await freePort();
  const line = spawn(program('chaos'), ['--listen', `127.0.0.1:${port}`, '--to', `127.0.0.1:${to}`, '--latency', String(LATE_MS)], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => line.kill());
  await new Promise((resolve, reject) => {
    line.stdout.once('data', resolve);
    line.once('exit', (code) => reject(new Error(`the slow line ended with ${code}`)));
  });
  return port;
}

test('on a slow line what is typed is seen at once', { timeout: 240_000 }, async (t) => {
  const phone = await pairedPhone(t, 'predict', {}, async (relay) => [`--host-resolver-rules=MAP localhost 127.0.0.1:${await lateLine(t, relay.port)}`]);
  const { folder, home, page, trouble } = phone;
  const env = { HAPPY_HOME_DIR: home, HOME: folder, SHELL: '/bin/bash', LANG: 'C.UTF-8', TERM: 'xterm-256color', PS1: '$ ' };
  const desk = await Terminal.open('predict-desk', { env, cwd: folder, cols: 60, rows: 20, command: [program('happy'), 'run', '--name', 'slow', '--', 'bash', '--norc', '--noprofile'] });
  t.after(() => desk.close());
  await desk.waitFor(/\$/, 'a prompt');
  await open(page, 'slow');
  await row(page, '$');

  // When each key was pressed, and when the screen first showed one character more, guessed or not; and everything that was ever guessed.
  await page.evaluate(() => {
    globalThis.pressed = [];
    globalThis.seen = [];
    globalThis.echoed = [];
    globalThis.guesses = '';
    const rows = document.querySelector('.rows');
    addEventListener('keydown', () => pressed.push(performance.now()), { capture: true });
    const look = () => {
      const cells = [...rows.querySelectorAll('.guess')];
      // A guess is gone again before anybody could ask how it looks.
      if (cells[0]?.closest('.marked')) {
        const [own, certain] = [getComputedStyle(cells[0]), getComputedStyle(rows)];
        globalThis.looks = { line: own.textDecorationLine, dimmer: own.color !== certain.color };
      }
      globalThis.guesses += cells.map((cell) => cell.textContent).join('');
      const real = [...rows.querySelectorAll('.screen .row')].map((row) => row.textContent).join('').replace(/\s/g, '').length;
      const [now, all] = [performance.now(), real + cells.filter((cell) => cell.textContent.trim()).length];
      while (globalThis.seen.length < all) globalThis.seen.push(now);
      while (globalThis.echoed.length < real) globalThis.echoed.push(now);
    };
    new MutationObserver(look).observe(rows, { subtree: true, childList: true, characterData: true });
    look();
  });
  const settled = () => page.locator('.guess').first().waitFor({ state: 'detached' });
  await page.locator('.rows').focus();

  await t.test('the first keys prove that they are echoed, the next are shown within a moment', async () => {
    await page.keyboard.type('echo', { delay: 120 });
    await page.locator('.rows .row', { hasText: 'echo' }).waitFor();
    await settled();
    const before = await page.evaluate(() => [globalThis.pressed.length, globalThis.seen.length]);
    const text = 'what-is-typed-on-a-slow-line';
    await page.keyboard.type(text, { delay: 60 });
    await picture(page, 'terminal-predicted');
    await row(page, `$ echo${text}`);
    await settled();
    const times = await page.evaluate(([keys, characters]) => globalThis.pressed.slice(keys).map((at, n) => [globalThis.seen[characters + n] - at, globalThis.echoed[characters + n] - at]), before);
    assert.equal(times.length, text.length);
    const middle = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];
    const [seen, echoed] = [middle(times.map(([seen]) => seen)), middle(times.map(([, echoed]) => echoed))];
    assert.ok(echoed >= 2 * LATE_MS, `the echo came after ${Math.round(echoed)} ms: this line is not slow`);
    assert.ok(seen <= SEEN_WITHIN_MS, `a key was seen after ${Math.round(seen)} ms`);
    t.diagnostic(`seen after ${seen.toFixed(1)} ms, echoed after ${echoed.toFixed(1)} ms (medians of ${times.length} keys)`);
  });

  await t.test('guesses are told apart from what is certain', async () => {
    await page.keyboard.type('xyz');
    await settled();
    assert.deepEqual(await page.evaluate(() => globalThis.looks), { line: 'underline', dimmer: true });
    await page.keyboard.press('Backspace');
    await page.keyboard.press('Backspace');
    await page.keyboard.press('Backspace');
    await settled();
  });

  await t.test('a password is not shown, by whatever it is read', async () => {
    await page.keyboard.press('Control+u');
    await page.keyboard.type('read -s secret; stty -echo; cat > /dev/null\n', { delay: 20 });
    await desk.waitFor(/cat > \/dev\/null\n\s*$/m, 'the question');
    await settled();
    await page.evaluate(() => (globalThis.guesses = ''));
    await page.keyboard.type('hunter2hunter2', { delay: 60 });
    await new Promise((done) => setTimeout(done, 3 * LATE_MS));
    await page.keyboard.type('\n');
    await page.keyboard.type('correct-horse', { delay: 60 });
    await new Promise((done) => setTimeout(done, 6 * LATE_MS));
    assert.equal(await page.evaluate(() => globalThis.guesses), '');
    assert.ok(!(await rowsOf(page)).join().includes('hunter'));
    await page.keyboard.press('Control+c');
    await page.keyboard.type('stty echo\n');
  });

  await t.test('a wrong guess goes, and in the end the glass shows what the holder has', async () => {
    await desk.waitFor(/\n\$\s*$/, 'a prompt');
    await page.keyboard.type("bind '\"q\": \"[Q]\"'\n", { delay: 20 });
    await page.keyboard.type('abcdef', { delay: 120 });
    await page.keyboard.type('qq', { delay: 60 });
    await page.locator('.rows .row', { hasText: 'abcdef[Q][Q]' }).waitFor();
    await settled();
    await page.keyboard.press('Home');
    await page.keyboard.type('echo ', { delay: 60 });
    await page.keyboard.press('End');
    for (let n = 0; n < 3; n += 1) await page.keyboard.press('Backspace');
    await page.keyboard.type('\nls /nowhere\n', { delay: 40 });
    await desk.waitFor(/No such file.*\n\$\s*$/, 'the end');
    await settled();
    await waitUntil(async () => (await screenRows(page)) === (await desk.text()).split('\n').map((line) => line.trimEnd()).join('\n').trimEnd(),
      'the phone to show what the desk shows', 10_000, async () => `${await screenRows(page)}\n---\n${await desk.text()}`);
  });

  assert.deepEqual(trouble.filter((line) => !/WebSocket connection to|ERR_CONNECTION_REFUSED/.test(line)), []);
});
