// Compares the vectors as wasm makes them with the files beside this one, byte for byte, and says how large the core is:
//
//     node crypto/vectors/check.mjs happy_vectors.wasm core.wasm
//
// `cargo xtask vectors --wasm` builds both and runs this.

import { getRandomValues } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { brotliCompressSync, constants } from "node:zlib";

const [vectors, core] = process.argv.slice(2).map((path) => readFileSync(path));
const folder = new URL(".", import.meta.url);
let failed = false;
const problem = (text) => {
  failed = true;
  console.error(`FAILED: ${text}`);
};

const { exports: made } = (await WebAssembly.instantiate(vectors)).instance;
const bytes = (at, length) => Buffer.from(made.memory.buffer, at, length);
try {
  made.name(0);
} catch (error) {
  console.error(`FAILED in wasm: ${bytes(made.panic_text(), made.panic_text_length())}`);
  throw error;
}
const names = [];
for (let i = 0; made.name(i) !== 0; i++) {
  const name = bytes(made.name(i), made.name_length(i)).toString();
  const [at, length] = [made.text(i), made.text_length(i)];
  const committed = readFileSync(new URL(name, folder));
  JSON.parse(committed);
  const same = committed.equals(bytes(at, length));
  if (same) console.log(`crypto/vectors/${name}: wasm gives the same ${length} bytes`);
  else problem(`crypto/vectors/${name} is not what wasm gives`);
  names.push(name);
}
const committed = readdirSync(folder).filter((name) => name.endsWith(".json"));
if (names.toSorted().join() !== committed.toSorted().join()) problem(`wasm makes ${names}, here are ${committed}`);

// A module without its custom sections, such as the names of functions, which no phone loads.
function withoutNames(module) {
  const kept = [module.subarray(0, 8)];
  for (let at = 8; at < module.length; ) {
    const begins = at;
    let [length, shift, byte] = [0, 0, 0];
    at += 1;
    do {
      byte = module[at++];
      length |= (byte & 0x7f) << shift;
      shift += 7;
    } while (byte & 0x80);
    at += length;
    if (module[begins] !== 0) kept.push(module.subarray(begins, at));
  }
  return Buffer.concat(kept);
}

// A phone and a machine, each in its own module: bytes go from one to the other, and randomness comes from here.
const { exports: alone } = (await WebAssembly.instantiate(core)).instance;
const [ARGUMENT, RANDOMNESS] = [4096, 512];
function caller(exports, name, address, call) {
  return (what, argument = []) => {
    const at = address();
    const view = () => new Uint8Array(exports.memory.buffer, at, ARGUMENT + RANDOMNESS);
    view().set(argument);
    getRandomValues(view().subarray(ARGUMENT));
    const length = call(what, argument.length);
    if (length < 0) throw new Error(`the ${name} refuses call ${what}`);
    return Buffer.from(view().slice(0, length));
  };
}
const phone = caller(alone, "phone", alone.happy_core_bytes, alone.happy_core_call);
const machine = caller(made, "machine", made.machine_bytes, made.machine_call);
const P = { identity: 0, start: 1, welcome: 2, refused: 3, code: 4, seal: 5, open: 6, keep: 7, restore: 8, safety: 9, name: 10, login: 11 };
const M = { record: 0, bundle: 1, answer: 2, confirm: 3, refuse: 4, code: 5, seal: 6, open: 7 };
const equal = (a, b, what) => a.equals(b) || problem(`${what} differs between phone and machine`);
const refuses = (what, does) => {
  try {
    does();
  } catch {
    return;
  }
  problem(`the phone accepts ${what}`);
};

phone(P.identity);
if (!/^(\d{5} ){11}\d{5}$/.test(phone(P.safety, machine(M.record)))) problem("the safety number is not twelve groups of digits");
const name = machine(M.record).subarray(1, 33).toString("base64url");
equal(phone(P.name, Buffer.from(name)), Buffer.from(name), "a device's name");
if (phone(P.login, Buffer.from("challenge")).length !== 64) problem("a login's signature has 64 bytes");
// First with the invitation, then with what both know since.
for (const round of ["pairing", "link"]) {
  const hello = phone(P.start, machine(M.bundle));
  phone(P.refused, machine(M.refuse, hello));
  refuses("a refusal of another Hello", () => phone(P.refused, machine(M.refuse, hello.subarray(1))));
  const welcome = machine(M.answer, hello);
  refuses("a damaged Welcome", () => phone(P.welcome, welcome.with(-1, welcome.at(-1) ^ 1)));
  machine(M.confirm, phone(P.welcome, welcome));
  equal(phone(P.code), machine(M.code), `the code of the ${round}`);
  for (const text of ["typed", "", "x".repeat(1024)].map((text) => Buffer.from(text))) {
    equal(machine(M.open, phone(P.seal, text)), text, "a message to the machine");
    const answer = machine(M.seal, text);
    equal(phone(P.open, answer), text, "a message to the phone");
    refuses("a message twice", () => phone(P.open, answer));
  }
  phone(P.restore, phone(P.keep));
}

const at = alone.happy_core_bytes();
const printed = Buffer.from("\x14\x1b[31mred\x1b[m\r\n\x1b]0;title\x07\u{1F600}");
new Uint8Array(alone.memory.buffer, at, ARGUMENT).set(printed);
if (alone.happy_core_screen(printed.length) !== 1) problem("the terminal engine does not work in wasm");
const core_only = withoutNames(core);
const compressed = brotliCompressSync(core_only, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }).length;
console.log(`the phone's core (cryptography with ML-KEM-768, terminal engine) as wasm: ${core_only.length} bytes, ${compressed} as brotli`);
// Kilobytes of 1,000 bytes, as browsers show them.
console.log(`goal wasm-core ${(compressed / 1_000).toFixed(1)} KB 75 ${compressed <= 75_000 ? "met" : "missed"}`);

process.exit(failed ? 1 : 0);
