// The player: connects recordings, sound and drawings, and handles the page's buttons. Gradio's events import this
// module, so a click waits for it. `window.mynah.player` is for tests and debugging.

import { differences } from "./compare.js";
import * as errors from "./errors.js";
import { drawFigures } from "./player/figures.js";
import { Recording, now, seconds } from "./player/recording.js";
import { Sound } from "./player/sound.js";
import { openStream } from "./stream.js";
import { Timeline } from "./player/timeline.js";
import * as sample from "./sample.js";
import { drawTranscript } from "./player/transcript.js";
import { type } from "./player/typing.js";
import { Wave } from "./player/wave.js";
import { language } from "./language.js";
import { model } from "./models.js";
import { modelSettings } from "./model.js";
import { chosen } from "./voice.js";

const SETTINGS = ["temperature", "top_p", "top_k", "repetition_penalty", "max_speech_tokens", "seed"];
const PLAYING = "Playing …";
const LONG_CHARS = 1000; // a text of which the progress is shown
const PIECE_CHARS = 2000; // of a text that is sent at once

const respellings = () => document.querySelector("#respellings textarea")?.value ?? "";
const mounted = Promise.withResolvers();

export const speak = async (which, args) => (await mounted.promise).speak(which, args);
export const setSpeed = async ([speed]) => (await mounted.promise).live?.setSpeed(speed);

export function mount(element) {
  const player = new Player(element);
  mounted.resolve(player);
  window.mynah = { player };
  document.addEventListener("click", ({ target }) => target.closest("#stop") && player.stop(), true);
  document.addEventListener("mynah-sample", () => player.stop());
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) press("#speak");
    else if (event.key === "Escape") player.stop();
    else return;
    event.preventDefault();
  });
  document.documentElement.dataset.mynah = "ready";
}

// Clicks one of Gradio's buttons after Gradio has received the text that was just typed.
function press(button) {
  document.activeElement?.dispatchEvent(new Event("change", { bubbles: true }));
  requestAnimationFrame(() => document.querySelector(button)?.click());
}

class Player {
  constructor(element) {
    this.element = element;
    this.part = (selector) => element.querySelector(selector);
    this.parts = (selector) => [...element.querySelectorAll(selector)];
    this.sound = new Sound();
    this.wave = new Wave(this.part(".wave canvas"), this.part(".spectrum canvas"));
    this.timeline = new Timeline(this.part(".timeline"));
    this.recordings = {};
    this.shown = null; // the recording on display
    this.live = null; // {recording, halt, over} while a recording is being made
    element.addEventListener("click", (event) => this.#click(event));
    this.#makeSlider();
    new ResizeObserver(() => this.draw(true)).observe(element);
    new MutationObserver(() => this.draw(true)).observe(document.body, { attributeFilter: ["class"] });
  }

  // The arguments are the form's values, then the controls of settings A and of settings B; see page.py.
  async speak(which, [text, pace, typed_per_s, first_segment, speed, ...controls]) {
    errors.clear();
    if (!text.trim()) return errors.show({ field: "text", message: "There is no text to speak. Write some first." });
    const settings = { a: settingsOf("a", controls.slice(0, SETTINGS.length)), b: settingsOf("b", controls.slice(SETTINGS.length)) };
    const words_per_s = pace === "Word by word" ? typed_per_s : null;
    const label = (name) => (which === "ab" ? `settings ${name.toUpperCase()}` : "");
    const request = (name) => ({ text, words_per_s, first_segment, speed, model: model(), language: language(), respellings: respellings(), label: label(name), ...settings[name] });
    await this.#stopped();
    this.recordings = {};
    this.#showDifference(which === "ab" ? differences(settings.a, settings.b) : "");
    const first = await this.#record("a", request("a"));
    if (which !== "ab" || first.state !== "done") return;
    await this.#playedOut();
    if (this.live || first.state !== "done") return;
    const b = request("b");
    b.sampling.seed ||= first.seed; // so that only the settings differ
    await this.#record("b", { ...b, schedule: first.schedule });
  }

  stop() {
    const heard = this.sound.playing && !this.live;
    this.sound.silence();
    this.live?.halt();
    sample.stop();
    if (heard) this.#setStatus(`Stopped at ${seconds(this.sound.position)}.`);
    this.draw(true);
  }

  // Speaks the shown recording's text once more: the same speech again, whatever the server's load, or another take.
  async #repeat(same) {
    const { name, request, seed, schedule } = this.shown;
    errors.clear();
    await this.#stopped();
    const repeated = same ? { seed, schedule } : { seed: "", schedule: "" };
    await this.#record(name, { ...request, schedule: repeated.schedule, sampling: { ...request.sampling, seed: repeated.seed } });
  }

  async #stopped() {
    this.sound.wake(); // browsers allow this only within the click
    this.stop();
    await this.live?.over;
  }

  // Resolves when the sound has ended or was stopped.
  #playedOut() {
    return new Promise((resolve) => {
      const check = () => (this.sound.playing ? requestAnimationFrame(check) : resolve());
      check();
    });
  }

  // Makes one recording, from its opening to its last event.
  #record(name, request) {
    const recording = new Recording(name, request);
    this.recordings[name] = recording;
    this.show(name);
    this.sound.begin();
    this.audible = recording;
    const over = new Promise((resolve) => {
      const { voice, sampling, speed, model, language, first_segment, respellings, schedule } = request;
      const opening = { voice, sampling, speed, model, language, first_segment, respellings, schedule };
      const stream = openStream(opening, (event, samples) => {
        try {
          this.#onEvent(recording, event, samples);
        } finally {
          if (!recording.running) resolve(recording);
        }
      });
      const send = (text) => { recording.addText(text); stream.text(text); };
      const end = () => { recording.typed = true; stream.end(); };
      let stopTyping = () => {};
      if (request.words_per_s) stopTyping = type(request.text, request.words_per_s, send, end);
      else { for (const piece of pieces(request.text)) send(piece); end(); }
      const halt = () => { stopTyping(); recording.typed = true; recording.halted = true; stream.stop(); };
      this.live = { recording, halt, setSpeed: stream.speed };
    });
    this.live.over = over;
    this.#setStatus("Waiting for the first sound …");
    this.#comeIntoView();
    this.#animate();
    return over.then(() => { this.live = null; this.#ended(recording); return recording; });
  }

  #onEvent(recording, event, samples) {
    if (event.type === "opened") Object.assign(recording, { resolved: event, rate: event.rate_hz });
    else if (event.type === "segment_started") recording.startSegment(event);
    else if (event.type === "words") recording.addWords(event);
    else if (event.type === "segment_done") recording.endSegment(event);
    else if (event.type === "chunk") this.#chunk(recording, event, samples);
    else recording.state = event.type === "error" ? "failed" : event.type;
    if (event.type === "error") errors.show(event, recording.name, this.part(".general-errors"));
    if (event.recording_id) recording.recording_id = event.recording_id;
  }

  #chunk(recording, event, pcm) {
    recording.state = "speaking";
    const arrived = performance.now();
    const samples = recording.addChunk(event, pcm);
    if (recording.halted) return;
    const { at, gap_s, first } = this.sound.push(samples, recording.rate);
    recording.addPlayback(this.sound.audibleAt(at), gap_s);
    if (!first) return;
    recording.startDelay_ms = this.sound.audibleAt(at) * 1000 - arrived; // from the first chunk's arrival to its sound
    this.#setStatus("Speaking …");
  }

  #ended(recording) {
    const length = seconds(recording.length_s);
    const status = { done: `Done: ${length} of speech.`, stopped: `Stopped after ${length}.`, failed: "This did not work. The message says why." };
    this.#setStatus(recording.state === "done" && this.sound.playing ? PLAYING : status[recording.state]);
    if (recording.length_s) this.#listTake(recording);
    const { ttfa, rtf, gap, underruns } = recording.figures();
    const summary = recording.length_s
      ? `first audio after ${ttfa}, real-time factor ${rtf}, ${recording.chunks.length} chunks, longest gap ${gap ?? "none"}, ${underruns} underruns`
      : "no audio";
    this.part(".timeline").setAttribute("aria-label", `Timeline: ${summary}`);
    this.part(".spectrum").hidden = !recording.length_s;
    this.draw(true);
  }

  #listTake(recording) {
    const play = async (one) => {
      await this.#stopped();
      this.#showDifference("");
      this.recordings = { [one.name]: one };
      this.show(one.name);
      this.#comeIntoView();
      this.play(0);
    };
    document.dispatchEvent(new CustomEvent("mynah-take", { detail: { recording, play } }));
  }

  #showDifference(text) {
    this.part(".difference").textContent = text;
    this.part(".difference").hidden = !text;
  }

  // On a phone the player is below the text.
  #comeIntoView() {
    const { top } = this.element.getBoundingClientRect();
    if (top > innerHeight - 160 || top < 0) this.element.scrollIntoView({ block: "start", behavior: "smooth" });
  }

  // Shows a recording. If one is playing, the other continues at the same second.
  show(name) {
    const at_s = this.sound.position, playing = this.sound.playing && !this.live;
    this.shown = this.recordings[name];
    this.part(".which").hidden = !(this.recordings.a && this.recordings.b);
    for (const button of this.parts(".which button"))
      button.setAttribute("aria-pressed", String(button.dataset.recording === name));
    this.part(".spectrum").hidden = !(this.shown.length_s && this.shown !== this.live?.recording && this.shown.state !== "waiting");
    if (playing) this.play(at_s);
    this.draw(true);
  }

  play(from_s) {
    const recording = this.shown;
    if (!recording?.length_s || this.live) return;
    this.sound.wake();
    const start = Math.round(Math.min(from_s, recording.length_s - 0.01) * recording.rate);
    this.sound.begin(start / recording.rate);
    this.audible = recording;
    this.sound.push(recording.samples.subarray(start), recording.rate);
    this.#setStatus(PLAYING);
    this.#animate();
  }

  #click(event) {
    const button = event.target.closest("button");
    if (button?.dataset.recording) this.show(button.dataset.recording);
    else if (button?.dataset.do === "again") this.#repeat(true);
    else if (button?.dataset.do === "new") this.#repeat(false);
    else if (button?.dataset.do === "play") this.#playOrStop();
  }

  #playOrStop() {
    if (this.live || this.sound.playing) return this.stop();
    const at_s = this.audible === this.shown ? this.sound.position : 0;
    this.play(at_s < this.shown.length_s - 0.05 ? at_s : 0);
  }

  #makeSlider() {
    const slider = this.part(".wave");
    slider.addEventListener("pointerdown", (event) => {
      const { left, width } = slider.getBoundingClientRect();
      if (this.shown) this.play(((event.clientX - left) / width) * this.wave.shownSeconds(this.shown));
    });
    slider.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 5, PageDown: -5, Home: -1e9, End: 1e9 }[event.key];
      if (step) this.play(Math.max(0, this.sound.position + step));
      else if (event.key === " ") this.#playOrStop();
      else return;
      event.preventDefault();
    });
  }

  #setStatus(text) {
    if (this.part(".state").textContent !== text) this.part(".state").textContent = text;
  }

  // Draws every frame while a recording is made or played.
  #animate() {
    if (this.moving) return;
    this.moving = true;
    const frame = () => {
      const { live } = this;
      if (live?.recording.firstSound && !live.recording.halted) live.recording.leads.push({ at: now(), lead_s: this.sound.lead });
      else if (this.sound.playing && this.following?.chunks.length && this.audible === this.following)
        this.following.leads.push({ at: now(), lead_s: this.sound.lead });
      if (live) this.following = live.recording;
      this.draw();
      this.moving = Boolean(live || this.sound.playing);
      if (this.moving) requestAnimationFrame(frame);
      else this.#cameToRest();
    };
    requestAnimationFrame(frame);
  }

  #cameToRest() {
    this.following = null;
    if (this.part(".state").textContent === PLAYING) this.#setStatus(`Done: ${seconds(this.shown.length_s)} of speech.`);
    this.draw(true);
  }

  draw(whole = false) {
    const recording = this.shown;
    const position_s = recording && this.audible === recording ? this.sound.position : 0;
    this.wave.draw(recording, position_s);
    this.timeline.draw(recording);
    this.#drawProgress();
    if (whole && !this.part(".spectrum").hidden) this.wave.drawSpectrum(recording);
    this.#drawControls(recording, position_s);
    drawFigures(this.part(".figures"), Object.entries(this.recordings).map(([name, one]) => [name, this.#figures(one)]));
    drawTranscript(this.part(".transcript"), recording, position_s);
  }

  #drawProgress() {
    const recording = this.live?.recording, bar = this.part(".progress");
    bar.hidden = !(recording && recording.request.text.length > LONG_CHARS);
    if (bar.hidden || !recording.length_s) return;
    bar.value = recording.share;
    if (!recording.halted) this.#setStatus(`Speaking … ${Math.round(100 * recording.share)} % of the text, ${seconds(recording.length_s)} so far`);
  }

  #figures(recording) {
    const isLive = recording === this.live?.recording && recording.length_s;
    return { ...recording.figures(), lead: isLive ? `${this.sound.lead.toFixed(1)} s` : undefined };
  }

  #drawControls(recording, position_s) {
    const busy = Boolean(this.live || this.sound.playing);
    const play = this.part("[data-do=play]");
    play.disabled = !recording?.length_s && !this.live;
    if (play.getAttribute("aria-label") !== (busy ? "Stop" : "Play")) {
      play.setAttribute("aria-label", busy ? "Stop" : "Play");
      play.querySelector("path").setAttribute("d", busy ? "M6 6h12v12H6z" : "M8 5v14l11-7z");
    }
    for (const name of ["again", "new"]) this.part(`[data-do=${name}]`).disabled = !recording?.seed || Boolean(this.live);
    this.part("[data-seed]").textContent = recording?.seed || "–";
    this.part("[data-clock]").textContent = position_s.toFixed(1);
    const slider = this.part(".wave");
    slider.setAttribute("aria-valuemax", (recording?.length_s ?? 0).toFixed(1));
    slider.setAttribute("aria-valuenow", position_s.toFixed(1));
    if (recording?.length_s) slider.setAttribute("aria-valuetext", `${position_s.toFixed(1)} of ${recording.length_s.toFixed(1)} seconds`);
  }
}

// The values of one group of controls, by name.
function settingsOf(which, values) {
  const sampling = Object.fromEntries(SETTINGS.map((name, i) => [name, values[i]]));
  return { voice: chosen(which), sampling: { ...sampling, ...modelSettings(which) } };
}

function pieces(text) {
  return Array.from({ length: Math.ceil(text.length / PIECE_CHARS) }, (_, i) => text.slice(i * PIECE_CHARS, (i + 1) * PIECE_CHARS));
}
