// The settings that only some models have, in settings A and B; and the loaded model's defaults of all settings.

import { make } from "./dom.js";

// Ranges as in the contract: name -> label, hint, minimum, maximum, step
const KNOBS = {
  cfg_weight: ["Guidance", "How strongly the text guides the speech; 0 is without", 0, 2, 0.05],
  exaggeration: ["Exaggeration", "How lively the speech is; 0.5 is neutral", 0.25, 2, 0.05],
  min_p: ["Min p", "Drops sounds below this share of the likeliest; 0 drops none", 0, 1, 0.01],
};
const CONTINUITY = ["Continuity", "Each sentence goes on from the speech before it, instead of anew"];
const SLIDERS = { temperature: 0.8, top_p: 0.95, top_k: 1000, repetition_penalty: 1.2, max_speech_tokens: 1000 };

export function mount(element) {
  const knobs = element.querySelector(".model-knobs");
  const draw = (state) => {
    if (!state?.up) return;
    drawKnobs(knobs, state);
    setSliders(knobs.dataset.which, knobs);
  };
  document.addEventListener("mynah-server", ({ detail }) => draw(detail));
  document.addEventListener("mynah-settled", () => draw(window.mynahServer));
  draw(window.mynahServer);
}

// What is chosen in settings "a" or "b" of what the model has.
export function modelSettings(which) {
  const inputs = document.querySelectorAll(`.model-knobs[data-which="${which}"] input`);
  const chosen = [...inputs].map((input) => [input.name, input.type === "checkbox" ? input.checked : input.valueAsNumber]);
  return { ...unopened(window.mynahServer ?? {}), ...Object.fromEntries(chosen) };
}

// Settings whose tab has not been opened have no controls yet: they stand at the model's defaults.
function unopened(state) {
  return { ...knobDefaults(state), ...(state.continuity ? { continuity: false } : {}) };
}

// The defaults of the KNOBS that the model has.
function knobDefaults(state) {
  const all = Object.keys(KNOBS).map((name) => [name, state[`${name}_default`]]);
  return Object.fromEntries(all.filter(([, value]) => typeof value === "number"));
}

// The values of the "Back to defaults" button, in the order of its outputs.
export function defaults(which) {
  for (const input of document.querySelectorAll(`.model-knobs[data-which="${which}"] input`)) {
    if (input.type === "checkbox") input.checked = false;
    else {
      input.value = input.dataset.default;
      input.oninput();
    }
  }
  return [...Object.values(modelDefaults()), ""];
}

function modelDefaults() {
  const known = window.mynahServer?.sampling_defaults ?? {};
  return Object.fromEntries(Object.entries(SLIDERS).map(([name, own]) => [name, known[name] ?? own]));
}

// Sliders that stand at the former defaults follow the model's, once Gradio has set them up.
function setSliders(which, knobs) {
  const tab = knobs.closest("[role=tabpanel]");
  if (tab?.dataset.settled === undefined) return;
  const former = JSON.parse(knobs.dataset.defaults ?? JSON.stringify(SLIDERS)), now = modelDefaults();
  for (const [name, value] of Object.entries(now)) {
    const input = document.querySelector(`#${name.replaceAll("_", "-")}-${which} input[type=number]`);
    if (!input || value === former[name] || input.valueAsNumber !== former[name]) continue;
    input.value = value;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  }
  knobs.dataset.defaults = JSON.stringify(now);
}

function drawKnobs(knobs, state) {
  const has = Object.entries(knobDefaults(state));
  const key = [...has.map(([name, value]) => `${name} ${value}`), state.continuity].join();
  if (knobs.dataset.key === key) return;
  knobs.dataset.key = key;
  const drawn = has.map(([name, value]) => knob(name, knobs.dataset.which, value));
  if (state.continuity) drawn.push(continuity(knobs.dataset.which));
  knobs.replaceChildren(...drawn);
}

function continuity(which) {
  const [text, hint] = CONTINUITY, field = make("div", "", { className: "field" }), label = make("label", "", { className: "check" });
  const input = Object.assign(document.createElement("input"), { type: "checkbox", name: "continuity", id: `continuity-${which}-input` });
  const about = make("p", hint, { className: "hint" });
  field.id = `continuity-${which}`;
  about.id = `${field.id}-hint`;
  input.setAttribute("aria-describedby", about.id);
  label.append(input, make("span", text));
  field.append(label, about);
  return field;
}

function knob(name, which, value) {
  const [text, hint, min, max, step] = KNOBS[name];
  const field = make("div", "", { className: "field" }), label = make("label", text, { className: "label" });
  field.id = `${name.replaceAll("_", "-")}-${which}`;
  const input = Object.assign(document.createElement("input"), { type: "range", name, min, max, step, id: `${field.id}-input`, value });
  const output = make("output", String(value)), about = make("p", hint, { className: "hint" });
  about.id = `${field.id}-hint`;
  label.htmlFor = output.htmlFor = input.id;
  input.setAttribute("aria-describedby", about.id);
  input.dataset.default = value;
  input.oninput = () => { output.textContent = input.value; };
  field.append(label, output, about, input);
  return field;
}
