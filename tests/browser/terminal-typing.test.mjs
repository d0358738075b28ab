// Typing with a thumb: the key bar, pasting, and what Android's keyboards do to text.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';

import { lineOf, replay, SEQUENCES } from './android.mjs';
import { compose, pairedPhone, picture, row } from './app.mjs';
import { Hand, open, recorder } from './touch.mjs';
import { waitUntil } from './terminal.mjs';

const key = (page, name) => page.getByRole('toolbar', { name: 'Extra keys' }).getByRole('button', { name, exact: true });
const focused = (page) => page.evaluate(() => document.activeElement.getAttribute('aria-label'));
const copy = (page, text) => page.evaluate((it) => navigator.clipboard.writeText(it), text);

/** A tap with a finger, as the button gets it: by coordinates, so that nothing helps with the focus. */
async function tap(page, hand, button) {
  await button.scrollIntoViewIfNeeded();
  const box = await button.boundingBox();
  await hand.tap(box.x + box.width / 2, box.y + box.height / 2);
}

test('keys, pastes and compositions reach the program as they are meant', { timeout: 240_000 }, async (t) => {
  const phone = await pairedPhone(t, 'typing');
  const { page, trouble } = phone;
  const hand = await Hand.above(page);
  const plain = await recorder(phone, 'plain', '');

  await t.test('the key bar keeps the keyboard up, and its keys are large enough for a thumb', async () => {
    await compose(page).click();
    await tap(page, hand, key(page, 'Esc'));
    await plain.expect('\x1b');
    await tap(page, hand, key(page, 'Tab'));
    await tap(page, hand, key(page, 'Up'));
    await plain.expect('\t\x1b[A');
    assert.equal(await focused(page), 'Text to send to the terminal', 'the keyboard is still up');
    await page.getByRole('button', { name: 'More keys' }).click();
    await page.getByRole('toolbar', { name: 'More keys' }).getByRole('button', { name: 'F5' }).click();
    await plain.expect('\x1b[15~');
    await picture(page, 'terminal-more-keys');
    const small = await page.locator('.input button').evaluateAll((buttons) => buttons.map((button) => {
      const { width, height } = button.getBoundingClientRect();
      return { name: button.ariaLabel ?? button.textContent, width, height };
    }).filter(({ width, height }) => width < 44 || height < 44));
    assert.deepEqual(small, []);
    await page.getByRole('button', { name: 'More keys' }).click();
  });

  await t.test('Ctrl and Alt stick: a tap for one key, a double tap until the next tap; also for a real keyboard', async () => {
    const ctrl = page.getByRole('toolbar', { name: 'Extra keys' }).getByRole('button', { name: /^Ctrl/ });
    const state = () => ctrl.evaluate((button) => [button.getAttribute('aria-pressed'), button.getAttribute('aria-label')].join());
    await compose(page).click();
    await tap(page, hand, ctrl);
    assert.equal(await state(), 'true,Ctrl');
    await page.keyboard.type('c');
    await plain.expect('\x03');
    assert.equal(await state(), 'false,Ctrl');
    assert.equal(await compose(page).inputValue(), '', 'it was a key, not text');
    // In the page: two taps are one double tap by the time between them, whatever else this machine does.
    await ctrl.evaluate((button) => [0, 1].forEach(() => button.click()));
    await waitUntil(async () => (await state()) === 'true,Ctrl, held', 'Ctrl to be held');
    await picture(page, 'terminal-ctrl');
    await page.keyboard.type('ad');
    await tap(page, hand, key(page, 'Left'));
    await plain.expect('\x01\x04\x1b[1;5D');
    await tap(page, hand, ctrl);
    assert.equal(await state(), 'false,Ctrl');
    // Two taps that are not one double tap take it back.
    await tap(page, hand, ctrl);
    await waitUntil(async () => (await state()) === 'true,Ctrl', 'Ctrl');
    await page.evaluate(() => new Promise((done) => setTimeout(done, 450)));
    await tap(page, hand, ctrl);
    assert.equal(await state(), 'false,Ctrl');
    await tap(page, hand, page.getByRole('toolbar', { name: 'Extra keys' }).getByRole('button', { name: 'Alt' }));
    await page.locator('.rows').focus();
    await page.keyboard.press('b');
    await page.keyboard.press('Control+r');
    await page.keyboard.press('ArrowUp');
    await plain.expect('\x1bb\x12\x1b[A');
  });

  await t.test('one line is pasted at once, several are shown first', async () => {
    await copy(page, 'one line');
    await key(page, 'Paste').click();
    await plain.expect('one line');
    await copy(page, 'first\nsecond\r\nthird\n');
    await key(page, 'Paste').click();
    const sheet = page.getByRole('dialog', { name: 'Paste 3 lines?' });
    await sheet.waitFor();
    await sheet.getByText('each line end is an Enter').waitFor();
    await picture(page, 'terminal-paste');
    await sheet.getByRole('button', { name: 'Cancel' }).click();
    await sheet.waitFor({ state: 'detached' });
    await key(page, 'Paste').click();
    await sheet.getByRole('button', { name: 'Paste' }).click();
    await plain.expect('first\rsecond\rthird\r');
    await compose(page).fill('a line of the field');
    await page.locator('.sendbutton').click();
    await plain.expect('a line of the field\r');
  });

  await t.test('a program that asks for it gets a paste in brackets, and nothing in it can end it', async () => {
    const bracketed = await recorder(phone, 'bracketed', '\\033[?2004h');
    await copy(page, 'echo a\necho \x1b[201~b');
    await key(page, 'Paste').click();
    const sheet = page.getByRole('dialog', { name: 'Paste 2 lines?' });
    await sheet.getByText('as one piece').waitFor();
    await sheet.getByRole('button', { name: 'Paste' }).click();
    await bracketed.expect('\x1b[200~echo a\recho b\x1b[201~');
  });

  await t.test('five megabytes arrive whole, and the page goes on meanwhile', async () => {
    const large = await recorder(phone, 'large', '');
    const text = Array.from({ length: 5_000_000 / 50 }, (_, n) => String(n).padStart(49, '.')).join('\n');
    await copy(page, text);
    await page.evaluate(() => {
      globalThis.longest = 0;
      let last = performance.now();
      const tick = () => {
        const now = performance.now();
        globalThis.longest = Math.max(globalThis.longest, now - last);
        last = now;
        globalThis.ticking = setTimeout(tick, 10);
      };
      tick();
    });
    await key(page, 'Paste').click();
    await page.getByRole('dialog', { name: 'Paste 100,000 lines?' }).getByRole('button', { name: 'Paste' }).click();
    await page.getByText(/^Pasting: .* MB to go$/).waitFor();
    await picture(page, 'terminal-pasting');
    await waitUntil(async () => (await large.typed()).length >= text.length, 'all of it to arrive', 100_000, async () => `${(await large.typed()).length} bytes have come`);
    const hash = (it) => createHash('sha256').update(it).digest('hex');
    assert.equal(hash(await large.typed()), hash(text.replaceAll('\n', '\r')));
    const longest = await page.evaluate(() => (clearTimeout(globalThis.ticking), globalThis.longest));
    assert.ok(longest < 1_500, `nothing else ran for ${Math.round(longest)} ms`);
    await page.locator('.strip.pasting').waitFor({ state: 'detached' });
  });

  await t.test('what an Android keyboard does to a line of the text field is what is sent', async () => {
    const lines = await recorder(phone, 'lines', '');
    for (const [name, [steps, line]] of Object.entries(SEQUENCES)) {
      await compose(page).click();
      await replay(page, steps);
      assert.equal(await compose(page).inputValue(), line, name);
      await page.locator('.sendbutton').click();
      await lines.expect(`${line}\r`);
    }
  });

  await t.test('and key by key it reaches the program as it is typed, each character once', async () => {
    const keys = await recorder(phone, 'keys', '');
    await page.getByRole('button', { name: 'Type key by key' }).click();
    await page.locator('.rows').click();
    assert.equal(await focused(page), 'Keys for the terminal', 'a tap on the terminal calls up the keyboard');
    await picture(page, 'terminal-keys');
    for (const [name, [steps, line]] of Object.entries(SEQUENCES)) {
      await replay(page, steps);
      await page.keyboard.press('Enter');
      const sent = await keys.take(/\r$/);
      assert.equal(lineOf(sent.slice(0, -1)), line, `${name}: ${JSON.stringify(sent)}`);
      // A character is deleted because it was changed, and not for the sake of being typed anew.
      if (!steps.some((step) => /delete|again|replace/.test(step)) && !/correct|delet/.test(name)) assert.ok(!sent.includes('\x7f'), `${name}: ${JSON.stringify(sent)}`);
    }
    // Letters come before the word is done.
    await replay(page, ['compose v', 'compose vi']);
    await keys.expect('vi');
    await replay(page, ['commit']);
    // There is always something to delete, also when nothing was typed here.
    await page.keyboard.press('Enter');
    await replay(page, ['delete 30']);
    await keys.expect(`\r${'\x7f'.repeat(30)}`);
    // With Ctrl it is a key, also out of the middle of a word.
    await key(page, 'Ctrl').click();
    await replay(page, ['compose c']);
    await replay(page, ['compose l', 'compose ls', 'commit']);
    await keys.expect('\x03ls');
    await key(page, 'Esc').click();
    assert.equal(await focused(page), 'Keys for the terminal');
    await keys.expect('\x1b');
  });

  await t.test('the browser’s own input method too', async () => {
    const own = await recorder(phone, 'own', '');
    const cdp = await page.context().newCDPSession(page);
    const composing = (text) => cdp.send('Input.imeSetComposition', { text, selectionStart: text.length, selectionEnd: text.length });
    await page.locator('.rows').click();
    for (const text of ['h', 'he', 'hel', 'help']) await composing(text);
    await own.expect('help');
    await cdp.send('Input.insertText', { text: 'helping' });
    await own.expect('ing');
    await cdp.send('Input.insertText', { text: ' out' });
    await own.expect(' out');
    for (const text of ['teh', 'the']) await composing(text);
    await cdp.send('Input.insertText', { text: 'the ' });
    assert.equal(lineOf(await own.take(/ $/)), 'the ');
  });

  await t.test('characters that are chosen from a list are seen at the cursor, and sent when they are chosen', async () => {
    await page.addInitScript(() => {
      const real = window.matchMedia.bind(window);
      // A tablet with a keyboard: nothing about it is coarse.
      window.matchMedia = (query) => real(query.replace('coarse', 'none'));
    });
    await page.reload();
    await page.locator('.rows').waitFor();
    const list = await recorder(phone, 'list', '');
    const cdp = await page.context().newCDPSession(page);
    const composing = (text) => cdp.send('Input.imeSetComposition', { text, selectionStart: text.length, selectionEnd: text.length });
    assert.equal(await focused(page), 'Keys for the terminal');
    for (const text of ['n', 'ni', 'ni h', 'ni hao']) await composing(text);
    await page.locator('.composing', { hasText: 'ni hao' }).waitFor();
    await picture(page, 'terminal-composing');
    await cdp.send('Input.insertText', { text: '你好' });
    await page.locator('.composing').waitFor({ state: 'hidden' });
    for (const text of ['に', 'にほ', 'にほん', '日本']) await composing(text);
    await cdp.send('Input.insertText', { text: '日本' });
    for (const text of ['ㅎ', '하', '한']) await composing(text);
    await cdp.send('Input.insertText', { text: '한' });
    await page.keyboard.press('Enter');
    await list.expect('你好日本한\r');
    // In the text field the browser shows it by itself.
    await page.getByRole('button', { name: 'Type key by key' }).click();
    await compose(page).click();
    for (const text of ['n', 'ni', 'ni hao']) await composing(text);
    assert.equal(await compose(page).inputValue(), 'ni hao');
    await picture(page, 'terminal-composing-line');
    await cdp.send('Input.insertText', { text: '你好' });
    await page.keyboard.press('Enter');
    await list.expect('你好\r');
  });

  assert.deepEqual(trouble.filter((line) => !/WebSocket connection to|ERR_CONNECTION_REFUSED/.test(line)), []);
});
