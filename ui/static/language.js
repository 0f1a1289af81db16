// The choice of a language, for models that speak several.

import { remember, remembered } from "./store.js";

const KEY = "language";
const names = new Intl.DisplayNames(["en"], { type: "language" });

export function mount(element) {
  const field = element.querySelector("#language-field"), select = element.querySelector("select");
  const draw = (codes = []) => {
    if (select.dataset.codes === codes.join()) return;
    select.dataset.codes = codes.join();
    const options = codes.map((code) => new Option(names.of(code), code)).sort((a, b) => a.text.localeCompare(b.text));
    select.replaceChildren(...options);
    const wished = remembered(KEY) ?? "en";
    select.value = codes.includes(wished) ? wished : codes[0];
    field.hidden = codes.length < 2;
  };
  select.addEventListener("change", () => remember(KEY, select.value));
  document.addEventListener("mynah-server", ({ detail }) => detail.up && draw(detail.languages));
  draw(window.mynahServer?.languages);
}

// Returns the code that is chosen; empty for a model of one language.
export function language() {
  const field = document.querySelector("#language-field");
  return field && !field.hidden ? field.querySelector("select").value : "";
}
