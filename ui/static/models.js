// The choice of a model, where the server has several. What it has takes the place of the first one's on the page.

import { remember, remembered } from "./store.js";

const KEY = "model";

export function mount(element) {
  const field = element.querySelector("#model-field"), select = element.querySelector("select");
  const draw = (models = []) => {
    const names = models.map(({ name }) => name), key = names.join();
    if (select.dataset.names === key) return;
    select.dataset.names = key;
    select.replaceChildren(...names.map((name) => new Option(name, name)));
    select.value = names.includes(remembered(KEY)) ? remembered(KEY) : (names[0] ?? "");
    field.hidden = names.length < 2;
  };
  select.addEventListener("change", () => {
    remember(KEY, select.value);
    document.dispatchEvent(new CustomEvent("mynah-model"));
  });
  document.addEventListener("mynah-server", ({ detail }) => detail.up && draw(detail.models));
  draw(window.mynahServer?.models);
}

// The server's state with what the chosen model has.
export function ofModel(state) {
  const model = state.models?.find(({ name }) => name === remembered(KEY));
  return model ? { ...state, ...model, model: model.name } : state;
}

// Returns the name that is chosen; empty where there is one model.
export function model() {
  const field = document.querySelector("#model-field");
  return field && !field.hidden ? field.querySelector("select").value : "";
}
