// Selecting and copying on the terminal, and the screen as text.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';

import { command, pairedPhone, picture, row, rowsOf, shell } from './app.mjs';
import { Hand, open, screenRows } from './touch.mjs';
import { waitUntil } from './terminal.mjs';

const clipboard = (page) => page.evaluate(() => navigator.clipboard.readText());
const selection = (page) => page.evaluate(() => getSelection().toString());

/** The middle of a word on the screen. */
const placeOf = (page, word) => page.locator('.rows').evaluate((rows, text) => {
  const walker = document.createTreeWalker(rows, NodeFilter.SHOW_TEXT);
  let found = null;
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const at = node.data.indexOf(text);
    if (at < 0 || !node.parentElement.closest('.row')) continue;
    const range = document.createRange();
    range.setStart(node, at);
    range.setEnd(node, at + text.length);
    const box = range.getBoundingClientRect();
    found = [box.left + box.width / 2, box.top + box.height / 2];
  }
  return found;
}, word);

/** Selects from the beginning of one word to the end of another, as the handles of the browser do. */
const select = (page, from, to) => page.locator('.rows').evaluate((rows, words) => {
  const place = (text) => {
    const walker = document.createTreeWalker(rows, NodeFilter.SHOW_TEXT);
    let found = null;
    for (let node = walker.nextNode(); node; node = walker.nextNode()) if (node.data.includes(text)) found = [node, node.data.indexOf(text)];
    return found;
  };
  const [[first, start], [last, end]] = words.map(place);
  getSelection().setBaseAndExtent(first, start, last, end + words[1].length);
}, [from, to]);

test('text of the terminal can be selected and copied as the program wrote it', { timeout: 240_000 }, async (t) => {
  const phone = await pairedPhone(t, 'select');
  const { page, trouble } = phone;
  const hand = await Hand.above(page);
  await shell(page);
  const copyButton = page.locator('.selection').getByRole('button', { name: 'Copy' });

  await t.test('a long press selects a word, and output waits meanwhile', async () => {
    const go = path.join(phone.folder, 'go');
    await command(page, `clear; echo 'some elephants are grey'; (until [ -e ${go} ]; do sleep 0.1; done; printf 'later-%d\\033]2;it came\\007\\n' $((1+1))) &`);
    await row(page, 'some elephants are grey');
    const [x, y] = await placeOf(page, 'elephants');
    await hand.pressLong(x, y);
    await waitUntil(async () => (await selection(page)).trim() === 'elephants', 'the word to be selected', 10_000, () => selection(page));
    await copyButton.waitFor();
    await page.locator('.selection').getByText('New output waits').waitFor();
    await picture(page, 'terminal-selection');
    await writeFile(go, '');
    await page.locator('h1', { hasText: 'it came' }).waitFor();
    assert.equal((await selection(page)).trim(), 'elephants');
    assert.ok(!(await rowsOf(page)).some((line) => line.includes('later-2')), 'nothing is drawn under the selection');
    await copyButton.click();
    await waitUntil(async () => (await clipboard(page)) === 'elephants', 'the clipboard to have it', 10_000, () => clipboard(page));
    await waitUntil(async () => (await rowsOf(page)).some((line) => line.includes('later-2')), 'the output to be drawn');
    await copyButton.waitFor({ state: 'detached' });
  });

  await t.test('lines that the screen has wrapped are copied as one, and blanks at the end are not copied', async () => {
    await command(page, "clear; printf 'begin%s%s\\n' $(seq -s. 1 40) ' <'; printf 'padded\\033[20X     \\nstop\\n'");
    await row(page, 'stop');
    await select(page, 'begin', 'stop');
    await copyButton.click();
    const numbers = Array.from({ length: 40 }, (_, n) => n + 1).join('.');
    await waitUntil(async () => (await clipboard(page)).startsWith('begin'), 'the clipboard to have it');
    assert.equal(await clipboard(page), `begin${numbers} <\npadded\nstop`);
  });

  await t.test('the browser’s own copying does the same, and typing ends the selection', async () => {
    await select(page, 'begin', 'padded');
    await page.evaluate(() => document.execCommand('copy'));
    const numbers = Array.from({ length: 40 }, (_, n) => n + 1).join('.');
    assert.equal(await clipboard(page), `begin${numbers} <\npadded`);
    await copyButton.waitFor();
    await page.locator('.rows').focus();
    await page.keyboard.type('#');
    await copyButton.waitFor({ state: 'detached' });
    await page.keyboard.press('Backspace');
  });

  await t.test('without the right to the clipboard it is copied in the old way', async () => {
    await page.evaluate(() => {
      globalThis.realWrite = navigator.clipboard.writeText;
      navigator.clipboard.writeText = () => Promise.reject(new DOMException('no', 'NotAllowedError'));
    });
    await select(page, 'stop', 'stop');
    await copyButton.click();
    await waitUntil(async () => (await clipboard(page)) === 'stop', 'the clipboard to have it', 10_000, () => clipboard(page));
    await page.evaluate(() => (navigator.clipboard.writeText = globalThis.realWrite));
  });

  await t.test('the screen, and what scrolled off, is given as text', async () => {
    await command(page, 'clear; seq 1 200; printf "%0100d\\n" 7');
    await waitUntil(async () => (await screenRows(page)).includes('0007\n'), 'the long line');
    await page.getByRole('button', { name: 'More keys' }).click();
    await page.getByRole('button', { name: 'Screen as text' }).click();
    const sheet = page.getByRole('dialog', { name: 'Screen as text' });
    await picture(page, 'terminal-as-text');
    await sheet.getByRole('button', { name: 'Copy all' }).click();
    await sheet.waitFor({ state: 'detached' });
    const screen = await clipboard(page);
    assert.match(screen, new RegExp(`\n199\n200\n0{99}7\n`), 'the wrapped line is one');
    assert.ok(!/^1$/m.test(screen));
    await page.getByRole('button', { name: 'Screen as text' }).click();
    await sheet.getByRole('radio', { name: 'With what scrolled off' }).click();
    await sheet.getByRole('button', { name: 'Copy all' }).click();
    await sheet.waitFor({ state: 'detached' });
    assert.ok(`\n${await clipboard(page)}`.includes(`\n${Array.from({ length: 200 }, (_, n) => n + 1).join('\n')}\n`));
  });

  await t.test('a long press selects in a full-screen program too', async () => {
    await phone.cli('run', '-d', '--name', 'full', '--', 'sh', '-c', "printf '\\033[?1049h\\033[?1000h\\033[?1006hunder the bridge'; exec cat");
    await open(page, 'full');
    await row(page, 'under the bridge');
    const [x, y] = await placeOf(page, 'bridge');
    await hand.pressLong(x, y);
    await waitUntil(async () => (await selection(page)).trim() === 'bridge', 'the word to be selected', 10_000, () => selection(page));
    assert.ok(!(await rowsOf(page)).some((line) => line.includes('[<')), 'the program was not told of a click');
  });

  assert.deepEqual(trouble.filter((line) => !/WebSocket connection to|ERR_CONNECTION_REFUSED/.test(line)), []);
});
