// What a program asks is on the phone with a button for each answer, answered once, and gone everywhere then.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { pairedPhone, picture, row } from './app.mjs';
import { waitUntil } from './terminal.mjs';

const ASKS = "printf 'Remove it? [y/n] '; read line; echo got=$line; sleep 600";

test('a question is answered on the phone', { timeout: 240_000 }, async (t) => {
  const { cli, page, trouble } = await pairedPhone(t, 'prompts');
  const card = (name, state) => page.locator('.cards:not(.stale) .row').filter({ hasText: name }).filter({ hasText: state });
  const asked = page.locator('.asked');

  await t.test('its session says that it waits, and the question has its answers', async () => {
    await cli('run', '-d', '--name', 'asks', '--', 'sh', '-c', ASKS);
    await card('asks', 'waits for you').waitFor();
    await card('asks', 'waits for you').locator('.card').click();
    await asked.waitFor();
    assert.match(await asked.textContent(), /Looks like a question.*Remove it\? \[y\/n\]/s);
    assert.deepEqual(await asked.locator('.button.wide').allTextContents(), ['Yes', 'No']);
    await picture(page, 'prompt');
  });

  await t.test('the answer is typed, and the question goes', async () => {
    await asked.getByRole('button', { name: 'Yes' }).click();
    await row(page, 'Remove it? [y/n] y');
    await row(page, 'got=y');
    await asked.waitFor({ state: 'detached' });
    assert.deepEqual(await cli('prompts'), []);
  });

  await t.test('what is answered at the machine goes on the phone too', async () => {
    await page.goBack();
    await cli('run', '-d', '--name', 'again', '--', 'sh', '-c', ASKS);
    await card('again', 'waits for you').waitFor();
    await card('again', 'waits for you').locator('.card').click();
    await asked.waitFor();
    await waitUntil(async () => (await cli('prompts')).length === 1, 'the question in the list of the machine', 60_000, () => 'no prompt');
    const [prompt] = await cli('prompts');
    assert.equal((await cli('answer', prompt.id, 'No')).by, 'this machine');
    await asked.waitFor({ state: 'detached' });
    await row(page, 'got=n');
  });

  await t.test('a tap meant for what stood there before answers nothing', async () => {
    await page.goBack();
    await cli('run', '-d', '--name', 'sudden', '--', 'sh', '-c', `echo ready; read line; ${ASKS}`);
    await card('sudden', 'running').waitFor();
    await card('sudden', 'running').locator('.card').click();
    await row(page, 'ready');
    await page.evaluate(() => {
      // The earliest moment at which a finger could hit the button.
      const watcher = new MutationObserver(() => {
        const button = document.querySelector('.asked .button.wide');
        if (!button) return;
        watcher.disconnect();
        globalThis.hit = { disabled: button.disabled };
        button.click();
      });
      watcher.observe(document.body, { subtree: true, childList: true });
    });
    await page.locator('.sendbutton').click();
    await asked.waitFor();
    const yes = asked.getByRole('button', { name: 'Yes' });
    await waitUntil(() => yes.isEnabled(), 'that it can be answered');
    assert.deepEqual(await page.evaluate(() => globalThis.hit), { disabled: true });
    assert.equal((await cli('prompts')).length, 1, 'it still waits');
    await yes.click();
    await row(page, 'got=y');
  });

  assert.deepEqual(trouble, []);
});
