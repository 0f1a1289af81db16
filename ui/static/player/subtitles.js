// Subtitles of a recording from the times of its words: one cue for each line that can be read at once.

const MAX_CHARS = 42, MAX_S = 6, MAX_PAUSE_S = 1; // of a cue

export function subtitles(recording, format) {
  const cues = lines(recording.timed).map((line) => {
    const text = recording.sent.slice(line[0].from, line.at(-1).to).replace(/\s+/g, " ").trim();
    return { start: line[0].start_s, end: line.at(-1).end_s, text };
  });
  if (format === "srt")
    return cues.map((cue, i) => `${i + 1}\n${clock(cue.start, ",")} --> ${clock(cue.end, ",")}\n${cue.text}\n\n`).join("");
  return "WEBVTT\n\n" + cues.map((cue) => `${clock(cue.start, ".")} --> ${clock(cue.end, ".")}\n${escaped(cue.text)}\n\n`).join("");
}

function lines(words) {
  const found = [];
  for (const word of words) {
    const line = found.at(-1), last = line?.at(-1);
    const fits = line && last.segment === word.segment && word.to - line[0].from <= MAX_CHARS
      && word.end_s - line[0].start_s <= MAX_S && word.start_s - last.end_s <= MAX_PAUSE_S;
    if (fits) line.push(word);
    else found.push([word]);
  }
  return found;
}

function clock(seconds, separator) {
  const ms = Math.round(seconds * 1000), two = (value) => String(Math.floor(value)).padStart(2, "0");
  return `${two(ms / 3_600_000)}:${two((ms / 60_000) % 60)}:${two((ms / 1000) % 60)}${separator}${String(ms % 1000).padStart(3, "0")}`;
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
