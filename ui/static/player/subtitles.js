// Subtitles of a recording from the times of its words: one cue for each line that can be read at once.

const MAX_CHARS = 42, MAX_S = 6, MAX_PAUSE_S = 1; // of a cue
const CLOSING = "\"'”’».,;:!?…)]}—", OPENING = "\"'“‘«([{¿¡";

export function subtitles(recording, format) {
  const cues = lines(recording).map((line) => ({ start: line[0].start_s, end: line.at(-1).end_s, text: written(recording, line) }));
  if (format === "srt")
    return cues.map((cue, i) => `${i + 1}\n${clock(cue.start, ",")} --> ${clock(cue.end, ",")}\n${cue.text}\n\n`).join("");
  return "WEBVTT\n\n" + cues.map((cue) => `${clock(cue.start, ".")} --> ${clock(cue.end, ".")}\n${escaped(cue.text)}\n\n`).join("");
}

function lines(recording) {
  const found = [];
  for (const word of recording.timed) {
    const line = found.at(-1), last = line?.at(-1);
    const fits = line && last.segment === word.segment && read(recording, word.segment, line[0].from, word.to).length <= MAX_CHARS
      && word.end_s - line[0].start_s <= MAX_S && word.start_s - last.end_s <= MAX_PAUSE_S;
    if (fits) line.push(word);
    else found.push([word]);
  }
  return found;
}

// The text of a line with the marks around its words.
function written(recording, line) {
  const { sent } = recording, segment = segmentOf(recording, line[0].segment);
  let { from } = line[0], { to } = line.at(-1);
  while (to < segment.at + segment.text.length && (CLOSING.includes(sent[to]) || isSilent(segment, to))) to += 1;
  while (from > segment.at && (OPENING.includes(sent[from - 1]) || isSilent(segment, from - 1))) from -= 1;
  return read(recording, segment.index, from, to);
}

// A part of the text without marks that are not spoken, such as those of Markdown.
function read(recording, index, from, to) {
  const segment = segmentOf(recording, index);
  const kept = recording.sent.slice(from, to).split("").filter((_, at) => !isSilent(segment, from + at));
  return kept.join("").replace(/\s+/g, " ").trim();
}

const segmentOf = (recording, index) => recording.segments.find((one) => one.index === index);
const isSilent = (segment, at) => segment.silent.some(([from, to]) => from <= at && at < to);

function clock(seconds, separator) {
  const ms = Math.round(seconds * 1000), two = (value) => String(Math.floor(value)).padStart(2, "0");
  return `${two(ms / 3_600_000)}:${two((ms / 60_000) % 60)}:${two((ms / 1000) % 60)}${separator}${String(ms % 1000).padStart(3, "0")}`;
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
