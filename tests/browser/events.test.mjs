// What happened while there was no connection is on the screen when it is back, be it missed events or lists read anew.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';

import { connected, pairedPhone } from './app.mjs';

test('the list of sessions is right whatever broke in between', { timeout: 240_000 }, async (t) => {
  const { home, relay, cli, options, page, trouble } = await pairedPhone(t, 'events');
  const card = (name, state) => page.locator('.cards:not(.stale) .row').filter({ hasText: name }).filter({ hasText: state });
  const start = (name) => cli('run', '-d', '--name', name, '--', 'sleep', '600');
  const away = () => page.locator('.connection:not(.good)').waitFor();

  await t.test('what is told is shown at once', async () => {
    await start('session one');
    await card('session one', 'running').waitFor();
  });

  await t.test('what was told without a relay is shown when it is back', async () => {
    await relay.kill('SIGKILL');
    await away();
    const [one] = await cli('ls');
    await cli('kill', one.id);
    await start('session two');
    await relay.start();
    await connected(page);
    await card('session two', 'running').waitFor();
    await card('session one', 'ended by signal 1').waitFor();
    assert.equal(await page.locator('.cards .row').count(), 2);
  });

  await t.test('so is what only the lists of another daemon tell', async () => {
    const { pid } = JSON.parse(await readFile(path.join(home, 'daemon.state.json'), 'utf8'));
    process.kill(pid, 'SIGKILL');
    await away();
    await cli('daemon', 'start', ...options);
    await start('session three');
    await connected(page);
    await card('session three', 'running').waitFor();
    assert.equal(await page.locator('.cards .row').count(), 3);
  });

  await t.test('and what is told from then on', async () => {
    await start('session four');
    await card('session four', 'running').waitFor();
    await page.reload();
    await card('session four', 'running').waitFor();
    assert.equal(await page.locator('.cards .row').count(), 4);
  });

  assert.deepEqual(trouble.filter((line) => !/WebSocket connection to|ERR_CONNECTION_REFUSED/.test(line)), []);
});
