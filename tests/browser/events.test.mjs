// What happened while there was no connection is on the screen when it is back, be it missed events or lists read anew.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';

import { connected, pairedPhone, shell } from './app.mjs';

test('the list of sessions is right whatever broke in between', { timeout: 240_000 }, async (t) => {
  const { home, relay, cli, options, page, trouble } = await pairedPhone(t, 'events', { HAPPY_LOG: 'info,happy=debug' });
  const card = (name, state) => page.locator('.cards:not(.stale) .row').filter({ hasText: name }).filter({ hasText: state });
  const start = (name) => cli('run', '-d', '--name', name, '--', 'sleep', '600');
  const away = () => page.locator('.connection:not(.good)').waitFor();

  /** How often the phone has called these so far, as the machine has written down. */
  const calls = async (...methods) => {
    const log = await readFile(path.join(home, 'logs', 'daemon.log'), 'utf8');
    const byThePhone = log.split('\n').filter((line) => line.includes(' a call ') && !line.includes('device=local'));
    return byThePhone.filter((line) => methods.some((method) => line.includes(`method="${method}"`))).length;
  };
  const lists = () => calls('session.list', 'device.list');

  await t.test('what is told is shown at once', async () => {
    await start('session one');
    await card('session one', 'running').waitFor();
  });

  await t.test('what was missed comes without a list being asked for', async () => {
    const before = { lists: await lists(), follow: await calls('events.follow') };
    assert.ok(before.lists > 0, 'the log tells of lists');
    await relay.kill('SIGKILL');
    await away();
    await start('session zero');
    await relay.start();
    await connected(page);
    await card('session zero', 'running').waitFor();
    // What the phone would ask for with that answer is here before it shows what is told now.
    const [zero] = (await cli('ls')).filter((session) => session.name === 'session zero');
    await cli('kill', zero.id);
    await card('session zero', 'ended by signal 1').waitFor();
    assert.ok((await calls('events.follow')) > before.follow);
    assert.equal(await lists(), before.lists);
    await cli('kill', zero.id);
    await card('session zero', 'ended').waitFor({ state: 'detached' });
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
    const before = await lists();
    const { pid } = JSON.parse(await readFile(path.join(home, 'daemon.state.json'), 'utf8'));
    process.kill(pid, 'SIGKILL');
    await away();
    await cli('daemon', 'start', ...options);
    await start('session three');
    await connected(page);
    await card('session three', 'running').waitFor();
    assert.equal(await page.locator('.cards .row').count(), 3);
    assert.ok((await lists()) > before, 'the events of another daemon say nothing of what was');
  });

  await t.test('and what is told from then on', async () => {
    await start('session four');
    await card('session four', 'running').waitFor();
    await page.reload();
    await card('session four', 'running').waitFor();
    assert.equal(await page.locator('.cards .row').count(), 4);
  });

  // A command says until when it may begin, by the machine's clock; by what the phone knew of it before, this one would come an hour late.
  await t.test('a phone whose clock is set back asks what time it is at the machine, and its commands are in time', async () => {
    const before = await calls('machine.info');
    await page.evaluate(() => {
      const now = Date.now;
      Date.now = () => now.call(Date) - 3_600_000;
    });
    await shell(page);
    assert.equal(await calls('machine.info'), before + 1);
  });

  assert.deepEqual(trouble.filter((line) => !/WebSocket connection to|ERR_CONNECTION_REFUSED/.test(line)), []);
});
