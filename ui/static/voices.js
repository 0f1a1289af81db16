// The list of voices, with Use and Delete. Names are strangers' words, so they only ever become text nodes.

export function mount(element, props, trigger, watch) {
  const draw = () => {
    const list = element.querySelector(".voices");
    list?.replaceChildren(...(Array.isArray(props.value) ? props.value : []).map((voice) => card(voice, trigger)));
  };
  watch("value", draw);
  draw();
  let up = Boolean(window.mynahServer?.up);
  if (up) trigger("refresh");
  document.addEventListener("mynah-server", ({ detail }) => {
    if (detail.up && !up) trigger("refresh"); // it is there, or back, perhaps with other voices
    up = detail.up;
  });
}

// What Gradio's event calls when a voice was to be deleted.
export function forgotten(answer) {
  document.querySelector(".voices-note").textContent = answer.forgotten ? `“${answer.forgotten}” is deleted.` : answer.message;
}

function card(voice, trigger) {
  const item = document.createElement("li");
  const name = make("strong", voice.name);
  const about = make("span", [voice.built_in ? "came with the model" : when(voice.created), `${voice.seconds} s of reference`].join(" · "));
  const text = document.createElement("div");
  text.append(name, about);
  const use = make("button", "Use");
  use.setAttribute("aria-label", `Use ${voice.name}`);
  use.onclick = () => trigger("use", { id: voice.id });
  item.append(text, use);
  if (!voice.built_in) item.append(remove(voice, trigger));
  return item;
}

// Delete asks once more, on the same button.
function remove(voice, trigger) {
  const button = make("button", "Delete");
  button.className = "danger";
  button.setAttribute("aria-label", `Delete ${voice.name}`);
  button.onclick = () => {
    if (button.dataset.sure) return trigger("forget", { id: voice.id, name: voice.name });
    button.dataset.sure = "yes";
    button.textContent = "Really delete?";
    button.setAttribute("aria-label", `Really delete ${voice.name}?`);
  };
  button.onblur = () => {
    delete button.dataset.sure;
    button.textContent = "Delete";
    button.setAttribute("aria-label", `Delete ${voice.name}`);
  };
  return button;
}

function when(created) {
  return created ? `made ${new Date(created).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })}` : "";
}

function make(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (tag === "button") made.type = "button";
  return made;
}
