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

const { exports: alone } = (await WebAssembly.instantiate(core)).instance;
// The call may let the memory grow, so it comes before the view.
const [at, length] = [alone.happy_core_input(), alone.happy_core_input_length()];
getRandomValues(new Uint8Array(alone.memory.buffer, at, length));
if (alone.happy_core_run() !== 1) problem("the core does not work in wasm");
const printed = Buffer.from("\x14\x1b[31mred\x1b[m\r\n\x1b]0;title\x07\u{1F600}");
new Uint8Array(alone.memory.buffer, at, length).set(printed);
if (alone.happy_core_screen(printed.length) !== 1) problem("the terminal engine does not work in wasm");
const core_only = withoutNames(core);
const compressed = brotliCompressSync(core_only, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }).length;
console.log(`the core (cryptography with ML-KEM-768, terminal engine) as wasm: ${core_only.length} bytes, ${compressed} as brotli`);
// Kilobytes of 1,000 bytes, as browsers show them.
console.log(`goal wasm-core ${(compressed / 1_000).toFixed(1)} KB 75 ${compressed <= 75_000 ? "met" : "missed"}`);

process.exit(failed ? 1 : 0);
