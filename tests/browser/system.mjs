// The real processes of a test: a relay of its own on https, a browser that trusts its certificate, and their end.

import { execFile, spawn } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { chromium } from 'playwright-core';

const run = promisify(execFile);

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const TARGET = process.env.CARGO_TARGET_DIR ?? path.join(ROOT, 'target');
const PROFILE = process.env.HAPPY_TEST_PROFILE ?? 'debug';
export const program = (name) => path.join(TARGET, PROFILE, name);

/** A folder for one test, gone with it, and with it the daemons and sessions that live there: they outlive whoever started them by design. */
export async function scratch(test) {
  const folder = await mkdtemp(path.join(tmpdir(), 'happy-browser-'));
  test.after(async () => {
    await endProcesses(folder);
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  });
  return folder;
}

async function endProcesses(folder) {
  const processes = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  for (const id of processes) {
    // Those that end meanwhile, and those that are not ours to look at, have none.
    const strings = async (file) => (await readFile(`/proc/${id}/${file}`, 'utf8').catch(() => '')).split('\0');
    const [words, variables] = [await strings('cmdline'), await strings('environ')];
    const isHolder = words.includes('holder') && words.some((word) => word.startsWith(folder));
    const isDaemon = words.includes('daemon') && variables.some((variable) => variable.startsWith(`HAPPY_HOME_DIR=${folder}`));
    if (!isHolder && !isDaemon) continue;
    try {
      process.kill(Number(id), 'SIGKILL');
    } catch {
      // It has ended by itself.
    }
  }
}

/** A port that nothing listens on at the moment of asking. */
export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A certificate for `localhost`, and the hash by which a browser may be told to trust this one and no other. */
export async function certificate(folder) {
  const [cert, key] = [path.join(folder, 'cert.pem'), path.join(folder, 'key.pem')];
  await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '7',
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1',
    '-addext', 'basicConstraints=critical,CA:FALSE', '-addext', 'extendedKeyUsage=serverAuth', '-keyout', key, '-out', cert]);
  const spki = new X509Certificate(await readFile(cert)).publicKey.export({ type: 'spki', format: 'der' });
  return { cert, key, spki: createHash('sha256').update(spki).digest('base64') };
}

/** A relay process that can be killed and started again on the same port. */
export class Relay {
  #child;

  constructor(port, { cert, key }) {
    this.port = port;
    this.origin = `https://localhost:${port}`;
    this.words = ['serve', '--listen', `127.0.0.1:${port}`, '--tls-cert', cert, '--tls-key', key];
    this.log = '';
  }

  async start() {
    this.#child = spawn(program('happy-relay'), this.words, { stdio: ['ignore', 'pipe', 'pipe'] });
    const child = this.#child;
    await new Promise((resolve, reject) => {
      const hear = (bytes) => {
        this.log += bytes;
        if (String(bytes).includes(String(this.port))) resolve();
      };
      child.stdout.on('data', hear);
      child.stderr.on('data', hear);
      child.once('exit', (code) => reject(new Error(`the relay ended with ${code}: ${this.log}`)));
    });
  }

  async kill(signal = 'SIGKILL') {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await ended;
  }
}

/** A browser with an empty profile that trusts one certificate more, and sees a film through its camera. */
export async function openBrowser(folder, name, { spki, film, viewport = { width: 390, height: 844 }, colorScheme = 'dark', more = [] }) {
  const words = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', `--ignore-certificate-errors-spki-list=${spki}`, ...more];
  if (film) {
    const file = path.join(folder, `${name}.y4m`);
    await writeFile(file, film);
    words.push('--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream', `--use-file-for-fake-video-capture=${file}`);
  }
  const context = await chromium.launchPersistentContext(path.join(folder, `${name}-profile`), {
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: words,
    viewport,
    colorScheme,
    hasTouch: true,
    isMobile: true,
    deviceScaleFactor: 2,
    permissions: ['clipboard-read', 'clipboard-write'],
  });
  const page = context.pages()[0] ?? (await context.newPage());
  page.setDefaultTimeout(30_000);
  const trouble = [];
  page.on('pageerror', (error) => trouble.push(`page error: ${error}`));
  page.on('console', (message) => {
    if (message.type() === 'error') trouble.push(`console: ${message.text()}`);
  });
  return { context, page, trouble };
}
