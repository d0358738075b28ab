// The check can fail: in every file that it is for, a field of another name and a value of another type are found, wherever they stand.
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { checker, documents } from "./schemas.mjs";

const DEPLOY = new URL("../../deploy/", import.meta.url).pathname;

/** Below these, names are free; and so are those of labels, which have a slash. */
const FREE = /\/(requests|limits|environment|services|networks|volumes|ulimits)$/;
/** What begins so is no business of Compose. */
const EXTENSION = "/x-";

/** Every place of a document: the object that holds it, the key, and the path of the object. */
function* places(value, path = "") {
  if (value === null || typeof value !== "object") return;
  for (const key of Object.keys(value)) {
    if (!Array.isArray(value)) yield { holder: value, key, path };
    yield* places(value[key], `${path}/${key}`);
  }
}

function faults(check, document) {
  // Anchors are one object in several places; here each stands for itself.
  const text = JSON.stringify(document);
  const fresh = () => JSON.parse(text);
  let tried = 0;
  const count = [...places(fresh())].length;
  for (let n = 0; n < count; n += 1) {
    const renamed = fresh();
    const { holder, key, path } = [...places(renamed)][n];
    const at = `${path}/${key}`;
    if (at.startsWith(EXTENSION)) continue;
    if (!FREE.test(path) && !key.includes("/")) {
      holder[`${key}y`] = holder[key];
      delete holder[key];
      assert.notDeepEqual(check(renamed), [], `${at} under another name`);
      tried += 1;
    }
    const retyped = fresh();
    const place = [...places(retyped)][n];
    place.holder[key] = typeof place.holder[key] === "object" ? 7 : { wrong: true };
    assert.notDeepEqual(check(retyped), [], `${at} of another type`);
    tried += 1;
  }
  return tried;
}

for (const name of ["kubernetes-1.30", "kubernetes-1.37"]) {
  test(`${name} finds a broken field of every manifest`, () => {
    const check = checker(name);
    let tried = 0;
    for (const file of readdirSync(`${DEPLOY}kubernetes`)) {
      for (const document of documents(`${DEPLOY}kubernetes/${file}`)) {
        assert.deepEqual(check(document), [], file);
        tried += faults(check, document);
      }
    }
    assert.ok(tried > 300, `${tried} faults were tried`);
  });
}

test("compose finds a broken field", () => {
  const check = checker("compose");
  const [document] = documents(`${DEPLOY}docker-compose.yml`);
  assert.deepEqual(check(document), []);
  const tried = faults(check, document);
  assert.ok(tried > 50, `${tried} faults were tried`);
});

test("a kind without a schema is no pass", () => {
  assert.match(checker("kubernetes-1.37")({ apiVersion: "v1", kind: "Pod" })[0], /there is no schema/);
});
