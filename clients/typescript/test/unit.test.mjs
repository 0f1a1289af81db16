// What needs no server: the choice of one, and errors from what proxies and other services answer.

import assert from "node:assert/strict";
import { test } from "node:test";
import { fromHttp, fromStatus } from "../dist/errors.js";
import { Inbox } from "../dist/inbox.js";
import { Server, chooseServer } from "../dist/servers.js";

const server = (address, fields) => Object.assign(new Server({ address }), fields);
const draws = Array.from({ length: 20 }, (_, i) => i / 20);

test("the less loaded of two servers is chosen, by its share of its capacity", () => {
  const small = server("small", { openStreams: 3, capacity: 4 }), large = server("large", { openStreams: 6, capacity: 12 });
  for (const draw of draws) assert.equal(chooseServer([small, large], 0, () => draw), large);
  large.ownStreams = 6; // since the poll
  for (const draw of draws) assert.equal(chooseServer([small, large], 0, () => draw), small);
});

test("every server is chosen at times, and one that is avoided or cools down only for want of others", () => {
  const servers = ["a", "b", "c"].map((name) => server(name));
  assert.deepEqual(new Set(draws.map((draw) => chooseServer(servers, 0, () => draw).address)), new Set(["a", "b", "c"]));
  servers[0].coolingUntilS = 5;
  for (const draw of draws) {
    assert.equal(chooseServer(servers, 4, () => draw, ["b"]).address, "c");
    assert.notEqual(chooseServer(servers, 4, () => draw, ["b", "c"]).address, "a");
    assert.equal(chooseServer(servers.slice(0, 1), 4, () => draw, ["a"]).address, "a");
  }
});

test("a failed server cools down for as long as it suggests", () => {
  const one = server("a"), before = performance.now() / 1000;
  one.failed(fromStatus("RESOURCE_EXHAUSTED", "busy", { reason: "ENGINE_BUSY", retryAfterS: 30 }));
  assert.ok(one.coolingUntilS >= before + 30);
});

for (const [status, body, name, reason, retryable] of [
  [502, null, "Unavailable", "UNAVAILABLE", true], // a proxy's
  [504, "late", "Unavailable", "UNAVAILABLE", true],
  [500, {}, "ServerError", "INTERNAL", false],
  [418, { error: "tea" }, "ServerError", "INTERNAL", false],
  [409, { error: { code: "VOICE_EXISTS" } }, "AlreadyExists", "VOICE_EXISTS", false],
  [409, { error: { code: "STREAM_NOT_OPEN" } }, "WrongState", "STREAM_NOT_OPEN", false],
  [507, { error: { code: "STORAGE_FULL", retry_after_s: 5 } }, "ServerBusy", "STORAGE_FULL", true],
  [403, { error: { code: "ORIGIN_NOT_ALLOWED", message: "no", param: "origin" } }, "NotAllowed", "ORIGIN_NOT_ALLOWED", false],
])
  test(`HTTP ${status} with ${JSON.stringify(body)} is ${name}`, () => {
    const error = fromHttp(status, body);
    assert.deepEqual([error.name, error.reason, error.retryable], [name, reason, retryable]);
  });

for (const [code, message, name, reason, retryable] of [
  ["CANCELLED", "Cancelled on server", "Unavailable", "CONNECTION_LOST", true],
  ["INTERNAL", "Received RST_STREAM with code 2", "Unavailable", "CONNECTION_LOST", true],
  ["INTERNAL", "no", "ServerError", "INTERNAL", false],
  ["UNIMPLEMENTED", "no", "ServerError", "UNIMPLEMENTED", false],
  ["DEADLINE_EXCEEDED", "late", "TimedOut", "DEADLINE_EXCEEDED", false],
])
  test(`the status ${code} without details, "${message}", is ${name}`, () => {
    const error = fromStatus(code, message);
    assert.deepEqual([error.name, error.reason, error.retryable], [name, reason, retryable]);
  });

test("an error comes behind the messages before it, and a closed call gives none", async () => {
  const failed = new Inbox();
  failed.push(1);
  failed.finish(new Error("late"));
  failed.push(2);
  assert.equal(await failed.read(), 1);
  await assert.rejects(failed.read(), /late/);
  await assert.rejects(failed.whileOpen(new Promise(() => {})), /late/);
  const closed = new Inbox();
  closed.push(1);
  const reading = [closed.read(), closed.read()];
  closed.abandon(new Error("closed"));
  await assert.rejects(reading[1], /closed/);
});
