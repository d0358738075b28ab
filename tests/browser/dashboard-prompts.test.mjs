// Programs that wait for a person, on the dashboard: seen, answered one by one and together, and never by accident. And the way into their terminals.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { picture, row } from './app.mjs';
import { machine } from './machine.mjs';
import { openBrowser } from './system.mjs';
import { waitUntil } from './terminal.mjs';

const WIDE = { width: 1280, height: 900 };
const NARROW = { width: 390, height: 844 };

const asks = (question) => `printf '${question} [y/n] '; read line; echo got=$line; sleep 900`;
/** As agents draw it: the answer is a key, without Enter. */
const menu = (question, choices) => {
  const rows = choices.map((choice, at) => `${at === 0 ? ' ❯' : '  '} ${at + 1}. ${choice}`);
  const lines = ['', ` ${question}`, ...rows, '', ' Esc to cancel'].map((line) => `'${line.replaceAll("'", `'\\''`)}'`);
  return `stty raw -echo; printf '\\033[?25l'; printf '%s\\r\\n' ${lines.join(' ')}; key=$(dd bs=1 count=1 2>/dev/null); stty sane; echo got=$key; sleep 900`;
};
const AGENT = ['Yes', "Yes, and don't ask again for make in this project", 'No, and tell it what to do differently'];
const ONCE = ['Allow always', 'Allow once', 'Reject'];
/** None of these agrees to anything. */
const DECOY = ['Red', 'Green', 'Blue'];

test('programs that wait are answered on the dashboard', { timeout: 240_000 }, async (t) => {
  const { folder, happy, api, sh } = await machine(t);
  const { context, page, trouble } = await openBrowser(folder, 'waiting', { spki: '', viewport: WIDE, more: [] });
  t.after(() => context.close());
  const tile = (name) => page.locator('.tile').filter({ has: page.getByText(name, { exact: true }) });
  const said = (name, text) => tile(name).locator('.line').filter({ hasText: text }).waitFor();
  const waiting = (count) => page.locator('.stat', { hasText: 'Waiting' }).filter({ hasText: new RegExp(`^${count}Waiting$`) }).waitFor();
  const promptOf = async (session) => (await happy('prompts')).find((prompt) => prompt.session === session.id);
  const lastLines = async () => page.locator('.tile .line').allTextContents();

  await page.goto((await happy('dashboard')).link);
  await page.locator('.connection.good').waitFor();

  await t.test('one that waits is counted, and its tile has the question and its answers', async () => {
    await sh('quiet', 'echo nothing to ask; sleep 900');
    await sh('one', asks('Remove the branch?'));
    await waiting(1);
    const ask = tile('one').locator('.ask');
    assert.match(await ask.textContent(), /Looks like a question a guess.*Remove the branch\? \[y\/n\]/s);
    assert.deepEqual(await ask.getByRole('button').allTextContents(), ['Yes', 'No']);
    await page.locator('.stat', { hasText: 'Waiting' }).click();
    await waitUntil(async () => (await page.locator('.tile').count()) === 1, 'only the one that waits');
    await page.locator('.stat', { hasText: 'Waiting' }).click();
    await ask.getByRole('button', { name: 'No' }).click();
    await said('one', 'got=n');
    await waiting(0);
  });

  await t.test('who was faster is told', async () => {
    const session = await sh('raced', asks('Push it?'));
    await waiting(1);
    const prompt = await promptOf(session);
    // In the moment in which the answer leaves the page somebody else gives another.
    await page.route('**/prompts', async (route) => {
      if (route.request().method() !== 'POST') return route.continue();
      await happy('answer', prompt.id, 'No');
      return route.continue();
    });
    await tile('raced').getByRole('button', { name: 'Yes' }).click();
    await page.locator('.notice.bad').filter({ hasText: 'This machine has answered already: No' }).waitFor();
    await page.unroute('**/prompts');
    await said('raced', 'got=n');
    await waiting(0);
  });

  await t.test('a tap meant for what stood there before answers nothing', async () => {
    await page.evaluate(() => {
      // The earliest moment at which anybody could hit the button.
      const watcher = new MutationObserver(() => {
        const button = document.querySelector('.ask .answers button');
        if (!button) return;
        watcher.disconnect();
        globalThis.hit = { disabled: button.disabled };
        button.click();
        // Whatever a browser thinks of a disabled button, the page itself is not to act.
        button.querySelector('*')?.click();
      });
      watcher.observe(document.querySelector('.tiles'), { subtree: true, childList: true });
    });
    const session = await sh('sudden', asks('Drop the table?'));
    await waiting(1);
    await waitUntil(() => page.evaluate(() => globalThis.hit), 'the button to have appeared');
    const yes = tile('sudden').getByRole('button', { name: 'Yes' });
    await waitUntil(() => yes.isEnabled(), 'that it can be answered');
    assert.deepEqual(await page.evaluate(() => globalThis.hit), { disabled: true });
    assert.ok(await promptOf(session), 'it still waits');
    await yes.click();
    await said('sudden', 'got=y');
    await waiting(0);
  });

  await t.test('many are confirmed after every question was read, with what agrees once and no more', async () => {
    const sessions = {
      agent: await sh('agent', menu('Do you want to run make?', AGENT)),
      once: await sh('once', menu('Do you want to allow this call?', ONCE)),
      plain: await sh('plain', asks('Overwrite it?')),
      faster: await sh('faster', asks('Deploy it?')),
      decoy: await sh('decoy', menu('Which colour do you want?', DECOY)),
    };
    await waiting(5);
    await picture(page, 'dashboard-waiting-wide');
    await page.setViewportSize(NARROW);
    await picture(page, 'dashboard-waiting-narrow');
    await page.getByRole('button', { name: 'Confirm all' }).click();
    const sheet = page.getByRole('dialog', { name: 'Agree to 4 questions?' });
    await sheet.waitFor();
    const item = (name) => page.locator(`.questions [data-session="${sessions[name].id}"]`);
    for (const [name, text] of Object.entries({
      agent: /make\?.*Answer: Yes$/s, once: /allow this call\?.*Answer: Allow once$/s, plain: /Overwrite it\?.*Answer: Yes$/s, faster: /Answer: Yes$/, decoy: /Answer it yourself/,
    })) assert.match((await item(name).textContent()).trim(), text, name);
    await picture(page, 'dashboard-confirm-narrow');
    await page.setViewportSize(WIDE);
    await picture(page, 'dashboard-confirm-wide');

    // Nothing was answered by opening it, and another answers one of them meanwhile.
    assert.equal((await happy('prompts')).length, 5);
    await happy('answer', (await promptOf(sessions.faster)).id, 'No');
    await item('faster').filter({ hasText: 'This machine was faster: No' }).waitFor();
    await page.getByRole('button', { name: 'Give these 3 answers' }).click();
    await page.getByRole('heading', { name: '3 of 3 answered' }).waitFor();
    assert.match(await item('agent').textContent(), /Answered: Yes$/);
    assert.match(await item('once').textContent(), /Answered: Allow once$/);
    assert.match(await item('decoy').textContent(), /Answer it yourself/);
    await picture(page, 'dashboard-confirmed');
    await page.getByRole('button', { name: 'Done' }).click();
    for (const [name, key] of Object.entries({ agent: '1', once: '2', plain: 'y', faster: 'n' })) await said(name, `got=${key}`);
    await waiting(1);
    assert.equal((await promptOf(sessions.decoy))?.session, sessions.decoy.id, 'the one without an answer that agrees still waits');
    await api('DELETE', `/sessions/${sessions.decoy.id}`);
    await waiting(0);
  });

  await t.test('only the selected are confirmed, and who closes the sheet has answered nothing', async () => {
    await sh('left', asks('Left?'));
    const right = await sh('right', asks('Right?'));
    await waiting(2);
    await tile('left').getByRole('checkbox').check();
    await page.getByRole('button', { name: 'Confirm selected' }).click();
    await page.getByRole('dialog', { name: 'Agree to one question?' }).waitFor();
    await page.getByRole('button', { name: 'Cancel' }).click();
    assert.equal((await happy('prompts')).length, 2);
    await page.getByRole('button', { name: 'Confirm selected' }).click();
    await page.getByRole('button', { name: 'Give this answer' }).click();
    await page.getByRole('heading', { name: '1 of 1 answered' }).waitFor();
    await page.getByRole('button', { name: 'Done' }).click();
    await said('left', 'got=y');
    await waiting(1);
    await happy('answer', (await promptOf(right)).id, 'No');
    await waiting(0);
  });

  await t.test('how far a program says it is stands on its tile', async () => {
    await sh('builds', "printf '\\033]9;4;1;42\\033\\\\compiling\\n'; sleep 900");
    await sh('breaks', "printf '\\033]9;4;2;80\\033\\\\linking\\n'; sleep 900");
    await sh('loads', "printf '\\033]9;4;3\\033\\\\loading\\n'; sleep 900");
    const bar = (name) => tile(name).getByRole('progressbar');
    await bar('builds').waitFor();
    assert.equal(await bar('builds').getAttribute('aria-valuenow'), '42');
    await bar('breaks').waitFor();
    assert.equal(await bar('breaks').getAttribute('aria-valuetext'), '80 %, failed');
    await bar('loads').waitFor();
    assert.equal(await bar('loads').getAttribute('aria-valuenow'), null);
    await picture(page, 'dashboard-progress');
  });

  await t.test('a terminal is opened, typed into, and left', async () => {
    await sh('shell', "stty -echo; echo here; while read line; do echo heard $line; done");
    await said('shell', 'here');
    await tile('shell').getByRole('button', { name: 'Open the terminal' }).click();
    await row(page, 'here');
    const field = page.getByLabel('Text to send to the terminal');
    await field.fill('first');
    await field.press('Enter');
    await row(page, 'heard first');
    await page.getByRole('button', { name: 'Take control' }).click();
    await page.getByText('You decide the size').or(page.locator('main.terminal:not(:has(.control))')).first().waitFor();
    await picture(page, 'dashboard-terminal-wide');
    await page.setViewportSize(NARROW);
    await picture(page, 'dashboard-terminal-narrow');
    // A reload is in the same place, and nothing of the token stands in the address.
    assert.match(page.url(), /\/dashboard#terminal=[\da-f-]{36}$/);
    await page.reload();
    await row(page, 'heard first');
    await field.fill('second');
    await field.press('Enter');
    await row(page, 'heard second');
    await page.setViewportSize(WIDE);
    await page.getByRole('button', { name: 'Back to the sessions' }).click();
    await said('shell', 'heard second');
    assert.equal(new URL(page.url()).hash, '');
    await waitUntil(async () => (await api('GET', '/sessions')).find(({ name }) => name === 'shell').viewers === 0, 'nobody to look any more', 30_000, lastLines);
  });

  await t.test('a terminal that is not there says so', async () => {
    await page.goto(page.url().replace(/#.*$/, '') + '#terminal=00000000-0000-4000-8000-000000000000');
    await page.reload();
    await page.getByRole('alert').filter({ hasText: 'There is no such session' }).waitFor();
    await page.locator('.nosession').getByRole('button', { name: 'Back to the sessions' }).click();
    await tile('shell').waitFor();
  });

  // What is refused, by the answer to a call or before a websocket is one, is told by the browser too.
  assert.deepEqual(trouble.filter((line) => !/status of (404|409|422)|WebSocket connection/.test(line)), []);
});
