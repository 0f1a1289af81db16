// The state of the speech server: the pill, the banner while it is away, and its notice; and the page's colours.

import { ofModel } from "./models.js";
import { remember, remembered } from "./store.js";

export function mount(element) {
  const [pill, server, banner, notice, running] = [".pill", ".server", ".banner", ".notice", ".running"].map((one) => element.querySelector(one));
  colours(element.querySelector(".theme"));

  const away = (message) => {
    pill.dataset.state = "away";
    server.textContent = "Not connected";
    banner.textContent = `${message} This page reconnects by itself.`;
    banner.hidden = false;
  };
  let last = null; // as the server sent it
  const show = (sent) => {
    const state = ofModel(sent);
    last = sent;
    window.mynahServer = state;
    document.dispatchEvent(new CustomEvent("mynah-server", { detail: state }));
    if (!state.up) return away(state.reason === "UNAVAILABLE" ? `The speech server at ${state.server} does not answer.` : state.message);
    const busy = state.open_streams >= state.limits.max_open_streams && !window.mynah?.player.live;
    pill.dataset.state = state.accepts && !busy ? "up" : "waiting";
    server.textContent = busy ? "Busy" : state.accepts ? "Ready" : "Not ready";
    running.textContent = pill.title = `Mynah ${state.version}, ${state.model} on ${state.device}, T3 on ${state.t3_runtime}, S3Gen on ${state.s3gen_runtime}${state.setting_reason ? `: ${state.setting_reason}` : ""}`;
    banner.textContent = state.message;
    banner.hidden = !state.message;
    notice.textContent = state.notice;
    notice.hidden = !state.notice;
  };
  const listen = () => {
    const source = new EventSource(new URL("../status", import.meta.url));
    source.onmessage = (event) => show(JSON.parse(event.data));
    source.onerror = () => {
      away("The connection to this page was lost.");
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, 2000); // otherwise the browser reconnects by itself
    };
  };
  document.addEventListener("mynah-model", () => last && show(last));
  listen();
}

// Light or dark: as the system says, until this button is pressed.
function colours(button) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const dark = (remembered("colours") ?? (system.matches ? "dark" : "light")) === "dark";
    if (document.body.classList.contains("dark") !== dark) document.body.classList.toggle("dark", dark);
    button.setAttribute("aria-pressed", String(dark));
  };
  button.onclick = () => {
    remember("colours", document.body.classList.contains("dark") ? "light" : "dark");
    apply();
  };
  system.addEventListener("change", () => setTimeout(apply)); // after Gradio, which follows the system
  new MutationObserver(apply).observe(document.body, { attributeFilter: ["class"] });
  apply();
  button.disabled = false;
}
