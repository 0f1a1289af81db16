// One recording: its text, segments, chunks and figures. Times are seconds on the clock of performance.now().

export const now = () => performance.now() / 1000;

export class Recording {
  constructor(name, request) {
    this.name = name; // "a" or "b"
    this.request = request;
    this.started = now();
    this.sent = ""; // the text sent to the server
    this.words = []; // the times at which its pieces were sent
    this.segments = []; // {index, from, to, silent: positions in `sent`, offset_s, began, ended?, tokens}
    this.timed = []; // {from, to: positions in `sent`, start_s, end_s, segment}: words, if the server gives their times
    this.chunks = []; // {arrived, offset_s, length_s, window?, tokens}
    this.pieces = []; // one Int16Array per chunk
    this.leads = []; // {at, lead_s} during live playback
    this.underruns = []; // {at, gap_s}
    this.rate = 24000;
    this.length_s = 0;
    this.state = "waiting"; // then "speaking", "done", "stopped" or "failed"
  }

  addText(text) {
    this.sent += text;
    this.words.push(now());
  }

  startSegment(event) {
    const from = this.segments.at(-1)?.to ?? 0;
    const start = this.sent.indexOf(event.text, from);
    const to = start < 0 ? event.consumed_text_chars : start + event.text.length;
    const silent = event.spoken_spans.filter((span) => start >= 0 && span.spoken_start === span.spoken_end)
      .map((span) => [span.written_start, span.written_end].map((char) => start + units(event.text, char)));
    this.segments.push({ index: event.segment_index, text: event.text, at: start, from, to, silent, offset_s: event.offset_samples / this.rate, speed: event.speed, began: now(), tokens: 0 });
  }

  addWords({ segment_index, words }) {
    const segment = this.segments.find((one) => one.index === segment_index);
    if (!segment || segment.at < 0) return; // the text was changed before it was spoken, so a word has no place in it
    const position = (char) => segment.at + units(segment.text, char);
    for (const word of words) {
      const times = { start_s: word.start_samples / this.rate, end_s: word.end_samples / this.rate };
      this.timed.push({ from: position(word.start_char), to: position(word.end_char), ...times, segment: segment_index });
    }
  }

  // The word that is spoken at a second of the recording, and then until the next one begins.
  wordAt(position_s) {
    return this.timed.findLast((one) => one.start_s <= position_s);
  }

  endSegment(event) {
    const segment = this.segments.find((one) => one.index === event.segment_index);
    if (segment) Object.assign(segment, { ended: now(), tokens: event.speech_tokens });
  }

  addChunk(event, pcm) {
    const chunk = { arrived: now(), offset_s: event.offset_samples / this.rate, length_s: pcm.length / this.rate };
    if (event.window) {
      chunk.window = event.window;
      const segment = this.segments.find((one) => one.index === event.segment_index);
      if (segment) segment.tokens = Math.max(segment.tokens, event.window.made_speech_tokens);
    }
    chunk.tokens = this.tokens;
    this.chunks.push(chunk);
    this.pieces.push(pcm);
    this.length_s += chunk.length_s;
    return Float32Array.from(pcm, (value) => value / 32768);
  }

  // A chunk becomes audible at time `at`, after `gap_s` of unwanted silence.
  addPlayback(at, gap_s) {
    this.firstSound ??= at;
    if (gap_s > 0) this.underruns.push({ at: now(), gap_s });
  }

  get running() {
    return this.state === "waiting" || this.state === "speaking";
  }

  get tokens() {
    return this.segments.reduce((sum, one) => sum + one.tokens, 0);
  }

  get windows() {
    return this.chunks.filter((one) => one.window).length;
  }

  // The share of the text that has been spoken.
  get share() {
    return Math.min(1, (this.segments.at(-1)?.to ?? 0) / Math.max(1, this.request.text.length));
  }

  get seed() {
    return this.resolved?.seed ?? "";
  }

  // How the server cut the audio: with the seed it repeats every byte.
  get schedule() {
    return this.resolved?.schedule ?? "";
  }

  // All samples so far.
  get samples() {
    const all = new Float32Array(this.pieces.reduce((sum, one) => sum + one.length, 0));
    let offset = 0;
    for (const piece of this.pieces) for (const value of piece) all[offset++] = value / 32768;
    return all;
  }

  figures() {
    const first = this.chunks[0];
    const gaps = this.chunks.slice(1).map((one, i) => one.arrived - this.chunks[i].arrived);
    const work_s = this.segments.reduce((sum, one) => sum + ((one.ended ?? this.chunks.at(-1)?.arrived ?? one.began) - one.began), 0);
    const asked = this.words[0] ?? this.started;
    return {
      ttfa: first && seconds(first.arrived - asked),
      sound: this.firstSound && seconds(this.firstSound - asked),
      rtf: this.length_s ? (work_s / this.length_s).toFixed(2) : undefined,
      gap: gaps.length ? seconds(Math.max(...gaps)) : undefined,
      underruns: first && String(this.underruns.length),
      tokens: first && String(this.tokens),
      windows: first && String(this.windows),
      chunks: first && String(this.chunks.length),
      length: first && seconds(this.length_s),
    };
  }
}

// The server counts characters, JavaScript halves of some.
const units = (text, chars) => [...text].slice(0, chars).join("").length;

export function seconds(value) {
  if (value >= 90) return `${Math.floor(value / 60)}:${String(Math.floor(value % 60)).padStart(2, "0")} min`;
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(value < 10 ? 2 : 1)} s`;
}
