import { svelte } from "@sveltejs/vite-plugin-svelte";

/** Built files go into the API's package; their names are hashes of their contents. */
export default {
  plugins: [svelte({ compilerOptions: { runes: true } })],
  base: "/",
  build: {
    outDir: process.env.PAGE_OUT ?? "../assistant_api/page/static",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: true,
  },
};
