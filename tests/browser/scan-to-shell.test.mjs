// From the QR code on a real terminal to a shell in a real browser, and on through everything that usually breaks it.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';

import { command, compose, connected, picture, row, rowsOf, scanAndPair, statesOf } from './app.mjs';
import { certificate, freePort, openBrowser, program, Relay, ROOT, scratch } from './system.mjs';
import { film, photograph, Terminal, waitUntil } from './terminal.mjs';

test('scan, shell, vim, reload, a dead relay, a second browser, revocation', { timeout: 420_000 }, async (t) => {
  // Hooks run in this order: sessions outlive the daemon, so they are ended, then taken off the list, while there still is one to ask.
  const endSessions = async () => {
    const sessions = await cli('ls');
    for (const session of sessions) await cli('kill', session.id);
    return sessions.length === 0;
  };
  t.after(() => waitUntil(endSessions, 'the sessions to be gone', 10_000).catch(() => {}));
  const folder = await scratch(t);
  const tls = await certificate(folder);
  const relay = new Relay(await freePort(), tls);
  await relay.start();
  t.after(() => relay.kill());

  const home = path.join(folder, 'home');
  const env = { HAPPY_HOME_DIR: home, TMUX_TMPDIR: folder, SSL_CERT_FILE: tls.cert, HOME: folder, SHELL: '/bin/bash', PS1: '$ ', LANG: 'C.UTF-8' };
  const happy = program('happy');
  const up = await Terminal.open('up', { env, cwd: folder, command: [happy, 'up', '--relay', relay.origin, '--api-port', '0'] });
  t.after(() => up.close());
  await up.waitFor(/▀|▄|█/, 'a QR code');
  await up.waitFor(/code/i, 'where to type the code');
  const cli = async (...words) => {
    const { execFile } = await import('node:child_process');
    const { promisify } = await import('node:util');
    const { stdout } = await promisify(execFile)(happy, ['--json', ...words], { env: { ...process.env, ...env } });
    return JSON.parse(stdout);
  };

  const first = await openBrowser(folder, 'first', { spki: tls.spki, film: film(photograph(await up.coloured())) });
  t.after(() => first.context.close());
  const { page } = first;

  await t.test('the code on the terminal is scanned and the number typed at the machine', async () => {
    await page.goto(relay.origin);
    await page.getByRole('button', { name: 'Scan the code' }).waitFor();
    await picture(page, 'machines-empty');
    await scanAndPair(page, up, { name: 'Ada’s phone', shots: true });
    await up.waitFor(/Ada.s phone is paired/, 'that the phone is paired under the name typed');
    await connected(page);
    await picture(page, 'sessions-empty');
  });

  await t.test('a shell opens and echoes', async () => {
    await page.getByRole('button', { name: /New shell/ }).click();
    await compose(page).waitFor();
    await command(page, "PS1='$ '; echo $((6*7)) is the answer");
    await row(page, '42 is the answer');
    await connected(page);
    await picture(page, 'terminal');
  });

  await t.test('vim inserts, saves and quits', async () => {
    await command(page, 'vim -u NONE note.txt');
    // The empty file of vim: a column of tildes.
    await row(page, '~');
    await page.locator('.rows').focus();
    await page.keyboard.type('iwritten with a thumb');
    await row(page, 'written with a thumb');
    await picture(page, 'terminal-vim');
    await page.getByRole('button', { name: 'Esc', exact: true }).click();
    await page.locator('.rows').focus();
    await page.keyboard.type(':wq');
    await page.keyboard.press('Enter');
    await row(page, '$');
    assert.equal(await readFile(path.join(folder, 'note.txt'), 'utf8').catch(() => readFile(path.join(process.env.HOME, 'note.txt'), 'utf8')),
      'written with a thumb\n');
  });

  await t.test('a hundred thousand lines end with the last one', async () => {
    await command(page, 'clear; seq 1 100000; echo "seq is" done');
    await row(page, 'seq is done', 120_000);
    const rows = (await rowsOf(page)).map((line) => line.trimEnd());
    const at = rows.lastIndexOf('seq is done');
    assert.deepEqual(rows.slice(at - 3, at), ['99998', '99999', '100000']);
  });

  await t.test('after a reload the same session is there', async () => {
    await command(page, 'marker=kept-$((1000+337)); echo $marker');
    await row(page, 'kept-1337');
    const before = page.url();
    await page.reload();
    await compose(page).waitFor();
    await row(page, 'kept-1337');
    assert.equal(page.url(), before);
    await command(page, 'echo "$marker again"');
    await row(page, 'kept-1337 again');
    assert.equal((await cli('ls')).length, 1, 'the reload made no second session');
  });

  await t.test('every number once and in order although the relay dies', async () => {
    await command(page, "clear; for i in $(seq 1 400); do printf 'n-%03d\\n' $i; sleep 0.02; done; echo count is done");
    await row(page, 'n-040');
    await relay.kill('SIGKILL');
    await page.locator('.connection:not(.good)').waitFor();
    await picture(page, 'terminal-relay-away');
    await relay.start();
    await row(page, 'count is done', 60_000);
    const numbers = (await rowsOf(page)).map((line) => line.trimEnd()).filter((line) => /^n-\d{3}$/.test(line));
    assert.deepEqual(numbers, Array.from({ length: 400 }, (_, i) => `n-${String(i + 1).padStart(3, '0')}`));
    await connected(page);
  });

  let second;
  await t.test('a second browser sees the same live terminal', async () => {
    const pair = await Terminal.open('pair', { env, cwd: folder, command: [happy, 'pair', '--role', 'operator'] });
    t.after(() => pair.close());
    await pair.waitFor(/▀|▄|█/, 'a QR code');
    second = await openBrowser(folder, 'second', {
      spki: tls.spki, film: film(photograph(await pair.coloured())), viewport: { width: 360, height: 740 }, colorScheme: 'light',
    });
    t.after(() => second.context.close());
    await second.page.goto(relay.origin);
    await scanAndPair(second.page, pair, { name: 'tablet', shots: false });
    await second.page.locator('.card').first().click();
    await row(second.page, 'count is done');
    await command(page, 'echo from the first $((40+2))');
    await row(second.page, 'from the first 42');
    await command(second.page, 'echo from the second $((40+3))');
    await row(page, 'from the second 43');
    await picture(second.page, 'second-terminal');
    await page.goBack();
    await page.locator('.card').first().waitFor();
    await picture(page, 'sessions');
    await page.goBack();
    await page.getByText('online', { exact: true }).waitFor();
    await picture(page, 'machines');
  });

  await t.test('a revoked device is told so and refused from then on', async () => {
    await page.locator('.card').first().click();
    await page.getByRole('button', { name: 'Devices of this machine' }).click();
    await page.getByText('tablet').waitFor();
    await picture(page, 'devices');
    await page.locator('li', { hasText: 'tablet' }).getByRole('button', { name: 'Remove' }).click();
    await picture(page, 'device-remove');
    const refused = second.page.locator('.connection', { hasText: 'Removed' });
    const said = await statesOf(second.page);
    await page.getByRole('dialog', { name: 'Remove tablet for good?' }).getByRole('button', { name: 'Remove' }).click();
    await refused.waitFor();
    assert.deepEqual(await said(), ['Connected', 'Removed'], 'it is told at once, and does not try to connect again');
    const offersTheWayBack = async () => {
      await second.page.getByRole('button', { name: 'Start anew' }).waitFor();
      assert.equal(await second.page.locator('.spinner, .keybar, .compose').count(), 0, 'nothing waits and nothing can be typed');
      assert.equal(await second.page.locator('.notice.bad').count(), 0, 'what failed because of it is not told on top');
    };
    await offersTheWayBack();
    await picture(second.page, 'removed-while-open');
    await second.page.reload();
    await refused.waitFor();
    await offersTheWayBack();
    await picture(second.page, 'refused');
    assert.ok((await cli('devices')).devices.some((device) => device.name === 'tablet' && device.removed_at), 'the tombstone is listed');
    await second.page.getByRole('button', { name: 'Start anew' }).click();
    await picture(second.page, 'start-anew');
    await second.page.getByRole('dialog', { name: 'Start anew?' }).getByRole('button', { name: 'Start anew' }).click();
    await second.page.getByRole('button', { name: 'Scan the code' }).waitFor();
    // The other device is not concerned.
    await page.goBack();
    await connected(page);
    await page.goBack();
    await page.getByRole('button', { name: 'Settings' }).click();
    await picture(page, 'settings');
  });

  await t.test('nothing was against the content security policy and nothing was thrown', () => {
    const trouble = [...first.trouble, ...second.trouble].filter((line) => !/WebSocket connection to|ERR_CONNECTION_REFUSED/.test(line));
    assert.deepEqual(trouble, []);
  });
});
