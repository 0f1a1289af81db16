/** The client of one Mynah server or of several, on any transport. */

import { InvalidArgument } from "./errors.js";
import { FailoverCall } from "./failover.js";
import { Servers } from "./servers.js";
import { SpeechStream } from "./stream.js";
import type { Connection, Timeouts } from "./transport.js";
import type { AudioChunk, ServerInfo, SpeechSettings } from "./types.js";
import { Voices } from "./voices.js";

export interface ClientOptions {
  /** Sent with every call. */
  apiKey?: string;
  timeouts?: Timeouts;
  /**
   * The maximum number of times a stream may be opened again before its first audio; the default is 0 for one server
   * and two per server for several.
   */
  moves?: number;
}

/**
 * The connections to one server or to several, shared by any number of streams.
 *
 * It connects on first use. With several servers a stream opens on one with room, and moves to another if its server
 * fails before the first audio. After the first audio the client never retries.
 */
export class BaseClient {
  readonly voices: Voices;
  readonly #servers: Servers;
  readonly #timeouts: Required<Timeouts>;
  readonly #moves: number;

  constructor(servers: string | readonly string[], connect: (address: string) => Connection, options: ClientOptions) {
    const addresses = typeof servers === "string" ? [servers] : [...servers];
    if (!addresses.length) throw new InvalidArgument("The client has no server; name at least one.", { reason: "SERVER_UNCLEAR" });
    this.#servers = new Servers(addresses.map(connect));
    this.#timeouts = { openS: 10, callS: 30, createVoiceS: 300, ...options.timeouts };
    this.#moves = options.moves ?? (addresses.length > 1 ? 2 * addresses.length : 0);
    this.voices = new Voices(this.#servers, this.#timeouts);
  }

  /**
   * Opens a stream. Resolves when the server has accepted the settings; the server chooses what is absent.
   *
   * With `wordTimes`, `stream.events()` also yields words: when each word of the audio is spoken.
   */
  stream(settings: SpeechSettings = {}): Promise<SpeechStream> {
    return SpeechStream.open(() => FailoverCall.begin(this.#servers, this.#moves), settings, this.#timeouts.openS);
  }

  /** Yields the audio of one text as it is made. Leaving the loop ends the call. */
  async *synthesize(text: string, settings: SpeechSettings = {}): AsyncGenerator<AudioChunk, void, undefined> {
    const stream = await this.stream(settings);
    const writing = stream.sendLong(text).then(() => stream.end());
    writing.catch(() => stream.close()); // the loop has the server's error, and text that cannot be sent follows it
    try {
      yield* stream;
    } catch (error) {
      await writing;
      throw error;
    } finally {
      stream.close();
    }
  }

  /** Returns the server's version, models, formats and limits. */
  async info(): Promise<ServerInfo> {
    const { connection } = await this.#servers.pick();
    return connection.info(this.#timeouts.callS);
  }

  /** Returns whether the server takes new streams. Needs no API key. */
  async ready(): Promise<boolean> {
    const { connection } = await this.#servers.pick();
    return connection.ready(this.#timeouts.callS);
  }

  /** Closes the connections. */
  close(): void {
    this.#servers.close();
  }
}
