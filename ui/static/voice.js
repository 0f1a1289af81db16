// The choice of a voice, with a button that speaks a short sample.

import * as errors from "./errors.js";
import * as sample from "./sample.js";
import { remember, remembered } from "./store.js";
import { all } from "./voice_store.js";

const FALLBACK = "default";

export function mount(element) {
  const field = element.querySelector(".voice-field"), select = field.querySelector("select");
  const draw = () => {
    const chosen = select.dataset.chosen ?? remembered(field.id) ?? FALLBACK;
    const known = all().length ? all() : [{ id: FALLBACK, name: "Built-in voice" }];
    const gone = known.some((one) => one.id === chosen) ? [] : [{ id: chosen, name: "A voice that was deleted" }];
    // a voice that is remembered from another server or day is not missed
    const missed = gone.length && !select.dataset.chosen && all().length;
    const shown = missed || !all().length ? known : [...known, ...gone];
    select.replaceChildren(...shown.map((one) => new Option(one.name, one.id)));
    select.value = shown.some((one) => one.id === chosen) ? chosen : known[0].id;
  };
  const choose = (id) => {
    select.dataset.chosen = id;
    remember(field.id, id);
    draw();
  };
  select.addEventListener("change", () => { choose(select.value); sample.stop(); });
  field.querySelector("[data-do=listen]").onclick = ({ currentTarget }) => {
    errors.clear(field);
    sample.toggle(select.value, currentTarget);
  };
  field.querySelector("[data-do=listen]").disabled = false;
  document.addEventListener("mynah-voices", draw);
  document.addEventListener("mynah-sample-over", ({ detail: { message, button } }) => {
    if (message && field.contains(button)) errors.show({ field: "voice", message }, field.id.slice(-1), field);
  });
  document.addEventListener("mynah-use-voice", ({ detail }) => field.id === "voice-a" && choose(detail.id));
  draw();
}

// Returns the id chosen in settings "a" or "b".
export const chosen = (which) => document.querySelector(`#voice-${which} select`)?.value ?? FALLBACK;
