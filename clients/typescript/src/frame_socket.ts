/** A WebSocket of JSON messages, some of which a binary frame with their data follows. The page uses it, too. */

/** What a socket tells its owner. `closed` comes once and last, also if the socket never opened. */
export interface FrameHandlers<Message> {
  /** Whether the next binary frame is this message's data. */
  followed(message: Message): boolean;
  message(message: Message, data: ArrayBuffer | undefined): void;
  closed(code: number, reason: string, opened: boolean): void;
}

export class FrameSocket<Message = unknown> {
  readonly #socket: WebSocket;
  #unsent: (string | Uint8Array<ArrayBuffer>)[] = [];

  /** Connects. `protocols` are the subprotocols that the client offers. */
  constructor(url: string | URL, handlers: FrameHandlers<Message>, protocols: string[] = []) {
    const socket = new WebSocket(url, protocols);
    socket.binaryType = "arraybuffer";
    let opened = false;
    let waiting: Message | undefined; // for its data
    socket.onopen = () => {
      opened = true;
      for (const frame of this.#unsent.splice(0)) socket.send(frame);
    };
    socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
      if (typeof data !== "string") {
        if (waiting !== undefined) handlers.message(waiting, data);
        waiting = undefined;
        return;
      }
      const message = JSON.parse(data) as Message;
      if (handlers.followed(message)) waiting = message;
      else handlers.message(message, undefined);
    };
    socket.onclose = ({ code, reason }) => handlers.closed(code, reason, opened);
    this.#socket = socket;
  }

  /** Sends a frame, as soon as the socket is open. Does nothing once it is closing. */
  send(frame: string | Uint8Array<ArrayBuffer>): void {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(frame);
    else if (this.#socket.readyState === WebSocket.CONNECTING) this.#unsent.push(frame);
  }

  /** Closes the socket in any state. */
  close(): void {
    this.#unsent = [];
    this.#socket.close();
  }
}
