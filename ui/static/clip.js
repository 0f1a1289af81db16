// The check of a clip for a new voice: length, loudness and a verdict. The server's rules are in voices.proto.

import { loudness } from "./loudness.js";

const MIN_S = 5, MAX_S = 120, SILENT_LUFS = -60; // the server refuses clips beyond these
const GOOD_S = 10, QUIET_LUFS = -40; // below these the voice is worse
const RATE = 48000;

// Returns {verdict: "yes", "perhaps" or "no", text, figures, blocks}; a clip that `blocks` is not worth its upload; figures are empty if the browser cannot read the clip.
export async function check(blob) {
  const max_bytes = window.mynahServer?.limits?.max_upload_bytes;
  if (max_bytes && blob.size > max_bytes)
    return { verdict: "no", blocks: true, text: `The file is too large: ${megabytes(blob.size)}. The maximum is ${megabytes(max_bytes)} and ${MAX_S} s; 10 to 15 s are enough.`, figures: {} };
  if (!blob.size) return { verdict: "no", text: "The file is empty.", figures: {} };
  let samples;
  try {
    samples = await decoded(await blob.arrayBuffer());
  } catch {
    return { verdict: "perhaps", text: "This browser cannot read the file, but the server may be able to.", figures: {} };
  }
  const length_s = samples.length / RATE, loud = loudness(samples);
  const peak = samples.reduce((max, one) => Math.max(max, Math.abs(one)), 0);
  const [verdict, text] = judged(length_s, loud, samples);
  const figures = {
    length: `${length_s.toFixed(1)} s`,
    loudness: Number.isFinite(loud) ? `${loud.toFixed(1)} LUFS` : "silent",
    peak: peak > 0 ? `${(20 * Math.log10(peak)).toFixed(1)} dB` : "none",
  };
  return { verdict, text, figures, blocks: length_s > MAX_S };
}

async function decoded(bytes) {
  const buffer = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(bytes);
  const mono = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++)
    buffer.getChannelData(channel).forEach((value, i) => { mono[i] += value / buffer.numberOfChannels; });
  return mono;
}

function judged(length_s, loud, samples) {
  if (length_s <= MIN_S) return ["no", `Too short: ${length_s.toFixed(1)} s. More than ${MIN_S} s are needed; 10 to 15 are best.`];
  if (length_s > MAX_S) return ["no", `Too long: ${length_s.toFixed(0)} s. The maximum is ${MAX_S} s; 10 to 15 are best.`];
  if (!(loud >= SILENT_LUFS)) return ["no", "Almost silent. Check that the right microphone is chosen."];
  const clipped = samples.filter((value) => Math.abs(value) >= 0.999).length / samples.length;
  if (clipped > 0.001) return ["perhaps", "Usable, but too loud and distorted. Lower the level or move away from the microphone."];
  if (loud < QUIET_LUFS) return ["perhaps", "Usable, but quiet. Come closer to the microphone."];
  if (length_s < GOOD_S) return ["perhaps", "Usable. With 10 seconds or more the voice would sound closer to the speaker."];
  return ["yes", "Good."];
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
