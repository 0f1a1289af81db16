// Beside the text: buttons for the sounds that the model can make, examples, a text file. Keeps the text over a reload.

import { make } from "./dom.js";
import { remember, remembered } from "./store.js";

const MAX_FILE_BYTES = 2_000_000;
const MAX_REMEMBERED_CHARS = 200_000;
const EXAMPLES = {
  "A greeting": "Good morning, and welcome aboard. This is Mynah. Shall we begin?",
  "A phone call": "Thank you for calling. Your appointment is on Thursday at half past ten. Would you like a reminder the day before?",
  "A story": "Once upon a time, at the edge of a quiet forest, there lived a bird that could repeat every voice it heard. One evening it answered a question before it was asked.",
  "The news": "The city council has decided to reopen the old railway bridge. Work begins in March, and the first walkers are expected in the autumn.",
};

export function mount(element) {
  const part = (selector) => element.querySelector(selector);
  keep();
  const examples = part("#example");
  examples.append(...Object.keys(EXAMPLES).map((name) => new Option(name, name)));
  examples.onchange = () => {
    if (examples.value) write(EXAMPLES[examples.value]);
    examples.value = "";
  };
  const file = part("input[type=file]");
  part("[data-do=open]").onclick = () => file.click();
  file.onchange = async () => {
    if (file.files[0]) part(".count").textContent = await open(file.files[0]);
    file.value = "";
  };
  part(".tags").addEventListener("click", ({ target }) => insert(target.closest("button")?.dataset.tag));
  document.addEventListener("mynah-server", ({ detail }) => drawTags(part(".tags"), detail.tags));
  drawTags(part(".tags"), window.mynahServer?.tags);
  for (const control of [examples, part("[data-do=open]")]) control.disabled = false;
}

const box = () => document.querySelector("#text textarea");

function write(text) {
  box().value = text;
  box().dispatchEvent(new Event("input", { bubbles: true }));
}

// Puts a file's text into the box and returns the sentence about it.
async function open(file) {
  if (file.size > MAX_FILE_BYTES) return `${file.name} is too large: at most ${MAX_FILE_BYTES / 1e6} MB.`;
  const text = decoded(await file.arrayBuffer()).replaceAll("\r\n", "\n");
  if (/\0/.test(text)) return `${file.name} is not a text file.`;
  write(text);
  const words = text.match(/\S+/g)?.length ?? 0;
  return `${file.name}: ${words.toLocaleString()} words, about ${duration(words / 2.5)} of speech.`;
}

function decoded(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes);
  }
}

const duration = (s) => (s < 90 ? `${Math.round(s)} s` : `${Math.round(s / 60)} minutes`);

function drawTags(element, tags = []) {
  const key = tags.join();
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  element.hidden = !tags.length;
  element.replaceChildren(...tags.map((tag) => {
    const button = make("button", tag.replace(/[[\]]/g, "").replaceAll("_", " "));
    button.dataset.tag = tag.startsWith("[") ? tag : `[${tag}]`;
    return button;
  }));
}

// Inserts a tag at the cursor.
function insert(tag) {
  const text = box();
  if (!tag || !text) return;
  const { selectionStart: from, selectionEnd: to, value } = text;
  const before = from > 0 && !/\s$/.test(value.slice(0, from)) ? " " : "";
  const after = /^\s/.test(value.slice(to)) ? "" : " ";
  text.setRangeText(`${before}${tag}${after}`, from, to, "end");
  text.dispatchEvent(new Event("input", { bubbles: true }));
  text.focus();
}

// The text of the last visit comes back, and every change is kept.
function keep() {
  const restored = remembered("text");
  const start = () => {
    if (restored && box()) write(restored);
    document.addEventListener("input", ({ target }) => {
      if (target === box()) remember("text", target.value.length > MAX_REMEMBERED_CHARS ? "" : target.value);
    });
  };
  if (document.querySelector("#tab-speak")?.dataset.settled !== undefined) return start();
  document.addEventListener("mynah-settled", ({ detail }) => detail === "tab-speak" && start());
}
