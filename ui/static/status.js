// The state of the speech server: the pill, the banner while it is away, and its notice.

export function mount(element) {
  const [pill, server, banner, notice] = [".pill", ".server", ".banner", ".notice"].map((one) => element.querySelector(one));

  const away = (message) => {
    pill.dataset.state = "away";
    server.textContent = "Not connected";
    banner.textContent = `${message} This page reconnects by itself.`;
    banner.hidden = false;
  };
  const show = (state) => {
    window.mynahServer = state;
    document.dispatchEvent(new CustomEvent("mynah-server", { detail: state }));
    if (!state.up) return away(state.reason === "UNAVAILABLE" ? `The speech server at ${state.server} does not answer.` : state.message);
    pill.dataset.state = "up";
    server.textContent = `${state.model} on ${state.device}`;
    pill.title = `Mynah ${state.version}, T3 on ${state.t3_runtime}, S3Gen on ${state.s3gen_runtime}`;
    banner.hidden = true;
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
  listen();
}
