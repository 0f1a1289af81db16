// What is committed and was generated is what its sources give.

import assert from "node:assert/strict";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
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
