// The recordings of this visit: their names, to play again and to download. The oldest go when there are too many.

import { request } from "./api.js";
import { make } from "./dom.js";
import { seconds } from "./player/recording.js";
import { subtitles } from "./player/subtitles.js";
import { wavFile } from "./player/wav.js";
import { named } from "./voice_store.js";

const MAX_TAKES = 30, MAX_TOTAL_S = 7200;
const FORMATS = { wav: "WAV", mp3: "MP3", flac: "FLAC", ogg: "Opus" };

export function mount(element) {
  const list = element.querySelector(".takes");
  const takes = []; // {recording, item}, newest first
  document.addEventListener("mynah-take", ({ detail: { recording, play } }) => {
    const item = card(recording, play);
    takes.unshift({ recording, item });
    list.prepend(item);
    element.querySelector(".takes-note").hidden = true;
    const total = () => takes.reduce((sum, one) => sum + one.recording.length_s, 0);
    while (takes.length > 1 && (takes.length > MAX_TAKES || total() > MAX_TOTAL_S)) takes.pop().item.remove();
  });
}

function card(recording, play) {
  const item = document.createElement("li");
  const name = document.createElement("input");
  name.value = title(recording);
  name.setAttribute("aria-label", "Name of the recording");
  const about = [named(recording.resolved?.voice)?.name ?? recording.resolved?.voice, seconds(recording.length_s)];
  if (recording.state === "stopped") about.push("stopped early");
  if (recording.request.label) about.push(recording.request.label);
  const row = make("div", "", { className: "chips" });
  const again = make("button", "Play", { label: `Play ${name.value}` });
  again.onclick = () => play(recording);
  const problem = make("span", "", { className: "problem" });
  problem.setAttribute("role", "status");
  row.append(again, make("span", "Download"), ...Object.entries(FORMATS).map(([format, label]) => {
    const button = make("button", label, { label: `Download as ${label}` });
    button.onclick = () => download(recording, format, name.value, problem);
    return button;
  }));
  if (recording.timed.length)
    row.append(make("span", "Subtitles"), ...["srt", "vtt"].map((format) => {
      const button = make("button", format.toUpperCase(), { label: `Download subtitles as ${format.toUpperCase()}` });
      button.onclick = () => save(new Blob([subtitles(recording, format)], { type: "text/plain" }), name.value, format);
      return button;
    }));
  item.append(name, make("span", about.join(" · "), { className: "about" }), row, problem);
  return item;
}

const title = ({ sent }) => {
  const words = sent.replace(/\s+/g, " ").trim();
  return words.length > 48 ? `${words.slice(0, 47).trimEnd()}…` : words;
};

// WAV is made here; for the other formats the page's server encodes what it has kept.
async function download(recording, format, name, problem) {
  problem.textContent = "";
  const blob = format === "wav" ? wavFile(recording) : await encoded(recording, format);
  if (!(blob instanceof Blob)) return void (problem.textContent = blob.message);
  save(blob, name, format);
}

function save(blob, name, format) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${name.replace(/[^\p{L}\p{N} ,.'-]/gu, "").replace(/^[. ]+|[. ]+$/g, "") || "Mynah"}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function encoded({ recording_id }, format) {
  if (!recording_id) return { message: "The page did not keep this recording. Download it as WAV." };
  const answer = await request(`recordings/${recording_id}.${format}`, { as: "blob" });
  return answer instanceof Blob ? answer : { message: "The page does not have this recording any more. Download it as WAV." };
}
