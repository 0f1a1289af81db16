// What differs between settings A and B, in words.

import { named } from "./voice_store.js";

const LABELS = {
  temperature: "Temperature", top_p: "Top p", top_k: "Top k", repetition_penalty: "Repetition penalty",
  max_speech_tokens: "Longest segment", cfg_weight: "Guidance", exaggeration: "Exaggeration", min_p: "Min p",
  continuity: "Continuity", seed: "Seed",
};

export function differences(a, b) {
  const found = [];
  if (a.voice !== b.voice) found.push(`voice (A: ${voice(a)}, B: ${voice(b)})`);
  for (const [name, label] of Object.entries(LABELS)) {
    const [one, other] = [a, b].map(({ sampling }) => String(sampling[name] ?? ""));
    const shared = name === "seed" && !other; // B then takes A's
    if (one !== other && !shared) found.push(`${label} (A: ${one || "new"}, B: ${other})`);
  }
  if (!found.length) return "A and B have the same settings, so they sound the same. Change something in Settings B.";
  return `A and B differ in ${found.join(", ")}.`;
}

const voice = (settings) => named(settings.voice)?.name ?? settings.voice;
