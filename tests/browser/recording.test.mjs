// What `happy record` writes plays in asciinema's player, and ends there with the screen of the session.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

import { openBrowser, program, scratch } from './system.mjs';
import { Terminal, waitUntil } from './terminal.mjs';

const bundle = (name) => createRequire(import.meta.url).resolve(`asciinema-player/dist/bundle/${name}`);

/**
 * Colours, wide characters and marks that join, then the same in another size, and the bottom of a screen of its own. Nothing has scrolled off
 * when the window grows: whether its new rows come from the history is each terminal's own choice.
 */
const PROGRAM = `
printf 'plain \\033[1;31mbold red\\033[0m \\033[38;5;208morange\\033[0m \\033[48;2;0;80;160mblue\\033[0m\\r\\n'
printf '界面 is wide, café and 한국어 too, 🎉 ends it\\r\\n\\033[4munder\\033[24m \\033[7minverse\\033[27m\\r\\n'
for n in $(seq 1 15); do printf 'row %d\\r\\n' $n; done
printf 'ready'
read line
for n in $(seq 16 40); do printf '\\033[3%dmrow %d 界面 café 한국어 🎉 %050d\\033[0m\\r\\n' $((n % 8)) $n $n; done
printf '\\033[2;80Hat 80\\033[25;1H%s in %s' "$line" "$(stty size)"
read line
printf '\\033[?1049h\\033[H\\033[3;5H\\033[32m%s\\033[0m\\033[26;85H界!' "$line"
read line
`;

/** What the player shows at the end of a recording: its size, and its rows as text. */
async function played(page, cast) {
  return page.evaluate(async (data) => {
    const place = document.body.appendChild(document.createElement('div'));
    const player = globalThis.AsciinemaPlayer.create({ data }, place, { autoPlay: true, speed: 50, idleTimeLimit: 0.1, fit: false });
    const trouble = new Promise((_, refuse) => player.addEventListener('error', refuse));
    await Promise.race([new Promise((resolve) => player.addEventListener('ended', resolve)), trouble]);
    // Two frames: what was printed last is drawn in the next one.
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    const rows = [...place.querySelectorAll('.ap-line')].map((line) => line.textContent);
    player.dispose();
    return rows;
  }, cast);
}

const trimmed = (rows) => rows.map((row) => row.replace(/[\u00a0 ]+$/, '')).join('\n').replace(/\n+$/, '');

test('a recording ends in another player with the screen of the session', { timeout: 240_000 }, async (t) => {
  const folder = await scratch(t);
  const env = { HAPPY_HOME_DIR: path.join(folder, 'home'), HOME: folder, SHELL: '/bin/bash', LANG: 'C.UTF-8' };
  const happy = program('happy');
  const cli = async (...words) => {
    const { stdout } = await promisify(execFile)(happy, words, { env: { ...process.env, ...env }, maxBuffer: 1 << 24 });
    return stdout;
  };
  await cli('daemon', 'start', '--api-port', '0', '--relay-port', '0');
  const session = async () => JSON.parse(await cli('--json', 'ls')).find(({ name }) => name === 'demo');
  const script = path.join(folder, 'program');
  await writeFile(script, PROGRAM);
  const [whole, later] = [path.join(folder, 'whole.cast'), path.join(folder, 'later.cast')];
  await cli('run', '-d', '--name', 'demo', '--record-to', whole, '--', 'bash', script);
  const shows = () => cli('export', 'demo', '--screen');
  const until = (text) => waitUntil(async () => (await shows()).includes(text), `“${text}” on the screen`, 60_000, shows);
  await until('ready');

  // Whoever looks and decides gives it another size.
  const viewer = await Terminal.open('recording', { cols: 90, rows: 26, env, cwd: folder, command: [happy, 'attach', '--take-control', 'demo'] });
  t.after(() => viewer.close());
  await waitUntil(async () => (await session()).cols === 90, 'the size of the viewer', 60_000, () => cli('ls'));
  await cli('type', 'demo', 'first');
  await until('first in 26 90');
  assert.equal((await session()).recording.file, whole);
  assert.match(await cli('ls'), /running, recorded/);

  const { context, page, trouble } = await openBrowser(folder, 'player', { viewport: { width: 1200, height: 900 } });
  t.after(() => context.close());
  await page.addStyleTag({ path: bundle('asciinema-player.css') });
  await page.addScriptTag({ path: bundle('asciinema-player.min.js') });

  await t.test('with colours, wide characters and another size', async () => {
    await cli('record', '--stop', 'demo');
    const rows = await played(page, await readFile(whole, 'utf8'));
    assert.equal(rows.length, 26);
    assert.equal(trimmed(rows), (await shows()).trimEnd());
    assert.match(trimmed(rows), /at 80[^]*界面 café 한국어 🎉 0{48}39\nfirst in 26 90/);
  });

  await t.test('when it was begun in the middle', async () => {
    await cli('record', 'demo', '--to', later);
    await cli('type', 'demo', 'second');
    await until('second');
    await until('!');
    await cli('record', '--stop', 'demo');
    const rows = await played(page, await readFile(later, 'utf8'));
    assert.equal(rows.length, 26);
    assert.equal(trimmed(rows), (await shows()).trimEnd());
  });

  await t.test('and the player had nothing to say against it', () => assert.deepEqual(trouble, []));
});
