/** The voices of a server: create, get, list, delete. */

import type { Servers } from "./servers.js";
import type { NewVoice, Timeouts } from "./transport.js";
import type { Voice } from "./types.js";

/** The voices, as `Client.voices`; several servers must share them. Every method rejects with a MynahError if it fails. */
export class Voices {
  readonly #servers: Servers;
  readonly #timeouts: Required<Timeouts>;

  constructor(servers: Servers, timeouts: Required<Timeouts>) {
    this.#servers = servers;
    this.#timeouts = timeouts;
  }

  /**
   * Creates a voice from an audio file. `consent` must be true: the speaker agreed to this.
   *
   * The result says which part of the recording is used, what is wrong with it, and how near the voice comes.
   */
  async create(audio: Uint8Array | Blob, voice: NewVoice): Promise<Voice> {
    const bytes = audio instanceof Blob ? new Uint8Array(await audio.arrayBuffer()) : audio;
    const { connection } = await this.#servers.pick();
    return connection.createVoice(voice, bytes, this.#timeouts.createVoiceS);
  }

  /** Returns one voice. Rejects with NotFound. */
  async get(voiceId: string): Promise<Voice> {
    const { connection } = await this.#servers.pick();
    return connection.getVoice(voiceId, this.#timeouts.callS);
  }

  /** Returns all voices, ordered by id. They are fetched in pages of `pageSize`; 0 means the server's default. */
  async list({ pageSize = 0 } = {}): Promise<Voice[]> {
    const { connection } = await this.#servers.pick();
    const voices: Voice[] = [];
    let token = "";
    do {
      const page = await connection.listVoices(pageSize, token, this.#timeouts.callS);
      voices.push(...page.voices);
      token = page.nextPageToken;
    } while (token);
    return voices;
  }

  /** Deletes a voice. Streams that already use it continue. Rejects with NotFound. */
  async delete(voiceId: string): Promise<void> {
    const { connection } = await this.#servers.pick();
    await connection.deleteVoice(voiceId, this.#timeouts.callS);
  }
}
