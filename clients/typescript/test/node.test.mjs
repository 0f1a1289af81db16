// The client of Node, over gRPC.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import * as mynah from "mynah-speech";
import * as scenarios from "./scenarios.mjs";
import { TINY, startServer } from "./servers.mjs";
import { startWorld } from "./worlds.mjs";

// The README's example without its import, as a function of what it takes from elsewhere.
async function example() {
  const readme = await readFile(new URL("../README.md", import.meta.url), "utf8");
  const [, code] = /```ts\nimport [^\n]*\n(.*?)```/s.exec(readme);
  const AsyncFunction = (async () => {}).constructor;
  return new AsyncFunction("Client", "words", "play", "console", code);
}

describe("over gRPC", () => {
  let servers;
  before(async () => (servers = await startWorld("grpc")));
  after(() => servers.stop());
  for (const [name, scenario] of Object.entries(scenarios))
    test(name.replaceAll("_", " "), () => scenario({ mynah, ...servers.world, kill: servers.kill }));

  test("the README's example speaks", async () => {
    const { fast, key } = servers.world;
    const local = class extends mynah.Client {
      constructor() {
        super(fast, { apiKey: key });
      }
    };
    const played = [], written = [];
    const run = await example();
    await run(local, ["Hello ", "there. "], (data) => played.push(data.length), { log: (words) => written.push(...words) });
    assert.equal(played.reduce((sum, bytes) => sum + bytes), 2 * 960 * "Hello there.".length);
    assert.deepEqual(written.map((word) => word.text), ["Hello", "there"]);
  });
});

test("the model in the box speaks", async (context) => {
  const server = await startServer(TINY, "--max-streams", "1", "--voices-dir", "memory");
  context.after(server.stop);
  const client = new mynah.Client(server.grpc);
  context.after(() => client.close());
  const pieces = [];
  for await (const chunk of client.synthesize("Good morning to you.")) pieces.push(chunk.data);
  const samples = new Int16Array(Buffer.concat(pieces).buffer.slice(0));
  assert.ok(samples.length > 0.5 * 24_000 && samples.length < 6 * 24_000);
  const peak = samples.reduce((max, sample) => Math.max(max, Math.abs(sample)), 0);
  assert.ok(peak > 1000, `the loudest sample is ${peak}`);
  const info = await client.info();
  assert.equal(info.model, "tiny");
});
