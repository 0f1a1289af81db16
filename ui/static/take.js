// What happened in one take, and the figures that follow from it. Times in seconds on the clock of performance.now().

export const now = () => performance.now() / 1000;

export class Take {
  constructor(name, request) {
    this.name = name; // "a" or "b"
    this.request = request;
    this.started = now();
    this.sent = ""; // text that has left for the server
    this.words = []; // when each piece of it left
    this.segments = []; // {index, text, from, to: chars of `sent`, offset_s, began, ended?, tokens?, ...}
    this.chunks = []; // {arrived, offset_s, length_s, window?, tokens, gap_s}
    this.pieces = []; // Float32Array per chunk
    this.leads = []; // {at, lead_s} while it is played live
    this.underruns = []; // {at, gap_s}
    this.rate = 24000;
    this.length_s = 0;
    this.state = "waiting"; // speaking, done, stopped, failed
  }

  say(text) {
    this.sent += text;
    this.words.push(now());
  }

  begin(event) {
    const from = this.segments.at(-1)?.to ?? 0;
    const found = this.sent.indexOf(event.text, from);
    const to = found < 0 ? event.consumed : found + event.text.length;
    this.segments.push({ index: event.segment, from, to, offset_s: event.offset / this.rate, began: now(), tokens: 0 });
  }

  complete(event) {
    const segment = this.segments.find((one) => one.index === event.segment);
    if (segment) Object.assign(segment, { ended: now(), tokens: event.tokens });
  }

  add(event, pcm) {
    const samples = Float32Array.from(pcm, (value) => value / 32768);
    const chunk = { arrived: now(), offset_s: event.offset / this.rate, length_s: samples.length / this.rate };
    if (event.window) {
      chunk.window = event.window;
      const segment = this.segments.find((one) => one.index === event.segment);
      if (segment) segment.tokens = Math.max(segment.tokens, event.window.made_tokens);
    }
    chunk.tokens = this.tokens;
    this.chunks.push(chunk);
    this.pieces.push(samples);
    this.length_s += chunk.length_s;
    return samples;
  }

  heard(at, gap_s) {
    this.firstHeard ??= at;
    if (gap_s > 0) this.underruns.push({ at: now(), gap_s });
  }

  get tokens() {
    return this.segments.reduce((sum, one) => sum + one.tokens, 0);
  }

  get windows() {
    return this.chunks.filter((one) => one.window).length;
  }

  get seed() {
    return this.resolved?.seed ?? "";
  }

  // Everything that is there so far, as one piece.
  get samples() {
    const all = new Float32Array(this.pieces.reduce((sum, one) => sum + one.length, 0));
    let offset = 0;
    for (const piece of this.pieces) {
      all.set(piece, offset);
      offset += piece.length;
    }
    return all;
  }

  figures() {
    const first = this.chunks[0];
    const gaps = this.chunks.slice(1).map((one, i) => one.arrived - this.chunks[i].arrived);
    const work_s = this.segments.reduce((sum, one) => sum + ((one.ended ?? this.chunks.at(-1)?.arrived ?? one.began) - one.began), 0);
    const asked = this.words[0] ?? this.started;
    return {
      ttfa: first && seconds(first.arrived - asked),
      sound: this.firstHeard && seconds(this.firstHeard - asked),
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

export function seconds(value) {
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(value < 10 ? 2 : 1)} s`;
}
