// A machine whose local API is reached as its owner does.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

import { freePort, program, scratch } from './system.mjs';

export async function machine(t) {
  const folder = await scratch(t);
  const home = path.join(folder, 'home');
  const env = { ...process.env, HAPPY_HOME_DIR: home, TMUX_TMPDIR: folder, HOME: folder, SHELL: '/bin/bash', PS1: '$ ', LANG: 'C.UTF-8' };
  const happy = async (...words) => {
    const { stdout } = await promisify(execFile)(program('happy'), ['--json', ...words], { env, cwd: folder });
    return JSON.parse(stdout);
  };
  const port = await freePort();
  const start = () => happy('daemon', 'start', '--api-port', String(port), '--relay-port', '0');
  await start();
  t.after(() => happy('daemon', 'stop').catch(() => {}));
  // Another one with each start of the daemon.
  const token = async () => (await readFile(path.join(home, 'api.token'), 'utf8')).trim();
  const api = async (method, at, body) => {
    const headers = { authorization: `Bearer ${await token()}`, 'content-type': 'application/json' };
    const answer = await fetch(`http://127.0.0.1:${port}${at}`, { method, headers, body: body && JSON.stringify(body) });
    assert.ok(answer.ok, `${method} ${at}: ${answer.status}`);
    return answer.json();
  };
  t.after(async () => {
    for (const session of await api('GET', '/sessions').catch(() => [])) await api('DELETE', `/sessions/${session.id}`).catch(() => {});
  });
  const sh = (name, script, cwd = folder) => api('POST', '/sessions', { name, command: ['sh', '-c', script], cwd });
  return { folder, happy, port, start, api, sh };
}
