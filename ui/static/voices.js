// The list of voices, with Listen, Use and Delete. Names come from other people, so they are shown as text nodes only.

import { request } from "./api.js";
import { make } from "./dom.js";
import * as sample from "./sample.js";
import { all, refresh } from "./voice_store.js";
import { aboutListed } from "./voice_words.js";

export function mount(element) {
  const note = element.querySelector(".voices-note");
  const draw = () => element.querySelector(".voices").replaceChildren(...all().map((voice) => card(voice, note)));
  document.addEventListener("mynah-voices", draw);
  document.addEventListener("mynah-sample-over", ({ detail }) => { if (detail.message && element.contains(detail.button)) note.textContent = detail.message; });
  draw();
}

function card(voice, note) {
  const item = document.createElement("li");
  const text = document.createElement("div");
  text.append(make("strong", voice.name), make("span", aboutListed(voice)));
  const listen = make("button", "Listen", { label: `Listen to ${voice.name}` });
  listen.onclick = () => sample.toggle(voice.id, listen);
  const use = make("button", "Use", { label: `Use ${voice.name}` });
  use.onclick = () => {
    document.dispatchEvent(new CustomEvent("mynah-use-voice", { detail: { id: voice.id } }));
    document.querySelector("#tabs [role=tab]")?.click();
  };
  item.append(text, listen, use);
  if (!voice.built_in) item.append(remove(voice, note));
  return item;
}

// The button asks for confirmation before it deletes.
function remove(voice, note) {
  const button = make("button", "Delete", { label: `Delete ${voice.name}`, className: "danger" });
  button.onclick = async () => {
    if (!button.dataset.sure) {
      button.dataset.sure = "yes";
      button.textContent = "Really delete?";
      button.setAttribute("aria-label", `Really delete ${voice.name}?`);
      return;
    }
    const answer = await request(`voices/${encodeURIComponent(voice.id)}`, { method: "DELETE" });
    note.textContent = answer.deleted ? `“${voice.name}” was deleted.` : answer.message;
    await refresh();
  };
  button.onblur = () => {
    delete button.dataset.sure;
    button.textContent = "Delete";
    button.setAttribute("aria-label", `Delete ${voice.name}`);
  };
  return button;
}
