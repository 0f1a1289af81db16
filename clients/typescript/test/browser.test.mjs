// The client of browsers, over the WebSocket, in Chromium: a page of one origin, servers of others.

import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";
import { build } from "esbuild";
import { chromium } from "playwright-core";
import * as scenarios from "./scenarios.mjs";
import { startWorld } from "./worlds.mjs";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const TIMEOUT_MS = 240_000; // a browser that starts beside other work takes its time
const FILES = { "/": ["text/html", "<!doctype html><title>A page</title>"], "/favicon.ico": ["image/png", ""] };

async function bundle() {
  const options = { entryPoints: ["mynah-speech"], bundle: true, format: "esm", platform: "browser", write: false };
  const { outputFiles } = await build({ ...options, absWorkingDir: new URL("..", import.meta.url).pathname });
  return outputFiles[0].text;
}

describe("in Chromium", () => {
  let pages, browser, page, servers;
  before(async () => {
    FILES["/mynah.js"] = ["text/javascript", await bundle()];
    FILES["/scenarios.mjs"] = ["text/javascript", await readFile(new URL("scenarios.mjs", import.meta.url))];
    pages = createServer(({ url }, answer) => {
      const [type, content] = FILES[url];
      answer.setHeader("content-type", type).end(content);
    }).listen(0, "127.0.0.1");
    await once(pages, "listening");
    const origin = `http://127.0.0.1:${pages.address().port}`;
    servers = await startWorld("http", "--cors-origin", origin);
    browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"], timeout: TIMEOUT_MS });
    page = await browser.newPage();
    page.setDefaultTimeout(TIMEOUT_MS);
    await page.exposeFunction("kill", servers.kill);
    await page.goto(origin);
  });
  after(async () => {
    await browser?.close();
    pages?.close();
    await servers?.stop();
  });
  for (const name of Object.keys(scenarios))
    test(name.replaceAll("_", " "), () =>
      page.evaluate(async ({ name, world }) => {
        const [scenarios, mynah] = await Promise.all(["/scenarios.mjs", "/mynah.js"].map((path) => import(path)));
        await scenarios[name]({ mynah, kill, ...world });
      }, { name, world: servers.world }),
    );
});
