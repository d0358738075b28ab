// A machine that is away: what it was, since when it is gone, and whether it said so.

import assert from 'node:assert/strict';
import { hostname } from 'node:os';
import { test } from 'node:test';

import { connected, pairedPhone, picture } from './app.mjs';

test('a phone shows what a machine said of itself, and that it is away', { timeout: 240_000 }, async (t) => {
  const { cli, options, page, relay, trouble } = await pairedPhone(t, 'away');
  const about = page.getByRole('region', { name: 'About this machine' });
  const shows = (text) => about.filter({ hasText: text }).waitFor().catch(async (error) => {
    throw new Error(`it shows “${await page.locator('body').innerText()}” and not “${text}”`, { cause: error });
  });

  await t.test('host, version and status of a machine that is here', async () => {
    await shows('online');
    await shows(hostname());
    await shows((await cli('daemon', 'status')).version);
    await picture(page, 'machine');
  });

  await t.test('one that stops says so, and a phone that is opened later knows', async () => {
    await cli('daemon', 'stop');
    await shows('offline, last seen just now');
    await shows('It has said that it stops: at the machine.');
    await page.reload();
    await shows('offline, last seen');
    await shows(hostname());
    await picture(page, 'machine-offline');
    await page.getByRole('button', { name: 'Back' }).click();
    await page.locator('.card').filter({ hasText: 'offline, last seen' }).waitFor();
    await picture(page, 'machines-offline');
  });

  await t.test('when it is back it is online', async () => {
    await cli('daemon', 'start', ...options);
    await page.locator('.card').filter({ hasText: 'online' }).click();
    await connected(page);
    await shows('online');
    assert.equal(await about.getByText('offline').count(), 0);
  });

  /** The page is somewhere else while this happens, and knows nothing of it. */
  const unseen = async (happens) => {
    await page.goto('about:blank');
    await happens();
    await page.goto(relay.origin);
  };

  await t.test('one that stopped while the page was closed is known to have stopped', async () => {
    await unseen(() => cli('daemon', 'stop'));
    await page.locator('.card').filter({ hasText: 'offline, last seen' }).click();
    await shows('It has said that it stops: at the machine.');
  });

  await t.test('one that died without a word while the page was closed is away, and nobody knows why', async () => {
    await cli('daemon', 'start', ...options);
    await connected(page);
    await shows('online');
    const { pid } = await cli('daemon', 'status');
    await unseen(async () => process.kill(pid, 'SIGKILL'));
    await page.locator('.card').filter({ hasText: 'away, last seen' }).click();
    await shows('It has not said that it stops');
    await shows(hostname());
  });

  // While the daemon is away nothing is wrong with the page.
  assert.deepEqual(trouble, []);
});
