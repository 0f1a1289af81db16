// The form that makes a voice: a recording or a file, its check, a name, the consent.

import { request } from "./api.js";
import { check } from "./clip.js";
import { make } from "./dom.js";
import * as errors from "./errors.js";
import { Recorder } from "./recorder.js";
import { refresh } from "./voice_store.js";
import { aboutNew } from "./voice_words.js";

export function mount(element) {
  new Form(element.querySelector("form"));
}

class Form {
  constructor(form) {
    this.part = (selector) => form.querySelector(selector);
    this.clip = null; // the Blob to upload
    this.blocked = ""; // why it is not uploaded
    this.recorder = new Recorder(this.part("[data-do=record]"), (blob, problem) => {
      if (problem) this.#judge("no", problem);
      else this.#take(blob, "Recorded just now");
    });
    const file = this.part("input[type=file]");
    this.part("[data-do=choose]").onclick = () => file.click();
    file.onchange = () => { if (file.files[0]) this.#take(file.files[0], file.files[0].name); file.value = ""; };
    const drop = this.part(".drop");
    for (const kind of ["dragover", "dragleave", "drop"])
      drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.toggle("over", kind === "dragover"); });
    drop.addEventListener("drop", ({ dataTransfer: { files } }) => files[0] && this.#take(files[0], files[0].name));
    form.addEventListener("submit", (event) => { event.preventDefault(); this.#create(); });
    for (const button of ["#create", "[data-do=record]", "[data-do=choose]"]) this.part(button).disabled = false;
  }

  async #take(blob, name) {
    errors.clear(this.part("#clip"));
    this.clip = blob;
    this.blocked = "";
    this.part(".clip-name").textContent = name;
    const audio = this.part("audio");
    if (audio.src) URL.revokeObjectURL(audio.src);
    if (blob.size) audio.src = URL.createObjectURL(blob);
    else audio.removeAttribute("src"); // a browser complains about empty sounds
    audio.hidden = false;
    for (const one of ["length", "loudness", "peak"]) this.part(`[data-clip=${one}]`).textContent = "–";
    const { verdict, text, figures, blocks } = await check(blob);
    if (this.clip !== blob) return;
    this.blocked = blocks ? text : "";
    for (const [one, value] of Object.entries(figures)) this.part(`[data-clip=${one}]`).textContent = value;
    audio.hidden = !figures.length; // a browser that cannot read the clip cannot play it
    this.#judge(verdict, text);
  }

  #judge(verdict, text) {
    this.part(".verdict-text").dataset.verdict = verdict;
    this.part(".verdict-text").textContent = text;
  }

  async #create() {
    for (const place of ["#clip", "#voice-name", "#consent"]) errors.clear(this.part(place));
    const result = this.part(".clone-result"), button = this.part("#create");
    result.replaceChildren();
    if (!this.clip) return this.#failed({ message: "Record or choose a clip first.", field: "clip" });
    if (this.blocked) return this.#failed({ message: this.blocked, field: "clip" });
    const checked = (place) => String(this.part(`${place} input`).checked);
    const query = new URLSearchParams({ name: this.part("#voice-name input").value, consent: checked("#consent"), keep_recording: checked("#keep-recording") });
    button.disabled = true;
    result.textContent = "Creating the voice …";
    const answer = await request(`voices?${query}`, { method: "POST", body: this.clip, headers: { "content-type": "application/octet-stream" } });
    button.disabled = false;
    if (!answer.created) return this.#failed(answer);
    result.replaceChildren(...aboutNew(answer.voice).map(([verdict, sentence]) => {
      const text = make("p", sentence, { className: "verdict-text" });
      text.dataset.verdict = verdict;
      return text;
    }));
    await refresh();
  }

  #failed(answer) {
    this.part(".clone-result").replaceChildren();
    errors.show(answer, "a", this.part(".clone-result"));
  }
}
