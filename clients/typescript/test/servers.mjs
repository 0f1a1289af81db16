// Server processes for the tests: the engine that makes tones by a script, and the model tiny.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
export const PYTHON = process.env.MYNAH_PYTHON ?? `${ROOT}/.venv/bin/python`;

export const TINY = ["service", "--model", "tiny"];
// a speech token for each char, each in so many seconds
export const scripted = (token_s) => ["bench.scripted_server", JSON.stringify({ token_s })];
const LINES = { grpc: /listening on (\S+)/, http: /HTTP at http:\/\/(\S+)/, ready: /serving after/ };

// Starts a server on free ports and returns {grpc, http, kill, stop} once it serves; grpc and http are addresses.
export async function startServer(program, ...flags) {
  const listen = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("MYNAH_")));
  const server = spawn(PYTHON, ["-m", ...program, ...listen, ...flags], {
    cwd: ROOT,
    env: { ...env, PYTHONPATH: `${ROOT}:${ROOT}/protos` },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let log = "";
  server.stderr.on("data", (data) => (log += data));
  process.once("exit", () => server.kill("SIGKILL"));
  const ended = once(server, "exit");
  const found = {};
  for await (const line of createInterface({ input: server.stdout })) {
    for (const [name, pattern] of Object.entries(LINES)) if (pattern.test(line)) found[name] = pattern.exec(line)[1] ?? true;
    if (found.ready) break;
  }
  if (!found.ready) throw new Error(`${program[0]} ended before it served: ${log}`);
  server.stdout.resume();
  const parts = [server, server.stdout, server.stderr];
  for (const part of parts) part.unref(); // a test that fails leaves it to the end of this process
  const end = async (signal) => {
    for (const part of parts) part.ref();
    server.kill(signal);
    return (await ended)[0];
  };
  return { grpc: found.grpc, http: `http://${found.http}`, kill: () => end("SIGKILL"), stop: () => end("SIGTERM") };
}

// Makes a file with one API key; returns the key.
export function makeKey(file) {
  const env = { ...process.env, PYTHONPATH: `${ROOT}:${ROOT}/protos` };
  const program = "from service.access.keys import main; main()";
  return execFileSync(PYTHON, ["-c", program, file, "add", "tests"], { cwd: ROOT, env, encoding: "utf8" }).trim();
}
