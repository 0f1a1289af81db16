// The servers of the scenarios, and how to run all of them.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeKey, scripted, startServer } from "./servers.mjs";

// Starts the servers; returns their addresses by `port` ("grpc" or "http"), kill(index) for the twins, and stop().
export async function startWorld(port, ...flags) {
  const folder = await mkdtemp(join(tmpdir(), "mynah-"));
  const keys = join(folder, "keys.json");
  const key = makeKey(keys);
  const memory = ["--voices-dir", "memory", "--grace-s", "0", ...flags];
  const started = await Promise.allSettled([
    startServer(scripted(0), "--max-streams", "3", "--max-pending-text-chars", "1000", "--api-keys", keys, ...memory),
    startServer(scripted(0.04), "--max-streams", "1", ...memory),
    startServer(scripted(1000), "--max-streams", "8", ...memory), // ended before its first audio
    startServer(scripted(0.04), "--max-streams", "8", ...memory),
  ]);
  const failed = started.find((one) => one.reason);
  if (failed) {
    for (const { value } of started) await value?.kill();
    throw failed.reason;
  }
  const [fast, slow, ...pair] = started.map((one) => one.value);
  const addresses = { fast: fast[port], slow: slow[port], pair: pair.map((one) => one[port]) };
  return {
    world: { ...addresses, key, nowhere: port === "grpc" ? "127.0.0.1:1" : "http://127.0.0.1:1" },
    kill: (index) => pair[index].kill(),
    stop: async () => {
      await Promise.all([fast, slow].map((one) => one.stop()));
      await Promise.all(pair.map((one) => one.kill()));
      await rm(folder, { recursive: true });
    },
  };
}
