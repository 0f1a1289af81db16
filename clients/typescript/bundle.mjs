// Makes the page's file of the client's WebSocket frames: `node bundle.mjs`.

import { writeFile } from "node:fs/promises";
import { argv } from "node:process";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

export const PAGE_FILE = fileURLToPath(new URL("../../ui/static/frame_socket.js", import.meta.url));
const BANNER = "// Made of clients/typescript/src/frame_socket.ts: change that, then `npm run bundle` there.";

export async function bundle() {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL("src/frame_socket.ts", import.meta.url))],
    banner: { js: BANNER },
    bundle: true,
    format: "esm",
    target: "es2022",
    write: false,
  });
  return outputFiles[0].text;
}

if (argv[1] === fileURLToPath(import.meta.url)) await writeFile(PAGE_FILE, await bundle());
