// The WebSocket of one recording; speaking.py describes its messages.

import { FrameSocket } from "./frame_socket.js";

const AWAY = { type: "error", field: "", reason: "PAGE_AWAY", message: "The connection to this page was lost. Try again in a moment." };

// `onEvent(event, samples)` receives all events in order, chunks with their samples. The last is done, stopped or error.
export function openStream(opening, onEvent) {
  const address = new URL("../speak", import.meta.url);
  address.protocol = address.protocol.replace("http", "ws");
  let over = false;
  const emit = (event, samples) => {
    if (over) return;
    over = ["done", "stopped", "error"].includes(event.type);
    onEvent(event, samples);
  };
  const socket = new FrameSocket(address, {
    followed: (event) => event.type === "chunk",
    message: (event, data) => emit(event, data && new Int16Array(data)),
    closed: () => emit(AWAY),
  });
  const send = (message) => socket.send(JSON.stringify(message));
  send({ type: "open", ...opening });
  return {
    text: (text) => send({ type: "text", text }),
    speed: (speed) => send({ type: "speed", speed }), // of the sentences that have not begun
    end: () => send({ type: "end" }),
    stop: () => send({ type: "stop" }),
  };
}
