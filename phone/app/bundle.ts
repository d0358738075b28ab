/**
 * The hash over the app's own files, computed as `cargo xtask web` does, so that a machine can be asked whether it knows
 * this app. The files are hashed as they are served, not as the manifest says.
 */

interface Manifest {
  files: Record<string, string>;
}

let computed: Promise<string> | null = null;

export function bundleHash(): Promise<string> {
  computed ??= compute();
  return computed;
}

async function compute(): Promise<string> {
  const response = await fetch("/manifest.json", { cache: "no-cache" });
  if (!response.ok) throw new Error("the manifest of this app cannot be read");
  const manifest = (await response.json()) as Manifest;
  const names = Object.keys(manifest.files)
    .filter((name) => !name.endsWith(".br"))
    .sort();
  const lines = await Promise.all(
    names.map(async (name) => {
      const file = await fetch(`/${name}`);
      if (!file.ok) throw new Error(`${name} cannot be read`);
      return `${hexadecimal(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()))}  ${name}\n`;
    }),
  );
  return hexadecimal(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(lines.join(""))));
}

function hexadecimal(bytes: ArrayBuffer): string {
  return Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
