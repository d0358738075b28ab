// `cargo xtask bench parse`: the phone's screen and xterm.js take the same bytes in the same page of Chromium. Ends with a line for each goal:
// `goal NAME VALUE UNIT BOUND met|missed`.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { chromium } from '../browser/node_modules/playwright-core/index.mjs';

const HERE = path.dirname(fileURLToPath(import.meta.url));
const [module, megabytes = '20', rounds = '3'] = process.argv.slice(2);
const FILES = {
  '/happy_phone.js': path.join(module, 'happy_phone.js'),
  '/happy_phone_bg.wasm': path.join(module, 'happy_phone_bg.wasm'),
  '/xterm.mjs': path.join(HERE, 'node_modules/@xterm/headless/lib-headless/xterm-headless.mjs'),
  '/unicode11.mjs': path.join(HERE, 'node_modules/@xterm/addon-unicode11/lib/addon-unicode11.mjs'),
};
const TYPES = { '.js': 'text/javascript', '.mjs': 'text/javascript', '.wasm': 'application/wasm' };
/** How much faster than xterm.js it shall be. */
const GOAL = 2;

const server = createServer(async (request, response) => {
  const file = FILES[request.url];
  if (!file) return response.writeHead(request.url === '/' ? 200 : 404, { 'content-type': 'text/html' }).end('<!doctype html><title>parse</title>');
  response.writeHead(200, { 'content-type': TYPES[path.extname(file)] }).end(await readFile(file));
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args: ['--no-sandbox', '--disable-gpu', '--no-first-run'],
});
try {
  const page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.evaluate(prepare, Number(megabytes));
  console.log(`${megabytes} MB each, 120×40, 5,000 rows of history, medians of ${rounds} rounds; Chromium ${browser.version()}, xterm.js 6.0.0`);
  console.log('MB/s            ours   xterm.js  without its pauses   ours / xterm.js');
  const goals = [];
  for (const kind of ['plain', 'colour', 'wide', 'redraw']) {
    const times = { ours: [], theirs: [], theirsAtOnce: [] };
    for (let round = 0; round < Number(rounds); round += 1) {
      const result = await page.evaluate((it) => globalThis.round(it), kind);
      assert.equal(result.ours.text, result.theirs.text, `${kind}: both must show the same in the end`);
      times.ours.push(result.ours.ms);
      times.theirs.push(result.theirs.ms);
      times.theirsAtOnce.push(result.theirsAtOnce.ms);
    }
    const middle = (all) => all.sort((a, b) => a - b)[all.length >> 1];
    const rate = (all) => (Number(megabytes) * 1_000) / middle(all);
    const [ours, theirs, atOnce] = [rate(times.ours), rate(times.theirs), rate(times.theirsAtOnce)];
    console.log(`${kind.padEnd(10)} ${ours.toFixed(1).padStart(9)} ${theirs.toFixed(1).padStart(10)} ${atOnce.toFixed(1).padStart(19)} ${(ours / theirs).toFixed(2).padStart(17)}`);
    goals.push([`parse-${kind}-over-xterm`, ours / theirs]);
  }
  for (const [name, ratio] of goals) console.log(`goal ${name} ${ratio.toFixed(2)} times ${GOAL} ${ratio >= GOAL ? 'met' : 'missed'}`);
} finally {
  await browser.close();
  server.close();
}

/** Runs in the page: makes the data, always the same, and what measures. */
async function prepare(megabytes) {
  const { default: init, Parser } = await import('/happy_phone.js');
  await init({ module_or_path: '/happy_phone_bg.wasm' });
  const { Terminal } = await import('/xterm.mjs');
  const { Unicode11Addon } = await import('/unicode11.mjs');
  const [cols, rows] = [120, 40];
  /** What one message carries at most. */
  const PIECE = 32 * 1024;
  const UNDER_WAY = 16;

  // A xorshift, so that every run has the same.
  let seed = 2463534242;
  const random = (below) => {
    seed ^= seed << 13;
    seed ^= seed >>> 17;
    seed ^= seed << 5;
    return (seed >>> 0) % below;
  };
  const WORDS = 'the request was served in while compiling crate error warning note expected found file line column thread main panicked at src lib connection closed by peer retry after seconds user session opened for root'.split(' ');
  const word = () => WORDS[random(WORDS.length)];
  const sgr = () => (random(10) === 0 ? `\x1b[38;2;${random(256)};${random(256)};${random(256)}m` : `\x1b[${random(2) ? 1 : 0};${30 + random(8)}m`);
  const CJK = '端末画面表示速度計測文字幅日本語中文漢字한국어터미널화면';
  const EMOJI = ['😀', '🚀', '🎉', '👍', '✨', '🔥'];
  let frame = 0;
  const kinds = {
    plain: () => `2026-11-22T10:${String(random(60)).padStart(2, '0')}:00Z ${word()} ${word()} ${word()} ${word()} ${random(100_000)}\r\n`,
    colour: () => `${Array.from({ length: 10 }, () => (random(100) < 35 ? `${sgr()}${word()}\x1b[0m` : word())).join(' ')}\r\n`,
    wide: () => `${Array.from({ length: 8 }, () => (random(6) === 0 ? EMOJI[random(EMOJI.length)] : Array.from({ length: 3 }, () => CJK[random(CJK.length)]).join(''))).join(' ')} ${word()}\r\n`,
    // What Ink does: takes the last lines back and writes them anew, between the marks of one update.
    redraw: () => {
      frame += 1;
      const lines = Array.from({ length: 12 }, (_, n) => `\x1b[2K\x1b[3${n % 8}m│\x1b[39m ${n === 3 ? `${'⠋⠙⠹⠸'[frame % 4]} working ${frame}` : `${word()} ${word()} ${word()}`}\r\n`);
      return `\x1b[?2026h\x1b[12A\x1b[G${lines.join('')}${frame % 20 === 0 ? `${word()} ${word()} is done\r\n` : ''}\x1b[?2026l`;
    },
  };
  const encoder = new TextEncoder();
  const made = new Map();
  const make = (kind) => {
    const data = new Uint8Array(megabytes * 1_000_000);
    seed = 2463534242;
    frame = 0;
    let at = 0;
    if (kind === 'redraw') at += encoder.encodeInto('\r\n'.repeat(12), data).written;
    while (at < data.length) {
      const piece = encoder.encode(kinds[kind]());
      if (at + piece.length > data.length) break;
      data.set(piece, at);
      at += piece.length;
    }
    return data.subarray(0, at);
  };
  const pieces = function* (data) {
    for (let at = 0; at < data.length; at += PIECE) yield data.subarray(at, at + PIECE);
  };
  const ours = (data) => {
    const parser = new Parser(cols, rows);
    const begun = performance.now();
    for (const piece of pieces(data)) parser.feed(piece);
    const ms = performance.now() - begun;
    const text = parser.text();
    parser.free();
    return { ms, text };
  };
  const theirTerminal = () => {
    const terminal = new Terminal({ cols, rows, scrollback: 5_000, allowProposedApi: true });
    terminal.loadAddon(new Unicode11Addon());
    terminal.unicode.activeVersion = '11';
    return terminal;
  };
  const textOf = ({ buffer }) => {
    const { active } = buffer;
    const lines = Array.from({ length: rows }, (_, row) => active.getLine(active.baseY + row)?.translateToString(true).trimEnd() ?? '');
    return lines.join('\n').replace(/\n+$/, '');
  };
  const theirs = async (data) => {
    const terminal = theirTerminal();
    const begun = performance.now();
    // It is told to go on when it has parsed what it has, as its documentation advises: half a megabyte is under way at most.
    let [waiting, room, wake] = [0, Promise.resolve(), () => {}];
    for (const piece of pieces(data)) {
      waiting += 1;
      if (waiting === UNDER_WAY) room = new Promise((done) => (wake = done));
      terminal.write(piece, () => {
        waiting -= 1;
        if (waiting < UNDER_WAY / 2) wake();
      });
      await room;
    }
    await new Promise((done) => terminal.write('', done));
    const ms = performance.now() - begun;
    const text = textOf(terminal);
    terminal.dispose();
    return { ms, text };
  };
  // Its parser alone: between two pieces it lets the page do other things.
  const theirsAtOnce = (data) => {
    const terminal = theirTerminal();
    const begun = performance.now();
    for (const piece of pieces(data)) terminal._core.writeSync(piece);
    const ms = performance.now() - begun;
    terminal.dispose();
    return { ms };
  };
  globalThis.round = async (kind) => {
    if (!made.has(kind)) {
      made.clear();
      made.set(kind, make(kind));
      // Both engines compile what they run often.
      ours(made.get(kind).subarray(0, 2_000_000));
      await theirs(made.get(kind).subarray(0, 2_000_000));
    }
    const data = made.get(kind);
    return { ours: ours(data), theirs: await theirs(data), theirsAtOnce: theirsAtOnce(data) };
  };
}
