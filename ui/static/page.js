// The player: brings takes, sound and pictures together and answers the page's buttons. Gradio's events import this
// module, so that a click waits for it; `window.mynah.player` is there to be looked at.

import * as errors from "./errors.js";
import { Sound } from "./sound.js";
import { openStream } from "./stream.js";
import { Take, now, seconds } from "./take.js";
import { Timeline } from "./timeline.js";
import { type } from "./typing.js";
import { Wave } from "./wave.js";

const KNOBS = ["voice", "temperature", "top_p", "top_k", "repetition_penalty", "max_speech_tokens", "seed"];

const mounted = Promise.withResolvers();

export const speak = async (which, given) => (await mounted.promise).speak(which, given);

export function mount(element, trigger) {
  const player = new Player(element, trigger);
  mounted.resolve(player);
  window.mynah = { player };
  document.addEventListener("click", ({ target }) => target.closest("#stop") && player.stop(), true);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) press("#speak");
    else if (event.key === "Escape") player.stop();
    else return;
    event.preventDefault();
  });
  document.documentElement.dataset.mynah = "ready";
}

// A click on Gradio's button, once the text that was just typed has reached Gradio.
function press(button) {
  document.activeElement?.dispatchEvent(new Event("change", { bubbles: true }));
  requestAnimationFrame(() => document.querySelector(button)?.click());
}

class Player {
  constructor(element, trigger) {
    this.part = (name) => element.querySelector(name);
    this.trigger = trigger;
    this.sound = new Sound();
    this.wave = new Wave(this.part(".wave canvas"), this.part(".spectrum canvas"));
    this.timeline = new Timeline(this.part(".timeline"));
    this.takes = {};
    this.shown = null; // the take on display
    this.live = null; // the take that is being made, with its stream
    element.addEventListener("click", (event) => this.#click(event));
    this.#makeSlider();
    new ResizeObserver(() => this.draw(true)).observe(element);
    new MutationObserver(() => this.draw(true)).observe(document.body, { attributeFilter: ["class"] });
  }

  // `given`: text, pace, words per second, then the controls of setting A and of setting B.
  async speak(which, [text, pace, speed, ...controls]) {
    errors.clear();
    if (!text.trim()) return errors.show({ field: "text", message: "There is nothing to say yet. Write some text." });
    const settings = { a: named(controls.slice(0, KNOBS.length)), b: named(controls.slice(KNOBS.length)) };
    const words_per_s = pace === "Type as an agent" ? speed : null;
    const request = (name) => ({ text, words_per_s, ...settings[name] });
    await this.#stopped();
    this.takes = {};
    const first = await this.#run("a", request("a"));
    if (which !== "ab" || first.state !== "done") return;
    await this.#heard();
    if (this.live || first.state !== "done") return;
    const b = request("b");
    b.sampling.seed ||= first.seed; // so that only the settings differ
    await this.#run("b", b);
  }

  stop() {
    this.stopAsked = now();
    this.sound.silence();
    this.live?.halt();
    this.draw(true);
  }

  // Speaks the shown take's text once more; with its seed, or with a new one.
  async #repeat(sameSeed) {
    const { name, request, seed } = this.shown;
    errors.clear();
    await this.#stopped();
    await this.#run(name, { ...request, sampling: { ...request.sampling, seed: sameSeed ? seed : "" } });
  }

  async #stopped() {
    this.sound.wake(); // still inside the click
    this.stop();
    await this.live?.over;
  }

  // Until what is there has been heard, or was stopped.
  #heard() {
    return new Promise((resolve) => {
      const look = () => (this.sound.playing ? requestAnimationFrame(look) : resolve());
      look();
    });
  }

  // One take from its opening to its last event.
  #run(name, request) {
    const take = new Take(name, request);
    this.takes[name] = take;
    this.show(name);
    this.sound.begin();
    this.audible = take;
    const over = new Promise((resolve) => {
      const stream = openStream({ voice: request.voice, sampling: request.sampling }, (event, samples) => {
        try {
          this.#hear(take, event, samples);
        } finally {
          if (["done", "stopped", "failed"].includes(take.state)) resolve(take);
        }
      });
      const say = (text) => { take.say(text); stream.text(text); };
      let untype = () => {};
      if (request.words_per_s) untype = type(request.text, request.words_per_s, say, () => { take.typed = true; stream.end(); });
      else { say(request.text); take.typed = true; stream.end(); }
      this.live = { take, halt: () => { untype(); take.typed = true; take.halted = true; stream.stop(); } };
    });
    this.live.over = over;
    this.#tell("Waiting for the first sound …");
    this.#animate();
    return over.then(() => { this.live = null; this.#ended(take); return take; });
  }

  #hear(take, event, samples) {
    if (event.type === "opened") Object.assign(take, { resolved: event, rate: event.rate_hz });
    else if (event.type === "segment") take.begin(event);
    else if (event.type === "segment_done") take.complete(event);
    else if (event.type === "chunk") this.#chunk(take, event, samples);
    else take.state = event.type === "error" ? "failed" : event.type;
    if (event.type === "error") errors.show(event, take.name, this.part(".elsewhere"));
    if (event.take) this.trigger("finished", { take: event.take });
  }

  #chunk(take, event, pcm) {
    take.state = "speaking";
    const arrived = performance.now();
    const samples = take.add(event, pcm);
    if (take.halted) return;
    const { at, gap_s, first } = this.sound.push(samples, take.rate);
    take.heard(this.sound.heard(at), gap_s);
    if (!first) return;
    take.startDelay_ms = this.sound.heard(at) * 1000 - arrived; // from the first chunk's arrival to its sound
    this.#tell("Speaking …");
  }

  #ended(take) {
    const length = seconds(take.length_s);
    const told = { done: `Done: ${length} of speech.`, stopped: `Stopped after ${length}.`, failed: "That did not work; see below." };
    this.#tell(told[take.state]);
    const { ttfa, rtf, gap, underruns } = take.figures();
    const summary = take.length_s
      ? `first audio after ${ttfa}, real-time factor ${rtf}, ${take.chunks.length} chunks, longest gap ${gap ?? "none"}, ${underruns} underruns`
      : "no audio";
    this.part(".timeline").setAttribute("aria-label", `Timeline: ${summary}`);
    this.part(".spectrum").hidden = !take.length_s;
    this.draw(true);
  }

  // Puts a take on display; while one plays, the other goes on at the same second.
  show(name) {
    const at_s = this.sound.position, playing = this.sound.playing && !this.live;
    this.shown = this.takes[name];
    this.part(".which").hidden = !(this.takes.a && this.takes.b);
    for (const button of element_all(this.part(".which"), "button"))
      button.setAttribute("aria-pressed", String(button.dataset.take === name));
    this.part(".spectrum").hidden = !(this.shown.length_s && this.shown !== this.live?.take && this.shown.state !== "waiting");
    if (playing) this.play(at_s);
    this.draw(true);
  }

  play(from_s) {
    const take = this.shown;
    if (!take?.length_s || this.live) return;
    this.sound.wake();
    const start = Math.round(Math.min(from_s, take.length_s - 0.01) * take.rate);
    this.sound.begin(start / take.rate);
    this.audible = take;
    this.sound.push(take.samples.subarray(start), take.rate);
    this.#animate();
  }

  #click(event) {
    const button = event.target.closest("button");
    if (button?.dataset.take) this.show(button.dataset.take);
    else if (button?.dataset.do === "again") this.#repeat(true);
    else if (button?.dataset.do === "anew") this.#repeat(false);
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
      if (this.shown) this.play(((event.clientX - left) / width) * this.wave.shown(this.shown));
    });
    slider.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 5, PageDown: -5, Home: -1e9, End: 1e9 }[event.key];
      if (step) this.play(Math.max(0, this.sound.position + step));
      else if (event.key === " ") this.#playOrStop();
      else return;
      event.preventDefault();
    });
  }

  #tell(words) {
    this.part(".state").textContent = words;
  }

  // Draws every frame while anything moves.
  #animate() {
    if (this.moving) return;
    this.moving = true;
    const frame = () => {
      const { live } = this;
      if (live?.take.firstHeard && !live.take.halted) live.take.leads.push({ at: now(), lead_s: this.sound.lead });
      else if (this.sound.playing && this.following?.chunks.length && this.audible === this.following)
        this.following.leads.push({ at: now(), lead_s: this.sound.lead });
      if (live) this.following = live.take;
      this.draw();
      this.moving = Boolean(live || this.sound.playing);
      if (this.moving) requestAnimationFrame(frame);
      else this.following = null, this.draw(true);
    };
    requestAnimationFrame(frame);
  }

  draw(whole = false) {
    const take = this.shown;
    const position_s = take && this.audible === take ? this.sound.position : 0;
    this.wave.draw(take, position_s);
    this.timeline.draw(take);
    if (whole && !this.part(".spectrum").hidden) this.wave.drawSpectrum(take);
    this.#controls(take, position_s);
    this.#figures();
    this.#said(take, position_s);
  }

  #controls(take, position_s) {
    const busy = Boolean(this.live || this.sound.playing);
    const play = this.part("[data-do=play]");
    play.disabled = !take?.length_s && !this.live;
    if (play.getAttribute("aria-label") !== (busy ? "Stop" : "Play")) {
      play.setAttribute("aria-label", busy ? "Stop" : "Play");
      play.querySelector("path").setAttribute("d", busy ? "M6 6h12v12H6z" : "M8 5v14l11-7z");
    }
    for (const name of ["again", "anew"]) this.part(`[data-do=${name}]`).disabled = !take?.seed || Boolean(this.live);
    this.part("[data-seed]").textContent = take?.seed || "–";
    this.part("[data-clock]").textContent = position_s.toFixed(1);
    const slider = this.part(".wave");
    slider.setAttribute("aria-valuemax", (take?.length_s ?? 0).toFixed(1));
    slider.setAttribute("aria-valuenow", position_s.toFixed(1));
    if (take?.length_s) slider.setAttribute("aria-valuetext", `${position_s.toFixed(1)} of ${take.length_s.toFixed(1)} seconds`);
  }

  #figures() {
    const told = Object.entries(this.takes).map(([name, take]) => {
      const lead = take === this.live?.take && take.length_s ? `${this.sound.lead.toFixed(1)} s` : undefined;
      return [name, take, { ...take.figures(), lead }];
    });
    for (const place of element_all(this.part(".figures"), "[data-figure]")) {
      const values = told.map(([name, take, figures]) => [name, figures[place.dataset.figure] ?? "–", take === this.shown]);
      const text = values.map(([name, value]) => (values.length > 1 ? `${name.toUpperCase()} ${value}` : value)).join("\n");
      if (place.textContent !== (text || "–")) place.textContent = text || "–";
    }
  }

  // What has been said, what is being heard, and what waits for its sentence to end.
  #said(take, position_s) {
    const said = this.part(".said");
    said.hidden = !take?.sent;
    if (!take?.sent) return;
    const heard = position_s > 0 ? take.segments.findLast((one) => one.offset_s <= position_s) : null;
    const key = `${take.name}${take.started}/${take.sent.length}/${take.segments.length}/${heard?.index}/${take.typed}`;
    if (said.dataset.key === key) return;
    said.dataset.key = key;
    const consumed = take.segments.at(-1)?.to ?? 0;
    const spans = take.segments.map((one) => span(take.sent.slice(one.from, one.to), one === heard ? "heard" : "made"));
    if (consumed < take.sent.length) spans.push(span(take.sent.slice(consumed), "waits"));
    if (!take.typed) spans.push(span("", "caret"));
    said.replaceChildren(...spans);
  }
}

function span(text, kind) {
  const made = document.createElement("span");
  made.className = kind;
  made.textContent = text;
  return made;
}

function element_all(element, selector) {
  return [...element.querySelectorAll(selector)];
}

// The values of a setting's controls by name.
function named(values) {
  const { voice, ...sampling } = Object.fromEntries(KNOBS.map((name, i) => [name, values[i]]));
  return { voice, sampling };
}
