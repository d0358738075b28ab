// Who decides the size, and what a phone shows of a screen that is not its own.

import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';

import { pairedPhone, picture, row } from './app.mjs';
import { program } from './system.mjs';
import { atRest, Hand, open, screenRows, view } from './touch.mjs';
import { Terminal, waitUntil } from './terminal.mjs';

const size = (page) => page.locator('.rows .screen').evaluate((screen) => ({
  rows: screen.querySelectorAll('.row').length,
  cols: Number(getComputedStyle(screen).getPropertyValue('--cols')),
  font: parseFloat(getComputedStyle(screen).fontSize),
}));
const control = (page) => page.locator('.control');

/**
 * A keyboard of the phone slides up by so many pixels, or down: the browser says so, and nothing else. What the browser still had to say of the view, which moved just
 * before, comes behind it.
 */
const keyboard = (page, height) => page.evaluate((covered) => {
  Object.defineProperty(visualViewport, 'height', { configurable: true, get: () => innerHeight - covered });
  visualViewport.dispatchEvent(new Event('resize'));
  document.querySelector('.rows')?.dispatchEvent(new Event('scroll'));
}, height);

test('a phone looks at a desk’s screen, takes its size over and gives it back', { timeout: 240_000 }, async (t) => {
  const phone = await pairedPhone(t, 'size');
  const { folder, home, page, trouble } = phone;
  const hand = await Hand.above(page);
  const env = { HAPPY_HOME_DIR: home, HOME: folder, SHELL: '/bin/bash', LANG: 'C.UTF-8', TERM: 'xterm-256color', PS1: '$ ' };
  const desk = await Terminal.open('size-desk', { env, cwd: folder, cols: 100, rows: 30, command: [program('happy'), 'run', '--name', 'desk session', '--', 'bash', '--norc', '--noprofile'] });
  t.after(() => desk.close());
  await desk.waitFor(/\$/, 'a prompt');
  await desk.type("PS1='$ '; clear; for n in $(seq 1 28); do printf '\\033[3%dm%099d\\033[m\\n' $((n % 8)) $n; done", 'Enter');
  await desk.waitFor(/0028\n\$/, 'the last line');
  const before = await desk.coloured();

  await t.test('it is shown to fit, with who decides beside it', async () => {
    await open(page, 'desk session');
    await waitUntil(async () => /0028\n\$$/.test(await screenRows(page)), 'the last line', 20_000, () => screenRows(page));
    const fitted = await size(page);
    assert.deepEqual([fitted.cols, fitted.rows], [100, 30]);
    const { wide, width } = await atRest(page);
    assert.ok(wide <= width + 1, 'all columns are in sight');
    await control(page).getByText(/decides the size/).waitFor();
    await control(page).getByText('100×30').waitFor();
    await picture(page, 'terminal-fitted');
  });

  await t.test('two fingers make the text readable, and one moves about', async () => {
    const { font } = await size(page);
    await hand.pinch([195, 200], 80, 240);
    await waitUntil(async () => (await size(page)).font > font * 2, 'larger text', 10_000, async () => JSON.stringify(await size(page)));
    await picture(page, 'terminal-zoomed');
    const large = await atRest(page);
    assert.ok(large.wide > large.width + 200);
    await hand.swipe([300, 300], [50, 300], { rest: 150 });
    await waitUntil(async () => (await view(page)).left > large.left + 100, 'the view to move', 10_000);
    // Smaller than the least it does not get.
    await hand.pinch([195, 200], 300, 20);
    assert.ok((await size(page)).font >= 6);
    assert.deepEqual([(await size(page)).cols, (await size(page)).rows], [100, 30]);
  });

  await t.test('a keyboard that slides up resizes nothing, and the cursor stays in sight', async () => {
    await hand.pinch([195, 200], 100, 160);
    await page.getByRole('button', { name: 'Type key by key' }).click();
    await page.locator('.rows').click();
    await keyboard(page, 380);
    const cursorInSight = () => page.locator('.rows').evaluate((rows) => {
      const [room, cursor] = [rows.getBoundingClientRect(), rows.querySelector('.cursor').getBoundingClientRect()];
      return cursor.top >= room.top && cursor.bottom <= room.bottom && cursor.left >= room.left && cursor.right <= room.right;
    });
    await waitUntil(cursorInSight, 'the cursor to be in sight');
    await page.keyboard.type('# typed on a phone, far to the right of what it shows at once, and seen '.padEnd(90, '.'));
    await desk.waitFor(/typed on a phone/);
    await waitUntil(cursorInSight, 'the cursor to be in sight at the right');
    await picture(page, 'terminal-keyboard');
    assert.deepEqual([(await size(page)).cols, (await size(page)).rows], [100, 30]);
    await page.getByRole('toolbar', { name: 'More keys' }).isVisible();
    await page.keyboard.press('Control+u');
    await keyboard(page, 0);
    await page.getByRole('button', { name: 'Type key by key' }).click();
    await desk.waitFor(/0028\n\$\s*$/, 'what it showed before');
  });

  await t.test('control is taken by a button: the session takes the phone’s shape, and only then', async () => {
    await page.getByRole('button', { name: 'Size and control' }).click();
    await page.getByRole('radio', { name: '13' }).click();
    await page.getByRole('button', { name: 'Done' }).click();
    await control(page).getByRole('button', { name: 'Take control' }).click();
    await control(page).getByText('You decide the size').waitFor();
    await waitUntil(async () => (await size(page)).cols < 60, 'the phone’s own width');
    const own = await size(page);
    await picture(page, 'terminal-controlled');
    // The program knows.
    await page.locator('.rows').focus();
    await page.keyboard.type('stty size\n');
    await row(page, `${own.rows} ${own.cols}`);
    // Neither the keyboard nor a panel of keys changes it: as many rows, and no other size told.
    await keyboard(page, 380);
    await page.getByRole('button', { name: 'More keys' }).click();
    await new Promise((done) => setTimeout(done, 600));
    await page.keyboard.type('stty size\n');
    await waitUntil(async () => (await screenRows(page)).split(`${own.rows} ${own.cols}`).length === 3, 'the same size', 10_000, () => screenRows(page));
    assert.deepEqual(await size(page), own);
    await page.getByRole('button', { name: 'More keys' }).click();
    await keyboard(page, 0);
    // A window of another shape does.
    await page.setViewportSize({ width: 844, height: 390 });
    await waitUntil(async () => (await size(page)).cols > own.cols + 20, 'the width of a phone on its side');
    await page.setViewportSize({ width: 390, height: 844 });
    await waitUntil(async () => (await size(page)).cols === own.cols, 'the width of before');
  });

  await t.test('and given back by another: who had it before has it again, in its own size', async () => {
    await control(page).getByRole('button', { name: 'Give back' }).click();
    await control(page).getByRole('button', { name: 'Take control' }).waitFor();
    await waitUntil(async () => (await size(page)).cols === 100 && (await size(page)).rows === 30, 'the desk’s size', 20_000, async () => JSON.stringify(await size(page)));
    await desk.type('clear; stty size', 'Enter');
    await desk.waitFor(/30 100/);
  });

  await t.test('when the phone has left, the desk’s screen is what it was, to the byte', async () => {
    await desk.type("clear; for n in $(seq 1 28); do printf '\\033[3%dm%099d\\033[m\\n' $((n % 8)) $n; done", 'Enter');
    await desk.waitFor(/0028\n\$/, 'the last line');
    await waitUntil(async () => (await desk.coloured()) === before, 'the screen of before', 10_000, () => desk.text());
    await hand.pinch([195, 200], 80, 200);
    await hand.swipe([200, 200], [200, 500]);
    await keyboard(page, 380);
    await page.goBack();
    await page.locator('.card').first().waitFor();
    await keyboard(page, 0);
    assert.equal(await desk.coloured(), before);
    // One that took control and left without a word leaves it to the desk as well.
    await desk.type('vim -u NONE -c "set number" /etc/passwd', 'Enter');
    await desk.waitFor(/ 1 root/);
    // What it says when it opens a file goes with the first redrawing.
    await desk.type(':', 'Escape');
    await waitUntil(async () => !/passwd" /.test(await desk.text()), 'vim to be quiet', 10_000, () => desk.text());
    const vim = await desk.coloured();
    await open(page, 'desk session');
    await control(page).getByRole('button', { name: 'Take control' }).click();
    await control(page).getByText('You decide the size').waitFor();
    await page.goBack();
    await page.locator('.card').first().waitFor();
    await waitUntil(async () => (await desk.coloured()) === vim, 'vim to fill the desk’s screen again', 20_000, async () => {
      const [was, is] = [vim.split('\n'), (await desk.coloured()).split('\n')];
      return JSON.stringify(was.map((line, n) => [n, line, is[n]]).filter(([, one, other]) => one !== other));
    });
  });

  assert.deepEqual(trouble.filter((line) => !/WebSocket connection to|ERR_CONNECTION_REFUSED/.test(line)), []);
});
