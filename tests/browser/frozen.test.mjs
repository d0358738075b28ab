// Phones stop pages without a word and start them again minutes later. Then the page is live at once, whatever became of its connection.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';

import { command, compose, connected, pairedPhone, shell } from './app.mjs';

/** How long the page stands still, and how soon it shows what happened meanwhile. */
const FROZEN = 60_000;
const LIVE = 1_000;

/** Stops the processes that run pages while `happens` goes on, and gives how long after that the terminal shows the line. */
async function thawedAfter(context, page, line, happens) {
  const browser = await context.browser().newBrowserCDPSession();
  const { processInfo } = await browser.send('SystemInfo.getProcessInfo');
  const pages = processInfo.filter(({ type }) => type === 'renderer').map(({ id }) => id);
  await page.evaluate((text) => {
    globalThis.shown = undefined;
    globalThis.ticks = [Date.now()];
    setInterval(() => globalThis.ticks.push(Date.now()), 50);
    const shown = () => [...document.querySelectorAll('.rows .row')].some((row) => row.textContent.trimEnd() === text);
    const look = new MutationObserver(() => {
      if (!shown()) return;
      look.disconnect();
      globalThis.shown = Date.now();
    });
    look.observe(document.body, { subtree: true, childList: true, characterData: true });
  }, line);
  pages.forEach((id) => process.kill(id, 'SIGSTOP'));
  try {
    await happens();
  } finally {
    pages.forEach((id) => process.kill(id, 'SIGCONT'));
  }
  const thawed = Date.now();
  await page.waitForFunction(() => globalThis.shown);
  const [shown, ticks] = await page.evaluate(() => [globalThis.shown, globalThis.ticks]);
  const gap = Math.max(...ticks.map((at, i) => at - (ticks[i - 1] ?? at)));
  return { took: shown - thawed, gap };
}

test('a page that stood still is live at once', { timeout: 300_000 }, async (t) => {
  const { relay, context, page, trouble } = await pairedPhone(t, 'frozen');
  await shell(page);

  await t.test(`after ${FROZEN / 1_000} s`, async () => {
    await command(page, `sleep ${FROZEN / 1_000 - 5}; echo late $((40+2))`);
    const { took, gap } = await thawedAfter(context, page, 'late 42', () => pause(FROZEN));
    t.diagnostic(`live ${took} ms after it was thawed`);
    assert.ok(gap >= FROZEN - 1_000, `the page stood still for ${gap} ms only`);
    assert.ok(took <= LIVE, `what was printed meanwhile showed after ${took} ms`);
    await connected(page);
    await command(page, 'echo typed $((40+3))');
    await page.locator('.rows .row', { hasText: /^typed 43\s*$/ }).waitFor();
  });

  await t.test('when its connection has died meanwhile', async () => {
    // Printed when the relay is there again and the page still stands still.
    await command(page, 'sleep 4; echo again $((40+4))');
    const { took, gap } = await thawedAfter(context, page, 'again 44', async () => {
      await relay.kill();
      await relay.start();
      await pause(6_000);
    });
    t.diagnostic(`live ${took} ms after it was thawed, with a new connection`);
    assert.ok(gap >= 5_000, `the page stood still for ${gap} ms only`);
    assert.ok(took <= LIVE, `what was printed meanwhile showed after ${took} ms`);
    assert.equal(await compose(page).inputValue(), '');
  });

  await t.test('nothing was against the content security policy and nothing was thrown', () => {
    assert.deepEqual(trouble.filter((line) => !/WebSocket connection to|ERR_CONNECTION/.test(line)), []);
  });
});
