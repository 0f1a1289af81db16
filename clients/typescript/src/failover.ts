/**
 * A call that fails over to another server until its first audio.
 *
 * Until then all sent messages are kept and sent again to the next server, and events that the reader already has are
 * skipped. After the first audio the error is thrown instead, because a retry would repeat words.
 */

import type { StreamSpeechRequest, StreamSpeechResponse } from "./gen/mynah/v1/speech_pb.js";
import { MynahError, closedHere } from "./errors.js";
import type { Server, Servers } from "./servers.js";
import type { Call } from "./transport.js";

export class FailoverCall {
  readonly #servers: Servers;
  #failoversLeft: number;
  #tried: string[] = [];
  #sent: StreamSpeechRequest[] = [];
  #ended = false;
  #delivered = 0; // messages, to the reader
  #toSkip = 0; // messages of this call that the reader has from an earlier one
  #hasAudio = false; // from then on no failover
  #closed = false;
  #callNumber = 0;
  #turn: Promise<unknown> = Promise.resolve(); // one write or failover at a time
  #server!: Server;
  #call!: Call;
  #held = false; // whether the server counts the call

  private constructor(servers: Servers, maxFailovers: number) {
    this.#servers = servers;
    this.#failoversLeft = maxFailovers;
  }

  /** Begins the call on a server. */
  static async begin(servers: Servers, maxFailovers: number): Promise<FailoverCall> {
    const call = new FailoverCall(servers, maxFailovers);
    await call.#begin();
    return call;
  }

  async #begin(): Promise<void> {
    this.#server = await this.#servers.pick(this.#tried);
    this.#tried.push(this.#server.address);
    this.#call = this.#server.connection.stream();
    this.#server.ownStreams++;
    this.#held = true;
    this.#callNumber++;
    this.#toSkip = this.#delivered;
    if (this.#closed) this.#release();
  }

  #release(): void {
    if (this.#held) this.#server.ownStreams--;
    this.#held = false;
    this.#call.cancel();
  }

  /** Returns the next new message, undefined at the end. Throws a MynahError if the call failed for good. */
  async read(): Promise<StreamSpeechResponse | undefined> {
    for (;;) {
      const number = this.#callNumber;
      let message;
      try {
        message = await this.#call.read();
      } catch (error) {
        await this.#failOver(error, number);
        continue;
      }
      if (!message) return undefined;
      const isAudio = message.event.case === "audio";
      if (this.#toSkip && !isAudio) {
        this.#toSkip--;
        continue;
      }
      this.#delivered++;
      if (isAudio && !this.#hasAudio) {
        this.#hasAudio = true;
        this.#sent = [];
      }
      return message;
    }
  }

  /** Sends a message. Throws a MynahError if the call failed for good. */
  async write(message: StreamSpeechRequest): Promise<void> {
    const failure = await this.#inTurn(async () => {
      if (this.#closed) throw closedHere();
      if (!this.#hasAudio) this.#sent.push(message);
      const number = this.#callNumber;
      return this.#call.write(message).then(() => undefined, (error: unknown) => ({ error, number }));
    });
    if (failure) await this.#failOver(failure.error, failure.number);
  }

  /** Half-closes. */
  async end(): Promise<void> {
    await this.#inTurn(async () => {
      this.#ended = true;
      this.#call.end();
    });
  }

  /** Ends the call in any state. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#release();
  }

  /** Continues on another server after call `number` failed. Throws the error if that is not allowed. */
  async #failOver(error: unknown, number: number): Promise<void> {
    await this.#inTurn(async () => {
      while (number === this.#callNumber) { // else another task has already failed over
        if (this.#closed || this.#hasAudio || !(error instanceof MynahError) || !error.retryable || !this.#failoversLeft) throw error;
        this.#failoversLeft--;
        this.#server.failed(error);
        this.#release();
        await seconds(this.#servers.cooldownS);
        await this.#begin();
        try {
          await this.#resend();
        } catch (next) {
          [error, number] = [next, this.#callNumber];
        }
      }
    });
  }

  async #resend(): Promise<void> {
    for (const message of this.#sent) await this.#call.write(message);
    if (this.#ended) this.#call.end();
  }

  #inTurn<T>(task: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(task);
    this.#turn = done.catch(() => {});
    return done;
  }
}

function seconds(wait: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, wait * 1000));
}
