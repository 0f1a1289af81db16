/** The messages of a call that were received and not read, and how it ended. */

import { WrongState } from "./errors.js";

type Outcome = { error: Error | undefined };

export class Inbox<T> {
  #messages: T[] = [];
  #outcome: Outcome | undefined;
  #wake: (() => void) | undefined;
  #onEnd = new Set<() => void>();

  get size(): number {
    return this.#messages.length;
  }

  push(message: T): void {
    if (this.#outcome) return;
    this.#messages.push(message);
    this.#wake?.();
  }

  /** Ends the inbox, with the call's error if it failed. Only the first end counts. */
  finish(error?: Error): void {
    if (this.#outcome) return;
    this.#outcome = { error };
    this.#wake?.();
    for (const tell of this.#onEnd) tell();
  }

  /** Drops what was not read, and ends with this error whatever came before. */
  abandon(error: Error): void {
    this.#messages = [];
    this.finish();
    this.#outcome = { error };
    this.#wake?.();
  }

  /** Returns the next message, undefined at the end. Rejects with the call's error after the last message. */
  async read(): Promise<T | undefined> {
    while (!this.#messages.length && !this.#outcome) await new Promise<void>((wake) => (this.#wake = wake));
    this.#wake = undefined;
    const message = this.#messages.shift();
    if (message === undefined && this.#outcome?.error) throw this.#outcome.error;
    return message;
  }

  /** Resolves when `sent` does. Rejects if the call ends first: with its error, or because nothing more can be sent. */
  async whileOpen(sent: Promise<void>): Promise<void> {
    let tell = () => {};
    const ended = new Promise<true>((resolve) => (tell = () => resolve(true)));
    this.#onEnd.add(tell);
    const over = this.#outcome ? true : await Promise.race([ended, sent]);
    this.#onEnd.delete(tell);
    if (!over) return;
    throw this.#outcome?.error ?? new WrongState("The stream has ended.", { reason: "STREAM_ENDED", code: "FAILED_PRECONDITION" });
  }
}
