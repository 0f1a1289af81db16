// Whether the speech server answers, as it changes; the banner while it is away, the notice while it makes noise.

export function mount(element) {
  const [pill, who, banner, notice] = [".pill", ".who", ".banner", ".notice"].map((one) => element.querySelector(one));

  const away = (message) => {
    pill.dataset.state = "away";
    who.textContent = "Not connected";
    banner.textContent = `${message} This page keeps trying and goes on by itself.`;
    banner.hidden = false;
  };
  const tell = (state) => {
    window.mynahServer = state;
    document.dispatchEvent(new CustomEvent("mynah-server", { detail: state }));
    if (!state.up) return away(state.reason === "UNAVAILABLE" ? `The speech server at ${state.server} is away.` : state.message);
    pill.dataset.state = "up";
    who.textContent = `${state.model} on ${state.device}`;
    pill.title = `Mynah ${state.version}, T3 on ${state.t3_runtime}, S3Gen on ${state.s3gen_runtime}`;
    banner.hidden = true;
    notice.textContent = state.notice;
    notice.hidden = !state.notice;
  };
  const listen = () => {
    const source = new EventSource(new URL("../status", import.meta.url));
    source.onmessage = (event) => tell(JSON.parse(event.data));
    source.onerror = () => {
      away("This page's own server is away.");
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, 2000); // else the browser connects again itself
    };
  };
  listen();
}
