// What is asked for while there is no connection is kept, shown, sent once, and can be taken back.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';

import { command, compose, connected, pairedPhone, picture, row, shell } from './app.mjs';
import { waitUntil } from './terminal.mjs';

const queue = (page) => page.locator('.queue li');
/** Kept: it is shown so when it is stored. */
const queued = (page) => queue(page).filter({ hasText: 'Queued.' });

test('commands without a connection are kept, sent once, and can be taken back', { timeout: 240_000 }, async (t) => {
  const { folder, home, cli, options, context, page: first, trouble } = await pairedPhone(t, 'outbox');
  let page = first;
  await shell(page);
  const address = page.url();

  // As the worst crash would. The session goes on, and nobody is there to be asked.
  const killDaemon = async () => {
    const { pid } = JSON.parse(await readFile(path.join(home, 'daemon.state.json'), 'utf8'));
    process.kill(pid, 'SIGKILL');
    await page.locator('.connection.good').waitFor({ state: 'detached' });
  };
  const startDaemon = async () => {
    await cli('daemon', 'start', ...options);
    await connected(page);
  };
  const marks = () => readFile(path.join(folder, 'marks'), 'utf8').catch(() => '');
  const mark = (text) => `echo ${text} >> ${path.join(folder, 'marks')}`;

  await t.test('what was queued survives a reload and is done once', async () => {
    await killDaemon();
    await command(page, mark('one'));
    await command(page, mark('two'));
    await queued(page).nth(1).waitFor();
    assert.equal(await queue(page).count(), 2);
    await picture(page, 'queued');
    await page.reload();
    await queue(page).nth(1).waitFor();
    await startDaemon();
    await queue(page).first().waitFor({ state: 'detached' });
    await waitUntil(async () => (await marks()) === 'one\ntwo\n', 'both marks, in order');
    await page.reload();
    await connected(page);
    await command(page, `${mark('three')}; echo three $((40+3))`);
    await row(page, 'three 43');
    assert.equal(await marks(), 'one\ntwo\nthree\n');
  });

  await t.test('what was taken back is not done', async () => {
    await killDaemon();
    await command(page, mark('never'));
    await page.getByRole('button', { name: 'Do not send this' }).click();
    await queue(page).waitFor({ state: 'detached' });
    await command(page, mark('four'));
    await queued(page).waitFor();
    await startDaemon();
    await waitUntil(async () => (await marks()).endsWith('four\n'), 'the mark');
    assert.equal(await marks(), 'one\ntwo\nthree\nfour\n');
  });

  await t.test('a page that crashes loses nothing that was queued', async () => {
    await killDaemon();
    await command(page, mark('five'));
    await queued(page).waitFor();
    const protocol = await context.newCDPSession(page);
    const crashed = page.waitForEvent('crash');
    protocol.send('Page.crash').catch(() => {});
    await crashed;
    page = await context.newPage();
    await first.close();
    await page.goto(address);
    await queue(page).waitFor();
    await startDaemon();
    await waitUntil(async () => (await marks()).endsWith('five\n'), 'the mark');
    await queue(page).waitFor({ state: 'detached' });
    assert.equal(await marks(), 'one\ntwo\nthree\nfour\nfive\n');
  });

  await t.test('a phone without a network queues as well', async () => {
    await context.setOffline(true);
    await page.locator('.connection.bad').waitFor();
    await compose(page).fill(mark('six'));
    await page.getByRole('button', { name: 'Send when connected' }).click();
    await context.setOffline(false);
    await waitUntil(async () => (await marks()).endsWith('six\n'), 'the mark');
    assert.equal(await marks(), 'one\ntwo\nthree\nfour\nfive\nsix\n');
  });

  await t.test('nothing was against the content security policy and nothing was thrown', () => {
    assert.deepEqual(trouble.filter((line) => !/WebSocket connection to|ERR_CONNECTION_REFUSED|ERR_INTERNET_DISCONNECTED/.test(line)), []);
  });
});
