// Plays every recording to xterm.js and compares what it shows with what our screen shows, at every mark.
//
// `dump`, an example of the crate `screen`, says what ours shows. docs/TERMINAL.md lists the recordings where the two differ, in what and why;
// a recording that differs in anything else fails, and so does one that is listed and does not differ any more.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import unicode11 from "@xterm/addon-unicode11";
import headless from "@xterm/headless";

const ROOT = new URL("../../", import.meta.url);
const RECORDINGS = new URL("screen/tests/recordings/", ROOT);
const ASPECTS = ["cells", "wrapped", "history", "cursor", "title", "modes"];

/** Ours: name → marks. */
function ours() {
  const arguments_ = ["run", "--quiet", "--package", "happy-screen", "--example", "dump"];
  const text = execFileSync("cargo", arguments_, { cwd: ROOT, encoding: "utf8", maxBuffer: 1 << 30 });
  const lines = text.trimEnd().split("\n").map((line) => JSON.parse(line));
  return new Map(lines.map(({ name, marks }) => [name, marks]));
}

function color(cell, which) {
  const long = which === "fg" ? "Fg" : "Bg";
  if (cell[`is${long}Default`]()) return "";
  const value = cell[`get${long}Color`]();
  return ` ${which}=${cell[`is${long}RGB`]() ? `#${value.toString(16).padStart(6, "0")}` : value}`;
}

const UNDERLINES = ["", " underline", " double", " curly", " dotted", " dashed"];
const LOOKS = ["Bold", "Dim", "Italic", "Strikethrough", "Blink", "Inverse", "Invisible", "Overline"];

/** The bit of SGR 4. `isUnderline` says yes for a link as well, which xterm.js underlines by itself. */
const UNDERLINE = 1 << 28;

/** The line under a character, and its colour. */
function underline(cell) {
  if ((cell.fg & UNDERLINE) === 0) return "";
  const style = UNDERLINES[cell.getUnderlineStyle()];
  const { underlineColor } = cell.extended;
  if (cell.extended.isEmpty() || cell.isUnderlineColorDefault() || underlineColor === -1) return style;
  const value = cell.getUnderlineColor();
  return `${style}=${cell.isUnderlineColorRGB() ? `#${value.toString(16).padStart(6, "0")}` : value}`;
}

/** A string a column: the character, its width, how it looks and where it leads. */
function describe(cell, links) {
  const set = LOOKS.filter((name) => cell[`is${name}`]()).map((name) => ` ${name.toLowerCase()}`);
  const chars = cell.getChars() || " ".repeat(cell.getWidth());
  const uri = cell.extended.urlId ? links.getLinkData(cell.extended.urlId)?.uri : undefined;
  // Other addresses are no links here.
  const link = uri?.match(/^https?:/iu) ? ` <${uri}>` : "";
  return `${chars} ${cell.getWidth()}${color(cell, "fg")}${color(cell, "bg")}${underline(cell)}${set.join("")}${link}`;
}

const BLANK = "  1";

function cells(line, cols, links) {
  const all = [];
  for (let col = 0; col < Math.min(cols, line.length); col += 1) all.push(describe(line.getCell(col), links));
  while (all.length < cols) all.push(BLANK);
  return all;
}

function trimmed(row) {
  let used = row.length;
  while (used > 0 && row[used - 1] === BLANK) used -= 1;
  return row.slice(0, used);
}

/** What xterm.js shows now, in the fields of `dump`. */
function mark(terminal, title) {
  const { active, normal } = terminal.buffer;
  const rows = [...Array(terminal.rows).keys()];
  const links = terminal._core._oscLinkService;
  const line = (row) => active.getLine(active.baseY + row);
  const { reverseWraparoundMode, ...modes } = terminal.modes;
  return {
    size: [terminal.cols, terminal.rows],
    cells: rows.map((row) => cells(line(row), terminal.cols, links)),
    wrapped: rows.map((row) => line(row + 1)?.isWrapped ?? false),
    history: [...Array(normal.baseY).keys()].map((row) => trimmed(cells(normal.getLine(row), normal.getLine(row).length, links))),
    cursor: [
      Math.min(active.cursorX, terminal.cols - 1),
      active.cursorY,
      active.cursorX >= terminal.cols,
      !terminal._core.coreService.isCursorHidden,
    ],
    title,
    modes: { ...modes, alternateScreen: active.type === "alternate" },
  };
}

/** Theirs: the marks of a recording. */
async function theirs(name) {
  const [header, ...events] = readFileSync(new URL(`${name}.cast`, RECORDINGS), "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
  const { cols, rows } = header.term;
  const terminal = new headless.Terminal({
    cols,
    rows,
    allowProposedApi: true,
    scrollback: 10_000,
    scrollOnEraseInDisplay: true,
    windowOptions: { pushTitle: true, popTitle: true },
  });
  terminal.loadAddon(new unicode11.Unicode11Addon());
  terminal.unicode.activeVersion = "11";
  let title = "";
  terminal.onTitleChange((now) => (title = now));
  const marks = [];
  for (const [, kind, data] of events) {
    if (kind === "o") await new Promise((done) => terminal.write(data, done));
    if (kind === "r") terminal.resize(...data.split("x").map(Number));
    if (kind === "m") marks.push(mark(terminal, title));
  }
  marks.push(mark(terminal, title));
  terminal.dispose();
  return marks;
}

/** The first place where two values differ, for a person. */
function difference(theirs, ours, path = "") {
  if (Array.isArray(theirs) && Array.isArray(ours)) {
    if (theirs.length !== ours.length) return `${path}: ${theirs.length} there, ${ours.length} here`;
    const index = theirs.findIndex((value, at) => JSON.stringify(value) !== JSON.stringify(ours[at]));
    return difference(theirs[index], ours[index], `${path}[${index}]`);
  }
  if (theirs !== null && typeof theirs === "object") {
    const key = Object.keys({ ...theirs, ...ours }).find((key) => theirs[key] !== ours[key]);
    return difference(theirs[key], ours[key], `${path}.${key}`);
  }
  return `${path}: ${JSON.stringify(theirs)} there, ${JSON.stringify(ours)} here`;
}

const same = (a, b) => JSON.stringify(sorted(a)) === JSON.stringify(sorted(b));
const sorted = (value) =>
  value !== null && typeof value === "object" && !Array.isArray(value) ? Object.fromEntries(Object.entries(value).sort()) : value;

/** In what two runs differ: aspect → where first. */
function differences(theirs, ours) {
  const found = {};
  assert.equal(ours.length, theirs.length, "as many marks");
  for (const [index, their] of theirs.entries()) {
    const our = { ...ours[index], history: ours[index].history.map(trimmed) };
    for (const aspect of ASPECTS) {
      if (!same(their[aspect], our[aspect])) found[aspect] ??= `mark ${index}: ${difference(their[aspect], our[aspect], aspect)}`;
    }
  }
  return found;
}

/** What docs/TERMINAL.md says: name → aspects. Rows of its table look like `| name | cells, cursor | cause |`. */
function listed(page) {
  const section = page.split(/^## /mu).find((part) => part.startsWith("Where it differs")) ?? "";
  const rows = [...section.matchAll(/^\| `([^|]+)` \| ([a-z, ]+) \| [^|]{10,} \|$/gmu)];
  const list = new Map();
  for (const [, names, aspects] of rows) {
    for (const name of names.split("`, `")) {
      const before = list.get(name) ?? [];
      list.set(name, [...new Set([...before, ...aspects.split(", ")])]);
    }
  }
  return list;
}

const screens = ours();
const names = readdirSync(RECORDINGS).filter((file) => file.endsWith(".cast")).map((file) => file.replace(".cast", ""));
const page = readFileSync(new URL("docs/TERMINAL.md", ROOT), "utf8");
const list = listed(page);

test("there are recordings, and each was dumped", () => {
  assert.ok(names.length >= 60, `only ${names.length}`);
  assert.deepEqual([...screens.keys()].sort(), [...names].sort());
});

test("docs/TERMINAL.md names every recording and no other", () => {
  assert.deepEqual([...list.keys()].filter((name) => !names.includes(name)), []);
  const table = page.split(/^## /mu).find((part) => part.startsWith("The recordings")) ?? "";
  const named = [...table.matchAll(/^\|[^|]+\|([^|]+)\|/gmu)].flatMap(([, cell]) => [...cell.matchAll(/`([^`]+)`/gu)].map(([, name]) => name));
  assert.deepEqual(named.toSorted(), names.toSorted());
});

for (const name of names) {
  test(`${name} shows the same as in xterm.js, or what is listed`, async () => {
    const found = differences(await theirs(name), screens.get(name));
    const expected = (list.get(name) ?? []).toSorted();
    const where = Object.values(found).join("\n");
    assert.deepEqual(Object.keys(found).toSorted(), expected, `found:\n${where}\nlisted in docs/TERMINAL.md: ${expected.join(", ") || "nothing"}`);
  });
}
