// A finger on the terminal: history, full-screen programs, programs that want the mouse.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';

import { command, pairedPhone, picture, row, rowsOf, shell } from './app.mjs';
import { atRest, firstRow, Hand, open, recorder, screenRows, view } from './touch.mjs';
import { waitUntil } from './terminal.mjs';

test('a finger scrolls the history, and full-screen programs', { timeout: 240_000 }, async (t) => {
  const phone = await pairedPhone(t, 'scroll');
  const { folder, page, trouble } = phone;
  const hand = await Hand.above(page);
  /** How large a cell is, and where the first one is. */
  const cells = () => page.locator('.rows .screen').evaluate((screen) => {
    const box = screen.getBoundingClientRect();
    return { line: screen.querySelector('.row').offsetHeight, cell: screen.querySelector('.cursor').getBoundingClientRect().width, left: box.left, top: box.top };
  });
  await shell(page);

  await t.test('the history follows the finger to the pixel, and stays where it was left', async () => {
    await command(page, 'clear; seq 1 300');
    await row(page, '300');
    const before = await atRest(page);
    assert.ok(before.end);
    await hand.swipe([200, 300], [200, 437], { lift: false });
    const held = await view(page);
    const moved = before.top - held.top;
    // All of it but what a finger may move before it counts as moving.
    assert.ok(moved > 100 && moved <= 137, `moved ${moved}`);
    await hand.lift();
    const line = await page.locator('.rows .row').first().evaluate((one) => one.offsetHeight);
    assert.ok(line >= 14);
    assert.notEqual((await firstRow(page)).at % line, 0, 'rows are cut where the finger says');
    assert.equal(await page.locator('.rows').evaluate((rows) => getComputedStyle(rows).overscrollBehaviorY), 'contain');
  });

  await t.test('a flick goes on by itself', async () => {
    // A finger that this busy machine lifts too late does not flick.
    await waitUntil(async () => {
      await page.getByRole('button', { name: 'Latest' }).click();
      const before = await atRest(page);
      await hand.swipe([200, 250], [200, 500], { steps: 6 });
      return before.top - (await atRest(page)).top > 300;
    }, 'a swipe of 250 px to come farther');
  });

  await t.test('what is printed meanwhile does not move what one reads; a button leads back to the end', async () => {
    await page.getByRole('button', { name: 'Latest' }).click();
    const go = path.join(folder, 'go');
    await command(page, `(until [ -e ${go} ]; do sleep 0.1; done; seq 301 400) &`);
    await atRest(page);
    await hand.swipe([200, 250], [200, 550], { rest: 120 });
    await atRest(page);
    const before = await firstRow(page);
    assert.match(before.text, /^\d+$/);
    await writeFile(go, '');
    await row(page, '400');
    assert.deepEqual(await firstRow(page), before);
    await picture(page, 'terminal-scrolled');
    await page.getByRole('button', { name: 'Latest' }).click();
    await waitUntil(async () => (await view(page)).end, 'the end');
    await page.getByRole('button', { name: 'Latest' }).waitFor({ state: 'detached' });
  });

  await t.test('a wide screen does not slide sideways under a finger that goes up', async () => {
    await page.evaluate(() => localStorage.setItem('happy-font', '18'));
    await phone.cli('run', '-d', '--name', 'wide', '--', 'sh', '-c', 'seq 1 100; exec cat');
    await page.reload();
    await page.locator('.rows').waitFor();
    await open(page, 'wide');
    await row(page, '100');
    const wide = await atRest(page);
    assert.ok(wide.wide > wide.width + 100, 'it is wider than the phone');
    await hand.swipe([200, 250], [225, 500], { rest: 120 });
    const up = await atRest(page);
    assert.ok(up.top < wide.top && up.left === 0, JSON.stringify(up));
    await hand.swipe([300, 400], [100, 400], { rest: 120 });
    assert.ok((await atRest(page)).left > 100);
    await page.evaluate(() => localStorage.setItem('happy-font', '0'));
    await page.reload();
    await page.locator('.rows').waitFor();
  });

  await t.test('history that is only at the machine comes where one scrolls', async () => {
    await phone.cli('run', '-d', '--name', 'long', '--', 'sh', '-c', 'seq 1 4000; exec cat');
    await open(page, 'long');
    await row(page, '4000');
    const numbers = async () => (await rowsOf(page)).map((line) => line.trim()).filter((line) => /^\d+$/.test(line)).map(Number);
    assert.ok(!(await numbers()).includes(3_800), 'it is not here at first');
    await waitUntil(async () => {
      await hand.swipe([200, 150], [200, 600], { steps: 5 });
      return (await numbers()).includes(3_800);
    }, 'row 3800 to come');
    // Towards the end they are all there, each once.
    const here = await numbers();
    assert.deepEqual(here, [...new Set(here)].sort((a, b) => a - b));
  });

  await t.test('a program that tracks the mouse gets wheels and clicks at the cell', async () => {
    const mouse = await recorder(phone, 'mouse', '\\033[?1049h\\033[?1000h\\033[?1006h');
    const { line, cell, left, top } = await cells();
    const at = (column, y) => [left + (column + 0.5) * cell, top + (y + 0.5) * line];
    await hand.tap(...at(4, 2));
    await mouse.expect('\x1b[<0;5;3M\x1b[<0;5;3m');
    // Slowly and by parts of a row: what is too little for a row is kept.
    await hand.swipe(at(9, 20), at(9, 20 - 6.4), { steps: 40, rest: 200 });
    const reports = await mouse.take(/M$/);
    const notches = reports.match(/\x1b\[<65;10;\d+M/g);
    assert.equal(notches.join(''), reports, 'only wheels towards newer text');
    assert.ok(notches.length >= 5 && notches.length <= 6, `${notches.length} rows of 6.4, less what a finger may move before it counts`);
    await hand.flick(page, at(9, 3), at(9, 15));
    const flicked = await mouse.take(/(\x1b\[<64;10;\d+M){14}/);
    assert.ok(!flicked.includes('<65'), 'a flick of twelve rows goes on by itself, and in its direction');
  });

  await t.test('others get arrows, as they want them', async () => {
    const arrows = await recorder(phone, 'arrows', '\\033[?1049h');
    const { line } = await cells();
    await hand.swipe([200, 300], [200, 300 + line * 6.5], { steps: 30, rest: 200 });
    assert.match(await arrows.take(/(\x1b\[A){5}/), /^(\x1b\[A){5,6}$/);
    const application = await recorder(phone, 'application', '\\033[?1049h\\033[?1h');
    await hand.swipe([200, 400], [200, 400 - line * 6.5], { steps: 30, rest: 200 });
    assert.match(await application.take(/(\x1bOB){5}/), /^(\x1bOB){5,6}$/);
    await hand.tap(200, 300);
    assert.equal((await application.typed()).replace(/\x1bOB/g, ''), '', 'a tap is nothing to it');
  });

  await t.test('less and vim scroll under the finger', async () => {
    await writeFile(path.join(folder, 'lines'), Array.from({ length: 500 }, (_, n) => `line ${n + 1}\n`).join(''));
    await open(page, 'bash');
    await command(page, `less ${path.join(folder, 'lines')}`);
    await row(page, 'line 1');
    await hand.swipe([200, 450], [200, 250], { rest: 150 });
    await waitUntil(async () => /^line (\d+)$/.exec((await screenRows(page)).split('\n')[0])?.[1] > 5, 'less to scroll', 10_000, () => screenRows(page));
    await picture(page, 'terminal-less');
    assert.equal(await page.locator('.rows .history').isVisible(), false, 'nothing of the shell stands above it');
    await page.locator('.rows').focus();
    await page.keyboard.type('q');
    await waitUntil(async () => page.locator('.rows .history').isVisible(), 'the history to be back');
    await command(page, `vim -u NONE -c 'set mouse=a' ${path.join(folder, 'lines')}`);
    await row(page, 'line 1');
    await hand.swipe([200, 450], [200, 250], { rest: 150 });
    await waitUntil(async () => /^line (\d+)$/.exec((await screenRows(page)).split('\n')[0])?.[1] > 5, 'vim to scroll', 10_000, () => screenRows(page));
    await page.locator('.rows').focus();
    await page.keyboard.type(':q!\n');
  });

  assert.deepEqual(trouble.filter((line) => !/WebSocket connection to|ERR_CONNECTION_REFUSED/.test(line)), []);
});
