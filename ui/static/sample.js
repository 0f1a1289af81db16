// A short sample of a voice, spoken by the server. One at a time; it is no recording of the list.

import { Sound } from "./player/sound.js";
import { openStream } from "./stream.js";

const TEXT = "Hello, this is how I sound. Shall we begin?";
const sound = new Sound();
let current = null; // {voice, button, stream}

export function toggle(voice, button) {
  const again = current?.button === button;
  stop();
  if (!again) start(voice, button);
}

export function stop() {
  current?.stream.stop();
  end(current);
}

function start(voice, button) {
  document.dispatchEvent(new CustomEvent("mynah-sample")); // the player falls silent
  sound.wake();
  sound.begin();
  const label = button.textContent;
  const mine = { voice, button, label };
  button.textContent = "Stop";
  current = mine;
  let rate = 24000;
  mine.stream = openStream({ voice, sampling: { seed: "7" } }, (event, samples) => {
    if (current !== mine) return;
    if (event.type === "opened") rate = event.rate_hz;
    else if (event.type === "chunk") sound.push(Float32Array.from(samples, (one) => one / 32768), rate);
    else if (event.type === "error") end(mine, event.message);
    else if (["done", "stopped"].includes(event.type)) setTimeout(() => end(mine), sound.lead * 1000);
  });
  mine.stream.text(TEXT);
  mine.stream.end();
}

function end(one, message = "") {
  if (!one || current !== one) return;
  current = null;
  sound.silence();
  one.button.textContent = one.label;
  document.dispatchEvent(new CustomEvent("mynah-sample-over", { detail: { message, button: one.button } }));
}
