// The check of a clip for a new voice: length, loudness and a verdict. The server's rules are in voices.proto.

import * as errors from "./errors.js";
import { loudness } from "./loudness.js";

const MIN_S = 5, MAX_S = 120, SILENT_LUFS = -60; // the server refuses clips beyond these
const GOOD_S = 10, QUIET_LUFS = -40; // below these the voice is worse
const RATE = 48000;

const mounted = Promise.withResolvers();

export function mount(element) {
  const part = (name) => element.querySelector(name);
  const fill = (name, text) => { part(`[data-clip=${name}]`).textContent = text; };
  const judge = (verdict, text) => {
    part(".verdict-text").dataset.verdict = verdict;
    part(".verdict-text").textContent = text;
  };
  mounted.resolve({ element, fill, judge });
}

// The handlers of Gradio's events. A click waits until this module is loaded and mounted.

export async function clip(file) {
  const { fill, judge } = await mounted.promise;
  errors.clear(document.querySelector("#clip"));
  let samples;
  for (const name of ["length", "loudness", "peak"]) fill(name, "–");
  if (!file) return judge("", "Record or upload a clip to check it.");
  try {
    const answer = await fetch(file.url);
    const bytes = await answer.arrayBuffer();
    const max_bytes = window.mynahServer?.limits?.max_upload_bytes;
    if (max_bytes && bytes.byteLength > max_bytes)
      return judge("no", `The file is too large: ${megabytes(bytes.byteLength)}. The maximum is ${megabytes(max_bytes)}.`);
    samples = await decoded(bytes);
  } catch {
    return judge("perhaps", "This browser cannot read the file, but the server may be able to.");
  }
  const length_s = samples.length / RATE, loud = loudness(samples), peak = samples.reduce((max, one) => Math.max(max, Math.abs(one)), 0);
  fill("length", `${length_s.toFixed(1)} s`);
  fill("loudness", Number.isFinite(loud) ? `${loud.toFixed(1)} LUFS` : "silent");
  fill("peak", peak > 0 ? `${(20 * Math.log10(peak)).toFixed(1)} dB` : "none");
  judge(...verdict(length_s, loud, samples));
}

export async function creating() {
  const { judge } = await mounted.promise;
  for (const place of ["#clip", "#voice-name", "#consent"]) errors.clear(document.querySelector(place));
  judge("", "Creating the voice …");
}

export async function created(answer) {
  const { element, judge } = await mounted.promise;
  if (answer.created) return judge("yes", `“${answer.name}” is ready. Press Use in the list.`);
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

// Returns "yes", "perhaps" or "no", and the reason.
export function verdict(length_s, loud, samples) {
  if (length_s <= MIN_S) return ["no", `Too short: ${length_s.toFixed(1)} s. More than ${MIN_S} s are needed; 10 to 15 are best.`];
  if (length_s > MAX_S) return ["no", `Too long: ${length_s.toFixed(0)} s. The maximum is ${MAX_S} s; 10 to 15 are best.`];
  if (!(loud >= SILENT_LUFS)) return ["no", "Almost silent. Check that the right microphone is chosen."];
  const clipped = samples.filter((value) => Math.abs(value) >= 0.999).length / samples.length;
  if (clipped > 0.001) return ["perhaps", "Usable, but too loud and distorted. Lower the level or move away from the microphone."];
  if (loud < QUIET_LUFS) return ["perhaps", "Usable, but quiet. Come closer to the microphone."];
  if (length_s < GOOD_S) return ["perhaps", "Usable. With 10 seconds or more the voice would sound closer to the speaker."];
  return ["yes", length_s > 15 ? "Good. The first 15 seconds are used." : "Good."];
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
