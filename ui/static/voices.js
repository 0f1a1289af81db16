// The list of voices, with Use and Delete. Names come from other people, so they are shown as text nodes only.

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
    if (detail.up && !up) trigger("refresh"); // it may have other voices now
    up = detail.up;
  });
}

// The handler of Gradio's event after a voice was deleted.
export function deleted(answer) {
  document.querySelector(".voices-note").textContent = answer.deleted ? `“${answer.deleted}” was deleted.` : answer.message;
}

function card(voice, trigger) {
  const item = document.createElement("li");
  const name = make("strong", voice.name);
  const info = make("span", [voice.built_in ? "comes with the model" : when(voice.created), `${voice.seconds} s recording`].join(" · "));
  const text = document.createElement("div");
  text.append(name, info);
  const use = make("button", "Use");
  use.setAttribute("aria-label", `Use ${voice.name}`);
  use.onclick = () => trigger("use", { id: voice.id });
  item.append(text, use);
  if (!voice.built_in) item.append(remove(voice, trigger));
  return item;
}

// The button asks for confirmation before it deletes.
function remove(voice, trigger) {
  const button = make("button", "Delete");
  button.className = "danger";
  button.setAttribute("aria-label", `Delete ${voice.name}`);
  button.onclick = () => {
    if (button.dataset.sure) return trigger("delete", { id: voice.id, name: voice.name });
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
  return created ? `created ${new Date(created).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })}` : "";
}

function make(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (tag === "button") element.type = "button";
  return element;
}
