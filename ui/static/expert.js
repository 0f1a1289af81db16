// The one fold of the page: settings, comparison and figures for those who know what they mean.

import { remember, remembered } from "./store.js";

export function mount(element) {
  const button = element.querySelector("button");
  const show = (open) => {
    document.documentElement.classList.toggle("expert-view", open);
    button.setAttribute("aria-expanded", String(open));
  };
  button.onclick = () => {
    const open = button.getAttribute("aria-expanded") !== "true";
    remember("expert", open ? "open" : "");
    show(open);
  };
  document.addEventListener("mynah-expert", () => show(true));
  show(remembered("expert") === "open");
  button.disabled = false;
}
