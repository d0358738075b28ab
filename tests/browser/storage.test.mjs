// What the browser keeps of this device: one tab at a time uses it, and what is lost, damaged or old is said, never papered over.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

import { command, compose, connected, picture, row, scanAndPair } from './app.mjs';
import { certificate, freePort, openBrowser, program, Relay, scratch } from './system.mjs';
import { film, photograph, Terminal, waitUntil } from './terminal.mjs';

/** Runs in the page: reaches the database of the app, and a copy beside it which the app does not know. */
function inStorage([task]) {
  const done = (request) =>
    new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
      request.onblocked = () => reject(new Error('the app holds its database open'));
    });
  const open = async (name, work) => {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => request.result.createObjectStore('vault');
    const database = await done(request);
    try {
      return await work(database);
    } finally {
      database.close();
    }
  };
  const readAll = (name) =>
    open(name, async (database) => {
      const store = database.transaction('vault').objectStore('vault');
      const [keys, values] = await Promise.all([done(store.getAllKeys()), done(store.getAll())]);
      return keys.map((key, i) => [key, values[i]]);
    });
  const writeAll = (name, entries) =>
    open(name, async (database) => {
      const store = database.transaction('vault', 'readwrite').objectStore('vault');
      await Promise.all([done(store.clear()), ...entries.map(([key, value]) => done(store.put(value, key)))]);
    });
  const tasks = {
    keep: async () => writeAll('copy', await readAll('happy')),
    restore: async () => writeAll('happy', await readAll('copy')),
    vanish: () => done(indexedDB.deleteDatabase('happy')),
    corrupt: async () => {
      const entries = await readAll('happy');
      const [, sealed] = entries.find(([key]) => key === 'state');
      new Uint8Array(sealed.bytes)[40] ^= 1;
      await writeAll('happy', entries);
    },
    names: async () => (await indexedDB.databases()).map(({ name }) => name).sort(),
    writer: async () => (await readAll('happy')).find(([key]) => key === 'writer')[1],
    state: async () => [...new Uint8Array((await readAll('happy')).find(([key]) => key === 'state')[1].bytes)].join(),
  };
  return tasks[task]();
}

const storage = (page, task) => page.evaluate(inStorage, [task]);
const trace = (page) => page.evaluate(() => localStorage.getItem('happy-state'));
/** A page of the same origin on which the app does not run. */
const beside = (page, relay) => page.goto(`${relay.origin}/beside`);
/**
 * Reloads, even right after the last reload: for a moment Chromium has committed the new document and not yet made it the page
 * that may be reloaded, and says so.
 */
async function reload(page, waitUntil) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await page.reload({ waitUntil });
    } catch (error) {
      if (tries === 20 || !error.message.includes('Not attached to an active page')) throw error;
    }
  }
}
const gate = (page, title) => page.getByRole('heading', { name: title }).waitFor();

test('two tabs, reloads, and storage that is lost, damaged, full or old', { timeout: 240_000 }, async (t) => {
  const folder = await scratch(t);
  const tls = await certificate(folder);
  const relay = new Relay(await freePort(), tls);
  await relay.start();
  t.after(() => relay.kill());
  const env = { HAPPY_HOME_DIR: path.join(folder, 'home'), TMUX_TMPDIR: folder, SSL_CERT_FILE: tls.cert, HOME: folder, SHELL: '/bin/bash', PS1: '$ ', LANG: 'C.UTF-8' };
  const happy = program('happy');
  const cli = async (...words) => {
    const { stdout } = await promisify(execFile)(happy, ['--json', ...words], { env: { ...process.env, ...env } });
    return JSON.parse(stdout);
  };
  const up = await Terminal.open('storage', { env, cwd: folder, command: [happy, 'up', '--relay', relay.origin, '--api-port', '0'] });
  t.after(() => up.close());
  t.after(async () => {
    for (const session of await cli('ls').catch(() => [])) await cli('kill', session.id).catch(() => {});
  });
  await up.waitFor(/▀|▄|█/, 'a QR code');
  const { context, page, trouble } = await openBrowser(folder, 'storage', { spki: tls.spki, film: film(photograph(await up.coloured())) });
  t.after(() => context.close());
  await context.route('**/beside', (route) => route.fulfill({ contentType: 'text/html', body: '<link rel="icon" href="data:,">' }));
  await page.goto(relay.origin);
  await scanAndPair(page, up, { name: 'phone', shots: false });
  await connected(page);

  await t.test('a second tab neither connects nor writes, until it takes over', async () => {
    const second = await context.newPage();
    let sockets = 0;
    second.on('websocket', () => (sockets += 1));
    // Whoever writes has claimed the storage before, under a name of its own.
    const before = await storage(page, 'writer');
    await second.goto(relay.origin);
    await gate(second, 'Open in another tab');
    await picture(second, 'other-tab');
    assert.equal(sockets, 0, 'it has no connection');
    assert.equal(await storage(page, 'writer'), before, 'it has written nothing');
    await second.getByRole('button', { name: 'Use it here' }).click();
    await connected(second);
    await gate(page, 'Moved to another tab');
    assert.equal(await page.locator('.connection').count(), 0);
    await page.getByRole('button', { name: 'Use it here' }).click();
    await connected(page);
    await gate(second, 'Moved to another tab');
    await second.close();
  });

  await t.test('a browser without locks says what that means, and the last tab is the one that works', async () => {
    const first = await context.newPage();
    await page.goto('about:blank');
    const noLocks = () => Object.defineProperty(navigator, 'locks', { value: undefined });
    await first.addInitScript(noLocks);
    await first.goto(relay.origin);
    await connected(first);
    await first.getByText('cannot tell whether the app is open in another tab').waitFor();
    const second = await context.newPage();
    await second.addInitScript(noLocks);
    await second.goto(relay.origin);
    await connected(second);
    // Its next write finds that another tab has claimed the storage.
    await gate(first, 'Moved to another tab');
    await first.close();
    await second.close();
    await page.goto(relay.origin);
    await connected(page);
  });

  await t.test('ten reloads in the middle of everything, and an echo', async () => {
    await page.getByText('online', { exact: true }).waitFor();
    await page.locator('.card').first().click();
    await page.getByRole('button', { name: /New shell/ }).click();
    await compose(page).waitFor();
    for (let i = 0; i < 10; i += 1) {
      await reload(page, i % 2 ? 'load' : 'commit');
      // Each time a little later in its start: before the state is loaded, while it is stored, while keys are agreed on.
      if (i > 3) await page.locator('.gate[aria-busy], .topbar').first().waitFor();
      if (i > 6) await page.locator('.topbar').waitFor();
    }
    await connected(page);
    await command(page, 'echo still $((40+2))');
    await row(page, 'still 42');
  });

  await t.test('a browser that does not store says so, and a reload still connects', async () => {
    await page.addInitScript(() => {
      if (!sessionStorage.getItem('full')) return;
      let states = 0;
      const put = IDBObjectStore.prototype.put;
      IDBObjectStore.prototype.put = function (value, key) {
        const request = put.call(this, value, key);
        // The first is what the page needs to start; then the disk is full.
        if (key === 'state' && (states += 1) > 1) this.transaction.abort();
        return request;
      };
    });
    await page.evaluate(() => sessionStorage.setItem('full', '1'));
    await page.reload();
    await page.locator('.notice.bad', { hasText: 'did not store the newest keys' }).waitFor();
    await connected(page);
    await page.evaluate(() => sessionStorage.removeItem('full'));
    await page.reload();
    await connected(page);
    await compose(page).waitFor();
    await command(page, 'echo stored $((40+3))');
    await row(page, 'stored 43');
  });

  await t.test('a lost trace is said, and left anew', async () => {
    await page.evaluate(() => localStorage.removeItem('happy-state'));
    await page.reload();
    await page.locator('.notice.bad', { hasText: 'lost a part of what it stored' }).waitFor();
    await connected(page);
    assert.match(await trace(page), /^[\w-]{43}\.\d+$/);
  });

  await t.test('a damaged state is said and not touched', async () => {
    await beside(page, relay);
    await storage(page, 'keep');
    await storage(page, 'corrupt');
    const before = [await storage(page, 'state'), await trace(page)];
    await page.goto(relay.origin);
    await gate(page, 'The stored keys cannot be read');
    await picture(page, 'storage-damaged');
    await page.getByRole('button', { name: 'Try again' }).click();
    await gate(page, 'The stored keys cannot be read');
    assert.deepEqual([await storage(page, 'state'), await trace(page)], before);
    await beside(page, relay);
    await storage(page, 'restore');
    await page.goto(relay.origin);
    await connected(page);
  });

  await t.test('a vanished database is said, and none is made in its place', async () => {
    await beside(page, relay);
    await storage(page, 'keep');
    await storage(page, 'vanish');
    const left = await trace(page);
    await page.goto(relay.origin);
    await gate(page, 'The keys of this device are gone');
    await page.getByText(left.slice(0, 8)).waitFor();
    await picture(page, 'storage-gone');
    assert.deepEqual(await storage(page, 'names'), ['copy']);
    assert.equal(await trace(page), left);
    await beside(page, relay);
    await storage(page, 'restore');
    await page.goto(relay.origin);
    await connected(page);
  });

  await t.test('an old copy is said, refused by the machine, and left for a new start', async () => {
    await beside(page, relay);
    await storage(page, 'keep');
    for (let i = 0; i < 3; i += 1) {
      const left = await trace(page);
      await page.goto(relay.origin);
      await connected(page);
      // The start stores once; the handshake stores what it left.
      const generation = (text) => Number(text.split('.')[1]);
      await waitUntil(async () => generation(await trace(page)) >= generation(left) + 2, 'the new keys to be stored');
      await beside(page, relay);
    }
    await storage(page, 'restore');
    const before = await storage(page, 'state');
    await page.goto(relay.origin);
    await gate(page, 'These keys are an old copy');
    await picture(page, 'storage-old');
    assert.equal(await storage(page, 'state'), before, 'nothing is written before a person decides');
    await page.getByRole('button', { name: 'Go on with it' }).click();
    await page.locator('.connection', { hasText: 'Old keys' }).waitFor();
    await page.locator('.card').first().click();
    await page.getByRole('button', { name: 'Pair again' }).waitFor();
    await page.getByText('come from an older copy').waitFor();
    await picture(page, 'old-keys');
    await page.getByRole('button', { name: 'Back' }).click();
    await page.getByRole('button', { name: 'Settings' }).click();
    await page.getByRole('button', { name: 'Forget everything here' }).click();
    await page.getByRole('button', { name: 'Forget it' }).click();
    await page.getByRole('button', { name: 'Scan the code' }).waitFor();
  });

  await t.test('nothing was against the content security policy and nothing was thrown', () => {
    assert.deepEqual(trouble.filter((line) => !/WebSocket connection to|ERR_CONNECTION_REFUSED/.test(line)), []);
  });
});
