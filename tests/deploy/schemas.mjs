// Checks YAML with a schema of this folder: `node schemas.mjs compose|kubernetes-VERSION FILE...`. It is silent when nothing is wrong.
import { readFileSync } from "node:fs";
import { argv } from "node:process";
import { fileURLToPath } from "node:url";
import { Ajv2020 } from "ajv/dist/2020.js";
import { parseAllDocuments } from "yaml";

/** Go reads what has no quotes as YAML 1.1 does, so that `no` is a boolean and 0440 is octal; both formats are read by Go. */
const YAML = { version: "1.1", merge: true };

/** Ranges and forms that the schemas name and JSON Schema does not know. */
const FORMATS = {
  int32: { type: "number", validate: (n) => Number.isInteger(n) && Math.abs(n) <= 2 ** 31 },
  int64: { type: "number", validate: Number.isInteger },
  double: { type: "number", validate: Number.isFinite },
  byte: (text) => /^[A-Za-z0-9+/]*={0,2}$/.test(text),
  "date-time": (text) => !Number.isNaN(Date.parse(text)),
};

/** What checks one document. */
export function checker(name) {
  const schema = JSON.parse(readFileSync(new URL(`schemas/${name}.json`, import.meta.url), "utf8"));
  const ajv = new Ajv2020({ strict: false, allErrors: true, formats: FORMATS });
  const told = (validate, document) =>
    validate(document) ? [] : validate.errors.map((error) => `${error.instancePath || "/"} ${error.message} ${JSON.stringify(error.params)}`);
  if (!schema.kinds) {
    const validate = ajv.compile(schema);
    return (document) => told(validate, document);
  }
  const { kinds, ...definitions } = schema;
  const validators = new Map(
    Object.entries(kinds).map(([kind, one]) => [kind, ajv.compile({ ...definitions, ...one, required: ["apiVersion", "kind", "metadata"] })]),
  );
  return (document) => {
    const kind = `${document?.apiVersion} ${document?.kind}`;
    const validate = validators.get(kind);
    return validate ? told(validate, document) : [`${kind}: there is no schema of this kind in schemas/${name}.json`];
  };
}

/** The documents of a file, or an error that names it. A key that stands there twice is one. */
export function documents(file) {
  return parseAllDocuments(readFileSync(file, "utf8"), YAML).map((document) => {
    for (const error of [...document.errors, ...document.warnings]) {
      throw new Error(`${file}: ${error.message}`);
    }
    return document.toJS();
  });
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  const [name, ...files] = argv.slice(2);
  const check = checker(name);
  const problems = files.flatMap((file) => {
    const found = documents(file);
    return found.length === 0 ? [`${file}: it is empty`] : found.flatMap(check).map((problem) => `${file}: ${problem}`);
  });
  problems.forEach((problem) => console.error(problem));
  process.exitCode = problems.length === 0 && files.length > 0 ? 0 : 1;
}
