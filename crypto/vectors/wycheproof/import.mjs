// Takes the cases of Project Wycheproof that concern this crate and writes them beside this file:
//
//     node crypto/vectors/wycheproof/import.mjs PATH_TO_A_CLONE [COMMIT]
//
// All cases stay, of their fields only those that a test looks at. Expected outputs of ML-KEM are replaced by their SHA-256, because
// random bytes do not compress and comparing hashes proves as much.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants } from "node:zlib";

const [clone, wanted = "HEAD"] = process.argv.slice(2);
if (!clone) throw new Error("which clone? node import.mjs PATH_TO_A_CLONE [COMMIT]");
const git = (...words) => execFileSync("git", ["-C", clone, ...words], { encoding: "utf8", maxBuffer: 1 << 26 });
const commit = git("rev-parse", wanted).trim();

const sha256 = (hex) => createHash("sha256").update(Buffer.from(hex, "hex")).digest("hex");
const pick = (...names) => (test) => Object.fromEntries(names.map((name) => [name, test[name]]));

const FILES = {
  x25519_test: pick("public", "private", "shared"),
  ed25519_test: (test, group) => ({ pk: group.publicKey.pk, ...pick("msg", "sig")(test) }),
  chacha20_poly1305_test: pick("key", "iv", "aad", "msg", "ct", "tag"),
  hkdf_sha256_test: pick("ikm", "salt", "info", "size", "okm"),
  hmac_sha256_test: pick("key", "msg", "tag"),
  mlkem_768_keygen_seed_test: ({ seed, ek, dk }) => ({ seed, ek_sha256: sha256(ek), dk_sha256: sha256(dk) }),
  mlkem_768_encaps_test: ({ m, ek, c, K }) => ({ m, ek, c_sha256: sha256(c), K }),
  mlkem_768_test: ({ seed, ek, c, K }) => ({ seed, ek_sha256: ek && sha256(ek), c, K }),
  mlkem_768_semi_expanded_decaps_test: ({ dk, c, K }) => ({ dk, c, K }),
};

for (const [name, fields] of Object.entries(FILES)) {
  const source = JSON.parse(git("show", `${commit}:testvectors_v1/${name}.json`));
  const cases = source.testGroups.flatMap((group) =>
    group.tests.map((test) => ({
      id: test.tcId,
      comment: test.comment ?? "",
      flags: test.flags ?? [],
      result: test.result,
      ...fields(test, group),
    })),
  );
  if (cases.length !== source.numberOfTests) throw new Error(`${name}: ${cases.length} of ${source.numberOfTests} cases`);
  const text = Buffer.from(JSON.stringify({ file: name, commit, cases }));
  const packed = brotliCompressSync(text, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: 11,
      [constants.BROTLI_PARAM_LGWIN]: 24,
      [constants.BROTLI_PARAM_MODE]: constants.BROTLI_MODE_TEXT,
      [constants.BROTLI_PARAM_SIZE_HINT]: text.length,
    },
  });
  writeFileSync(fileURLToPath(new URL(`${name}.json.br`, import.meta.url)), packed);
  console.log(`${name}: ${cases.length} cases, ${packed.length} bytes`);
}
