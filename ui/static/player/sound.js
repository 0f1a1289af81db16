// Gapless playback of samples as they arrive: each piece starts when the one before it ends.
// It schedules buffers on the audio clock, because audio worklets work on https only.

const LEAD_S = 0.02; // delay of the first sample, so that the audio thread gets it in time
const FADE_S = 0.01; // avoids a click at a stop
const RATE_HZ = 24000;

export class Sound {
  #sources = new Set();
  #runs = []; // sound without a gap: from context time `at`, which is second `from` of the recording, to `until`
  #next = 0;
  #gain = null;
  static #context = null; // one for the whole page

  // Must be called in a click or key press; otherwise browsers stay silent.
  wake() {
    Sound.#context ??= new AudioContext({ sampleRate: RATE_HZ, latencyHint: "interactive" });
    Sound.#context.resume();
  }

  // Starts a new recording at its second `from` and silences the one before.
  begin(from = 0) {
    this.silence();
    this.#gain = Sound.#context.createGain();
    this.#gain.connect(Sound.#context.destination);
    this.#runs = [];
    this.#next = 0;
    this.from = from;
  }

  // Appends samples. Returns the context time of the first one and the seconds of silence before it.
  push(samples, rate) {
    const buffer = Sound.#context.createBuffer(1, samples.length, rate);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(Sound.#context, { buffer });
    source.connect(this.#gain);
    const earliest = Sound.#context.currentTime + LEAD_S;
    const inTime = this.#next >= Sound.#context.currentTime && this.#runs.length > 0;
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
    const now = Sound.#context.currentTime;
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

  // The seconds of audio that are not yet played.
  get lead() {
    return Sound.#context && this.#gain ? Math.max(0, this.#next - Sound.#context.currentTime) : 0;
  }

  // The second of the recording that plays now.
  get position() {
    if (!this.#runs.length) return this.from ?? 0;
    const now = Sound.#context.currentTime;
    const run = this.#runs.findLast((one) => one.at <= now) ?? this.#runs[0];
    return run.from + Math.min(Math.max(0, now - run.at), run.until - run.at);
  }

  // When a context time becomes audible, in seconds on the clock of performance.now().
  audibleAt(at) {
    const latency_s = Sound.#context.outputLatency || Sound.#context.baseLatency || 0;
    return performance.now() / 1000 + at - Sound.#context.currentTime + latency_s;
  }
}
