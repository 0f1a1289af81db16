// The choice of a language, for models that speak several.

import { remember, remembered } from "./store.js";

const KEY = "language";
const names = new Intl.DisplayNames(["en"], { type: "language" });

export function mount(element) {
  const field = element.querySelector("#language-field"), select = element.querySelector("select");
  const draw = (codes = [], missing = {}) => {
    const shown = JSON.stringify([codes, missing]);
    if (select.dataset.shown === shown) return;
    select.dataset.shown = shown;
    const option = (code) => {
      const lacks = missing[code], made = new Option(names.of(code) + (lacks ? ` (the server lacks ${lacks})` : ""), code);
      made.disabled = Boolean(lacks);
      return made;
    };
    select.replaceChildren(...codes.map(option).sort((a, b) => a.text.localeCompare(b.text)));
    const spoken = codes.filter((code) => !missing[code]), wished = remembered(KEY) ?? "en";
    select.value = spoken.includes(wished) ? wished : spoken[0];
    field.hidden = codes.length < 2;
  };
  select.addEventListener("change", () => remember(KEY, select.value));
  document.addEventListener("mynah-server", ({ detail }) => detail.up && draw(detail.languages, detail.missing_languages));
  draw(window.mynahServer?.languages, window.mynahServer?.missing_languages);
}

// Returns the code that is chosen; empty for a model of one language.
export function language() {
  const field = document.querySelector("#language-field");
  return field && !field.hidden ? field.querySelector("select").value : "";
}
