// The clip for a new voice: how long, how loud, and whether it will do. The server's rules stand in voices.proto.

import * as errors from "./errors.js";
import { loudness } from "./loudness.js";

const LEAST_S = 5, MOST_S = 120, SILENT_LUFS = -60; // refused beyond these
const BEST_S = 10, QUIET_LUFS = -40; // worse beyond these
const RATE = 48000;

const mounted = Promise.withResolvers();

export function mount(element) {
  const part = (name) => element.querySelector(name);
  const fill = (name, text) => { part(`[data-clip=${name}]`).textContent = text; };
  const judge = (verdict, words) => {
    part(".will-do").dataset.verdict = verdict;
    part(".will-do").textContent = words;
  };
  mounted.resolve({ element, fill, judge });
}

// What Gradio's events call. They import this module to do so: a click waits for it, and for its place on the page.

export async function clip(file) {
  const { fill, judge } = await mounted.promise;
  errors.clear(document.querySelector("#clip"));
  let samples;
  for (const name of ["length", "loudness", "peak"]) fill(name, "–");
  if (!file) return judge("", "Record or upload a clip to see whether it will do.");
  try {
    const answer = await fetch(file.url);
    const bytes = await answer.arrayBuffer();
    const most = window.mynahServer?.limits?.max_upload_bytes;
    if (most && bytes.byteLength > most)
      return judge("no", `The file has ${megabytes(bytes.byteLength)}; the server takes at most ${megabytes(most)}.`);
    samples = await decoded(bytes);
  } catch {
    return judge("perhaps", "This browser cannot look into the file; the server may still be able to.");
  }
  const length_s = samples.length / RATE, loud = loudness(samples), peak = samples.reduce((most, one) => Math.max(most, Math.abs(one)), 0);
  fill("length", `${length_s.toFixed(1)} s`);
  fill("loudness", Number.isFinite(loud) ? `${loud.toFixed(1)} LUFS` : "silent");
  fill("peak", peak > 0 ? `${(20 * Math.log10(peak)).toFixed(1)} dB` : "none");
  judge(...verdict(length_s, loud, samples));
}

export async function creating() {
  const { judge } = await mounted.promise;
  for (const place of ["#clip", "#voice-name", "#consent"]) errors.clear(document.querySelector(place));
  judge("", "Making the voice …");
}

export async function created(answer) {
  const { element, judge } = await mounted.promise;
  if (answer.made) return judge("yes", `“${answer.name}” is ready: choose Use in the list.`);
  judge("", "");
  errors.show(answer, "a", element);
}

async function decoded(bytes) {
  const buffer = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes);
  const mono = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++)
    buffer.getChannelData(channel).forEach((value, i) => { mono[i] += value / buffer.numberOfChannels; });
  return mono;
}

// "yes", "perhaps" or "no", and why.
export function verdict(length_s, loud, samples) {
  if (length_s <= LEAST_S) return ["no", `Too short: ${length_s.toFixed(1)} s, and more than ${LEAST_S} s are needed. Ten to fifteen are best.`];
  if (length_s > MOST_S) return ["no", `Too long: ${length_s.toFixed(0)} s, and ${MOST_S} s are the most. Ten to fifteen are best.`];
  if (!(loud >= SILENT_LUFS)) return ["no", "Almost silent. Is the right microphone chosen?"];
  const clipped = samples.filter((value) => Math.abs(value) >= 0.999).length / samples.length;
  if (clipped > 0.001) return ["perhaps", "Will do, but it is overdriven: record at a lower level, or further away."];
  if (loud < QUIET_LUFS) return ["perhaps", "Will do, but it is quiet: come closer to the microphone."];
  if (length_s < BEST_S) return ["perhaps", "Will do. Ten seconds or more would sound closer to the speaker."];
  return ["yes", length_s > 15 ? "Will do. The first fifteen seconds are used." : "Will do."];
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
