/** A stream of speech: text, flush, cancel and speed in; audio and events out. */

import { create } from "@bufbuild/protobuf";
import {
  AudioChunkSchema,
  CancelledSchema,
  FlushedSchema,
  MarkReachedSchema,
  SegmentDoneSchema,
  SegmentStartedSchema,
  SpeechSettingsSchema,
  StreamOpenedSchema,
  type StreamSpeechRequest,
  StreamSpeechRequestSchema,
  type StreamSpeechResponse,
  WordsSchema,
} from "./gen/mynah/v1/speech_pb.js";
import { InvalidArgument, ServerError, TimedOut, WrongState } from "./errors.js";
import type { FailoverCall } from "./failover.js";
import { toMessage, toPlain, wellFormed } from "./plain.js";
import type { AudioChunk, Event, SpeechSettings, StreamOpened } from "./types.js";

type Request = Exclude<StreamSpeechRequest["message"], { case: undefined }>;

const EVENTS = {
  audio: AudioChunkSchema,
  words: WordsSchema,
  segmentStarted: SegmentStartedSchema,
  segmentDone: SegmentDoneSchema,
  markReached: MarkReachedSchema,
  flushed: FlushedSchema,
  cancelled: CancelledSchema,
} as const;

/**
 * A bidirectional stream, made by `Client.stream`.
 *
 * Write and read from one task or from two. `for await (const chunk of stream)` yields the audio, `stream.events()` all
 * events; either loop may be left and entered again. `close()` ends the stream at once: for all of the audio, call
 * `end()` and read to the end. Every method rejects with a MynahError if the stream has failed.
 */
export class SpeechStream implements AsyncIterable<AudioChunk> {
  readonly #call: FailoverCall;
  readonly #maxPendingChars: number;
  #lastFlushId = 0;
  #sentChars = 0;
  #consumedChars = 0;
  #unansweredCancels = 0;
  #ended = false;
  #over = false;
  #progressed = new Set<() => void>();

  private constructor(call: FailoverCall, readonly opened: StreamOpened) {
    this.#call = call;
    this.#maxPendingChars = opened.limits?.maxPendingTextCharCount ?? 0;
  }

  /** Opens a stream. Resolves when the server has accepted the settings; rejects with TimedOut after `timeoutS`. */
  static async open(begin: () => Promise<FailoverCall>, settings: SpeechSettings, timeoutS: number): Promise<SpeechStream> {
    const wire = toMessage(SpeechSettingsSchema, settings);
    const message = `The server did not open the stream within ${timeoutS} s. Try again later.`;
    const call = await begin();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      const error = new TimedOut(message, { reason: "OPEN_TIMED_OUT", code: "DEADLINE_EXCEEDED" });
      timer = setTimeout(() => reject(error), timeoutS * 1000);
    });
    try {
      return new SpeechStream(call, await Promise.race([open(call, wire), late]));
    } catch (error) {
      call.close();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The number of chars that were sent and still wait on the server, as far as it has reported. */
  get pendingChars(): number {
    return this.#sentChars - this.#consumedChars;
  }

  /** The maximum for one call of `room`: half of the chars that may wait on the server. */
  get maxPieceChars(): number {
    return Math.floor(this.#maxPendingChars / 2);
  }

  /**
   * Sends more text. It is joined to the text before as it is.
   *
   * Call `room` first if more text may come than the server keeps waiting, or use `sendLong`.
   */
  async send(text: string): Promise<void> {
    this.#mustBeOpen();
    if (!text) return;
    const content = wellFormed("content", text);
    this.#sentChars += charCount(content);
    await this.#write({ case: "text", value: { $typeName: "mynah.v1.TextFragment", content } });
  }

  /**
   * Waits until the server has room for `chars` more chars. Another task must read meanwhile.
   *
   * Throws InvalidArgument if `chars` is above `maxPieceChars`. The limit makes sure that an unfinished sentence always
   * leaves room for its end.
   */
  async room(chars: number): Promise<void> {
    if (chars > this.maxPieceChars) {
      const details = { reason: "TEXT_TOO_LONG", field: "chars", value: String(chars) };
      throw new InvalidArgument(`${chars} chars are too many for one piece; send at most ${this.maxPieceChars} at a time.`, details);
    }
    while (this.pendingChars + chars > this.#maxPendingChars && !this.#over)
      await new Promise<void>((tell) => this.#progressed.add(tell));
  }

  /** Sends a text of any length: in pieces, each when the server has room. Another task must read meanwhile. */
  async sendLong(text: string): Promise<void> {
    const chars = [...wellFormed("content", text)];
    for (let start = 0; start < chars.length; start += this.maxPieceChars) {
      const piece = chars.slice(start, start + this.maxPieceChars);
      await this.room(piece.length);
      await this.send(piece.join(""));
    }
  }

  /** Speaks all text sent so far now. Returns the id of the `flushed` event that will follow. */
  async flush(): Promise<number> {
    this.#mustBeOpen();
    const flushId = ++this.#lastFlushId;
    await this.#write({ case: "flush", value: { $typeName: "mynah.v1.Flush", flushId: BigInt(flushId) } });
    return flushId;
  }

  /**
   * Drops all text and audio so far. Older audio that still arrives is not yielded either.
   *
   * The stream stays open for new text. A `cancelled` event follows.
   */
  async cancel(): Promise<void> {
    this.#mustBeOpen();
    this.#unansweredCancels++;
    await this.#write({ case: "cancel", value: { $typeName: "mynah.v1.Cancel" } });
  }

  /** Speaks every segment that has not begun at this speed, 0.5 to 2, also of text sent before. */
  async setSpeed(speed: number): Promise<void> {
    this.#mustBeOpen();
    if (typeof speed !== "number") {
      const details = { reason: "VALUE_UNSENDABLE", field: "speed", value: String(speed) };
      throw new InvalidArgument(`speed is ${String(speed)}, which cannot be sent: it must be a number.`, details);
    }
    await this.#write({ case: "setSpeed", value: { $typeName: "mynah.v1.SetSpeed", speed } });
  }

  /** Declares the end of the text. The server speaks the rest and ends the stream. May be called again. */
  async end(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await this.#call.end();
  }

  /** Ends the stream at once, in any state: the server drops its text and audio, and its slot is free. */
  close(): void {
    this.#setOver();
    this.#call.close();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<AudioChunk, void, undefined> {
    for await (const event of this.events()) if (event.type === "audio") yield event;
  }

  /** Yields audio and all other events, in the server's order, until the stream ends. */
  async *events(): AsyncGenerator<Event, void, undefined> {
    for (let message = await this.#read(); message; message = await this.#read()) {
      const event = eventOf(message);
      if (event && !this.#isStale(event)) yield event;
    }
  }

  async #read(): Promise<StreamSpeechResponse | undefined> {
    try {
      const message = await this.#call.read();
      if (!message) this.#setOver();
      return message;
    } catch (error) {
      this.#setOver();
      throw error;
    }
  }

  #isStale(event: Event): boolean {
    if (event.type === "segmentStarted" || event.type === "segmentDone" || event.type === "cancelled") {
      this.#consumedChars = event.consumedTextCharCount;
      this.#tellProgress();
    }
    if (event.type === "cancelled") this.#unansweredCancels--;
    return (event.type === "audio" || event.type === "words") && this.#unansweredCancels > 0;
  }

  async #write(message: Request): Promise<void> {
    await this.#call.write(create(StreamSpeechRequestSchema, { message }));
  }

  #mustBeOpen(): void {
    if (this.#ended) throw new WrongState("Nothing can be sent after end().", { reason: "STREAM_ENDED" });
  }

  #setOver(): void {
    this.#over = true;
    this.#tellProgress();
  }

  #tellProgress(): void {
    const waiting = [...this.#progressed];
    this.#progressed.clear();
    for (const tell of waiting) tell();
  }
}

async function open(call: FailoverCall, settings: ReturnType<typeof toMessage<typeof SpeechSettingsSchema>>): Promise<StreamOpened> {
  const message: Request = { case: "open", value: { $typeName: "mynah.v1.OpenStream", settings } };
  await call.write(create(StreamSpeechRequestSchema, { message }));
  const answer = await call.read();
  if (answer?.event.case === "opened") return toPlain(StreamOpenedSchema, answer.event.value);
  throw new ServerError("The server did not answer with the settings of the opened stream.", { reason: "BAD_ANSWER" });
}

/** Returns the event in a message, or undefined for an event of a newer server. */
function eventOf({ event }: StreamSpeechResponse): Event | undefined {
  if (event.case === undefined || event.case === "opened") return undefined;
  return { type: event.case, ...toPlain(EVENTS[event.case], event.value as never) } as Event;
}

/** The number of Unicode code points, by which the server counts. */
function charCount(text: string): number {
  let count = text.length;
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) >= 0xdc00 && text.charCodeAt(i) <= 0xdfff) count--;
  return count;
}
