// One take's conversation with the page's server; see speaking.py for what is said. Knows nothing of sound or pages.

// `hear(event, samples)` gets every event in order, chunks with their samples; the last is done, stopped or error.
export function openStream(opening, hear) {
  const address = new URL("../speak", import.meta.url);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  const waiting = [JSON.stringify({ type: "open", ...opening })];
  let chunk = null;
  let over = false;

  const tell = (event, samples) => {
    if (over) return;
    over = ["done", "stopped", "error"].includes(event.type);
    hear(event, samples);
  };
  socket.onopen = () => waiting.splice(0).forEach((message) => socket.send(message));
  socket.onmessage = ({ data }) => {
    if (typeof data !== "string") return tell(chunk, new Int16Array(data));
    const event = JSON.parse(data);
    if (event.type === "chunk") chunk = event;
    else tell(event);
  };
  socket.onclose = () =>
    tell({ type: "error", field: "", reason: "PAGE_AWAY", message: "The connection to this page's server broke off. Try again in a moment." });

  const say = (message) => {
    const text = JSON.stringify(message);
    if (socket.readyState === WebSocket.OPEN) socket.send(text);
    else if (socket.readyState === WebSocket.CONNECTING) waiting.push(text);
  };
  return {
    text: (text) => say({ type: "text", text }),
    end: () => say({ type: "end" }),
    stop: () => say({ type: "stop" }),
  };
}
