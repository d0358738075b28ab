import { defineConfig } from "vite";

// `cargo xtask web` has put the wasm and its bindings into build/ before this runs.
export default defineConfig({
  root: "app",
  base: "/",
  publicDir: "public",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../dist",
    emptyOutDir: true,
    target: ["chrome111", "firefox114", "safari16.4"],
    // A data: URL for the wasm or a font would need a wider Content-Security-Policy.
    assetsInlineLimit: 0,
    // The polyfill is an inline script, which the policy forbids, and every target above knows modulepreload or does without.
    modulePreload: false,
    reportCompressedSize: false,
  },
});
