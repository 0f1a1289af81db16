// The WebSocket of one recording; speaking.py describes its messages.

// `onEvent(event, samples)` receives all events in order, chunks with their samples. The last is done, stopped or error.
export function openStream(opening, onEvent) {
  const address = new URL("../speak", import.meta.url);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  const unsent = [JSON.stringify({ type: "open", ...opening })];
  let chunk = null;
  let over = false;

  const emit = (event, samples) => {
    if (over) return;
    over = ["done", "stopped", "error"].includes(event.type);
    onEvent(event, samples);
  };
  socket.onopen = () => unsent.splice(0).forEach((message) => socket.send(message));
  socket.onmessage = ({ data }) => {
    if (typeof data !== "string") return emit(chunk, new Int16Array(data));
    const event = JSON.parse(data);
    if (event.type === "chunk") chunk = event;
    else emit(event);
  };
  socket.onclose = () =>
    emit({ type: "error", field: "", reason: "PAGE_AWAY", message: "The connection to this page was lost. Try again in a moment." });

  const send = (message) => {
    const text = JSON.stringify(message);
    if (socket.readyState === WebSocket.OPEN) socket.send(text);
    else if (socket.readyState === WebSocket.CONNECTING) unsent.push(text);
  };
  return {
    text: (text) => send({ type: "text", text }),
    speed: (speed) => send({ type: "speed", speed }), // of the sentences that have not begun
    end: () => send({ type: "end" }),
    stop: () => send({ type: "stop" }),
  };
}
