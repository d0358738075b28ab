// What a person does with the app, and what the app shows.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

import { certificate, freePort, openBrowser, program, Relay, scratch } from './system.mjs';
import { film, photograph, Terminal, waitUntil } from './terminal.mjs';

/** Where the pictures in the documents come from; `cargo xtask screens` sets it, an ordinary run leaves the tree alone. */
const SCREENS = process.env.HAPPY_SCREENS;

/** Looks at the page in light and dark and puts the picture where the documents keep it. */
export async function picture(page, name) {
  if (!SCREENS) return;
  await mkdir(SCREENS, { recursive: true });
  // A notice comes over every screen, and goes by itself.
  await page.locator('.notice').waitFor({ state: 'detached' });
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    // Two frames: one for the styles, one for what they move.
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    await page.screenshot({ path: path.join(SCREENS, `${name}-${colorScheme}.png`), animations: 'disabled' });
  }
}

export const rowsOf = (page) => page.locator('.rows .row').allTextContents();
export const compose = (page) => page.getByLabel('Text to send to the terminal');

/** Types a line into the compose bar and sends it. */
export async function command(page, line) {
  await compose(page).fill(line);
  await page.locator('.sendbutton').click();
}

/** Waits until some row of the terminal, scrolled off or not, is exactly this. */
export async function row(page, text, ms = 60_000) {
  await waitUntil(async () => (await rowsOf(page)).some((line) => line.trimEnd() === text), `a row “${text}”`, ms,
    async () => (await rowsOf(page)).slice(-30).join('\n'));
}

export const connected = (page) => page.locator('.connection.good').waitFor();

/** Notes from now on what the status in the top bar says, and gives a way to read it: each state once, in order. */
export async function statesOf(page) {
  await page.evaluate(() => {
    const text = () => document.querySelector('.connection')?.textContent;
    globalThis.said = [text()];
    new MutationObserver(() => {
      if (text() && text() !== globalThis.said.at(-1)) globalThis.said.push(text());
    }).observe(document.body, { subtree: true, childList: true, characterData: true });
  });
  return () => page.evaluate(() => globalThis.said);
}

/** Scans what the camera sees, and hands the code that the app shows to whoever types it at the machine. */
export async function scanAndPair(page, terminal, { name, shots }) {
  await page.getByRole('button', { name: /Scan the code|Pair another machine/ }).click();
  if (shots) await picture(page, 'pair-start');
  await page.getByRole('button', { name: 'Start the camera' }).click();
  // The offer appears by itself: the code stands before the camera.
  const offer = page.getByRole('dialog', { name: 'Pair with this machine?' });
  await offer.waitFor();
  if (shots) await picture(page, 'pair-offer');
  await offer.getByLabel(/Name of this device/).fill('unnamed phone');
  await offer.getByRole('button', { name: 'Pair', exact: true }).click();
  const code = page.locator('.code');
  await code.waitFor();
  if (shots) await picture(page, 'pair-code');
  const digits = (await code.textContent()).replace(/\D/g, '');
  assert.match(digits, /^\d{6}$/);
  await terminal.waitFor(/shows a code/, 'that a device shows a code');
  await terminal.type(`${digits} ${name}`, 'Enter');
  await page.getByRole('button', { name: /New shell/ }).waitFor();
}

/**
 * A relay, a machine and a phone that has scanned the machine's code and shows its sessions. All of it ends with the test; `cli` runs a command of
 * the machine and gives what it says as JSON. `more` are variables for the machine's programs, `words` gives words for the browser once there is a relay.
 */
export async function pairedPhone(t, name, more = {}, words = async () => []) {
  const folder = await scratch(t);
  const tls = await certificate(folder);
  const relay = new Relay(await freePort(), tls);
  await relay.start();
  t.after(() => relay.kill());
  const home = path.join(folder, 'home');
  const env = { HAPPY_HOME_DIR: home, TMUX_TMPDIR: folder, SSL_CERT_FILE: tls.cert, HOME: folder, SHELL: '/bin/bash', PS1: '$ ', LANG: 'C.UTF-8', ...more };
  const happy = program('happy');
  const cli = async (...words) => {
    const { stdout } = await promisify(execFile)(happy, ['--json', ...words], { env: { ...process.env, ...env } });
    return JSON.parse(stdout);
  };
  const options = ['--relay', relay.origin, '--api-port', '0'];
  const up = await Terminal.open(name, { env, cwd: folder, command: [happy, 'up', ...options] });
  t.after(() => up.close());
  t.after(async () => {
    for (const session of await cli('ls').catch(() => [])) await cli('kill', session.id).catch(() => {});
    await cli('daemon', 'stop').catch(() => {});
  });
  await up.waitFor(/▀|▄|█/, 'a QR code');
  const picture = film(photograph(await up.coloured()));
  const { context, page, trouble } = await openBrowser(folder, name, { spki: tls.spki, film: picture, more: await words(relay) });
  t.after(() => context.close());
  await page.goto(relay.origin);
  await scanAndPair(page, up, { name: 'phone', shots: false });
  await connected(page);
  return { folder, home, relay, cli, options, up, context, page, trouble };
}

/** Opens a shell on the machine and waits until it answers. */
export async function shell(page) {
  await page.getByRole('button', { name: /New shell/ }).click();
  await compose(page).waitFor();
  await command(page, 'echo ready $((40+2))');
  await row(page, 'ready 42');
}
