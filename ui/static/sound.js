// Plays samples as they arrive: every piece is scheduled for the very moment at which the one before it ends.
// Knows nothing of streams or pages. Buffers scheduled on the audio clock, not a worklet: those exist only on https.

const LEAD_S = 0.02; // from now to a first sample, so that the audio thread has seen it in time
const FADE_S = 0.01; // a stop without a click
const RATE_HZ = 24000;

export class Sound {
  #sources = new Set();
  #runs = []; // what is heard without a break: context times from `at` to `until`, of which `at` is second `from`
  #next = 0;
  #gain = null;
  #context = null;

  // Called in a click or key press, else browsers stay silent.
  wake() {
    this.#context ??= new AudioContext({ sampleRate: RATE_HZ, latencyHint: "interactive" });
    this.#context.resume();
  }

  // A new piece of speech, heard from its second `from` on. What sounded before falls silent.
  begin(from = 0) {
    this.silence();
    this.#gain = this.#context.createGain();
    this.#gain.connect(this.#context.destination);
    this.#runs = [];
    this.#next = 0;
    this.from = from;
  }

  // Adds samples behind what is there. Returns the context time of the first and the seconds of silence before it.
  push(samples, rate) {
    const buffer = this.#context.createBuffer(1, samples.length, rate);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(this.#context, { buffer });
    source.connect(this.#gain);
    const earliest = this.#context.currentTime + LEAD_S;
    const inTime = this.#next >= this.#context.currentTime && this.#runs.length > 0;
    const at = inTime ? this.#next : earliest;
    const last = this.#runs.at(-1);
    const gap_s = last && !inTime ? at - last.until : 0;
    if (inTime) last.until = at + buffer.duration;
    else this.#runs.push({ at, until: at + buffer.duration, from: last ? last.from + last.until - last.at : this.from });
    this.#next = at + buffer.duration;
    this.#sources.add(source);
    source.onended = () => this.#sources.delete(source);
    source.start(at);
    return { at, gap_s, first: !last };
  }

  silence() {
    if (!this.#gain) return;
    const now = this.#context.currentTime;
    this.#gain.gain.setValueAtTime(1, now);
    this.#gain.gain.linearRampToValueAtTime(0, now + FADE_S);
    for (const source of this.#sources) source.stop(now + FADE_S);
    const last = this.#runs.at(-1);
    if (last && last.until > now) last.until = Math.max(last.at, now);
    this.#next = 0;
    this.#gain = null;
  }

  get playing() {
    return this.lead > 0;
  }

  // Seconds that are there and not yet heard.
  get lead() {
    return this.#context && this.#gain ? Math.max(0, this.#next - this.#context.currentTime) : 0;
  }

  // The second that is heard now.
  get position() {
    if (!this.#runs.length) return this.from ?? 0;
    const now = this.#context.currentTime;
    const run = this.#runs.findLast((one) => one.at <= now) ?? this.#runs[0];
    return run.from + Math.min(Math.max(0, now - run.at), run.until - run.at);
  }

  // When a context time is heard, on the clock of performance.now(), in seconds.
  heard(at) {
    const latency_s = this.#context.outputLatency || this.#context.baseLatency || 0;
    return performance.now() / 1000 + at - this.#context.currentTime + latency_s;
  }
}
