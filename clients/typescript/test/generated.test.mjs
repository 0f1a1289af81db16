// What is committed and was generated is what its sources give, and what the package and a browser's bundle hold.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { bundle, PAGE_FILE } from "../bundle.mjs";
import { generate, GENERATED } from "../generate.mjs";

test("the contract's types are those of protos/", async () => {
  const folder = await mkdtemp(join(tmpdir(), "mynah-"));
  await generate(folder);
  const [kept, made] = [join(GENERATED, "mynah/v1"), join(folder, "mynah/v1")];
  assert.deepEqual(await readdir(kept), await readdir(made));
  for (const name of await readdir(made))
    assert.equal(await readFile(join(kept, name), "utf8"), await readFile(join(made, name), "utf8"), `${name} is stale: run make proto`);
  await rm(folder, { recursive: true });
});

test("the page's file is what esbuild makes of the client", async () => {
  assert.equal(await readFile(PAGE_FILE, "utf8"), await bundle(), `${PAGE_FILE} is stale: run npm run bundle in clients/typescript`);
});

const PACKAGE = fileURLToPath(new URL("..", import.meta.url));

test("a browser's bundle has nothing of gRPC", async () => {
  const options = { entryPoints: ["mynah-speech"], bundle: true, format: "esm", platform: "browser", minify: true };
  const { metafile, outputFiles } = await build({ ...options, absWorkingDir: PACKAGE, metafile: true, write: false });
  assert.deepEqual(Object.keys(metafile.inputs).filter((path) => path.includes("grpc") || path.startsWith("(")), []);
  assert.ok(outputFiles[0].contents.length < 130_000, `it has ${outputFiles[0].contents.length} bytes`);
});

test("the package has its code, types, sources and licence, and no tests", () => {
  const packed = execFileSync("npm", ["pack", "--dry-run", "--json"], { cwd: PACKAGE, encoding: "utf8" });
  const paths = JSON.parse(packed)[0].files.map((file) => file.path);
  for (const path of ["dist/node.js", "dist/node.d.ts", "dist/browser.js", "dist/browser.d.ts", "README.md", "LICENSE"]) assert.ok(paths.includes(path), path);
  assert.deepEqual(paths.filter((path) => !/^(dist|src)\/|^(README\.md|LICENSE|package\.json)$/.test(path)), []);
});
