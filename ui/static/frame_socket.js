// Made of clients/typescript/src/frame_socket.ts: change that, then `npm run bundle` there.

// src/frame_socket.ts
var FrameSocket = class {
  #socket;
  #unsent = [];
  /** Connects. `protocols` are the subprotocols that the client offers. */
  constructor(url, handlers, protocols = []) {
    const socket = new WebSocket(url, protocols);
    socket.binaryType = "arraybuffer";
    let opened = false;
    let waiting;
    socket.onopen = () => {
      opened = true;
      for (const frame of this.#unsent.splice(0)) socket.send(frame);
    };
    socket.onmessage = ({ data }) => {
      if (typeof data !== "string") {
        if (waiting !== void 0) handlers.message(waiting, data);
        waiting = void 0;
        return;
      }
      const message = JSON.parse(data);
      if (handlers.followed(message)) waiting = message;
      else handlers.message(message, void 0);
    };
    socket.onclose = ({ code, reason }) => handlers.closed(code, reason, opened);
    this.#socket = socket;
  }
  /** Sends a frame, as soon as the socket is open. Does nothing once it is closing. */
  send(frame) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(frame);
    else if (this.#socket.readyState === WebSocket.CONNECTING) this.#unsent.push(frame);
  }
  /** Closes the socket in any state. */
  close() {
    this.#unsent = [];
    this.#socket.close();
  }
};
export {
  FrameSocket
};
