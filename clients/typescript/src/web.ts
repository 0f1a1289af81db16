/** The connection of browsers: the WebSocket and the JSON endpoints of the server's HTTP port. */

import { type DescMessage, type JsonValue, type MessageShape, fromJson, toBinary } from "@bufbuild/protobuf";
import {
  GetServerInfoResponseSchema,
  type StreamSpeechRequest,
  StreamSpeechRequestSchema,
  type StreamSpeechResponse,
  StreamSpeechResponseSchema,
} from "./gen/mynah/v1/speech_pb.js";
import { ListVoicesResponseSchema, VoiceSchema } from "./gen/mynah/v1/voices_pb.js";
import { InvalidArgument, type MynahError, ServerError, TimedOut, closedHere, connectionLost, fromHttp, unreachable } from "./errors.js";
import { FrameSocket } from "./frame_socket.js";
import { Inbox } from "./inbox.js";
import { toPlain } from "./plain.js";
import type { Call, Connection, NewVoice, VoicePage } from "./transport.js";
import type { ServerInfo, Voice } from "./types.js";

const STREAM = "/v1/stream";
const SUBPROTOCOL = "mynah.v1";
const ERROR_CLOSE_CODE = 4000; // plus the HTTP status
const NORMAL_CLOSE_CODE = 1000;
const PROBE_TIMEOUT_S = 5;

/** The connection to one server, by the origin of its HTTP port such as "https://speech.example.com". */
export class WebConnection implements Connection {
  readonly #url: URL;
  readonly #headers: Record<string, string>;
  readonly #protocols: string[];

  constructor(readonly address: string, apiKey: string | undefined) {
    this.#url = parsedUrl(address);
    this.#headers = apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` };
    // a browser's WebSocket can set no header
    this.#protocols = apiKey === undefined ? [] : [SUBPROTOCOL, `bearer.${apiKey}`];
  }

  stream(): Call {
    const url = this.#at(STREAM);
    url.protocol = url.protocol.replace("http", "ws");
    return new WebCall(url, this.#protocols, () => this.#refusal());
  }

  async info(timeoutS: number): Promise<ServerInfo> {
    const answer = await this.#json("GET", "/v1/info", timeoutS);
    return toPlain(GetServerInfoResponseSchema, parsed(GetServerInfoResponseSchema, answer));
  }

  async ready(timeoutS: number): Promise<boolean> {
    const { status } = await this.#fetch("GET", "/readyz", timeoutS);
    return status === 200;
  }

  async listVoices(pageSize: number, pageToken: string, timeoutS: number): Promise<VoicePage> {
    const query = new URLSearchParams({ page_size: String(pageSize), page_token: pageToken });
    const page = parsed(ListVoicesResponseSchema, await this.#json("GET", `/v1/voices?${query}`, timeoutS));
    return { voices: page.voices.map((voice) => toPlain(VoiceSchema, voice)), nextPageToken: page.nextPageToken };
  }

  async getVoice(voiceId: string, timeoutS: number): Promise<Voice> {
    return voiceOf(await this.#json("GET", `/v1/voices/${encodeURIComponent(voiceId)}`, timeoutS));
  }

  async deleteVoice(voiceId: string, timeoutS: number): Promise<void> {
    await this.#json("DELETE", `/v1/voices/${encodeURIComponent(voiceId)}`, timeoutS);
  }

  async createVoice(voice: NewVoice, audio: Uint8Array, timeoutS: number): Promise<Voice> {
    const form = new FormData();
    form.set("name", voice.name);
    form.set("consent", String(voice.consent));
    if (voice.voiceId !== undefined) form.set("voice_id", voice.voiceId);
    if (voice.normalizeLoudness !== undefined) form.set("normalize_loudness", String(voice.normalizeLoudness));
    if (voice.keepRecording !== undefined) form.set("keep_recording", String(voice.keepRecording));
    if (voice.model !== undefined) form.set("model", voice.model);
    form.set("audio", new Blob([audio as Uint8Array<ArrayBuffer>]), "audio");
    return voiceOf(await this.#json("POST", "/v1/voices", timeoutS, form));
  }

  close(): void {} // fetch keeps no connection that could be closed

  #at(path: string): URL {
    return new URL(path, this.#url);
  }

  async #json(method: string, path: string, timeoutS: number, body?: FormData): Promise<unknown> {
    const answer = await this.#fetch(method, path, timeoutS, body);
    const content: unknown = await answer.json().catch(() => null);
    if (!answer.ok) throw fromHttp(answer.status, content);
    return content;
  }

  async #fetch(method: string, path: string, timeoutS: number, body?: FormData): Promise<Response> {
    const signal = AbortSignal.timeout(timeoutS * 1000);
    try {
      const options = { method, headers: this.#headers, signal, ...(body && { body }) };
      return await fetch(this.#at(path), { ...options, cache: "no-store" });
    } catch (error) {
      if (signal.aborted) {
        const details = { code: "DEADLINE_EXCEEDED" };
        throw new TimedOut(`The server did not answer within ${timeoutS} s. Try again later.`, details);
      }
      const message = `The server at ${this.#url.host} cannot be reached, or does not allow this page's scripts (--cors-origin).`;
      throw Object.assign(unreachable(message), { cause: error });
    }
  }

  /** Why the WebSocket did not open, which browsers do not say: the same path without one is refused for the same reason. */
  async #refusal(): Promise<MynahError> {
    try {
      await this.#json("GET", STREAM, PROBE_TIMEOUT_S);
    } catch (error) {
      if ((error as MynahError).reason !== "UPGRADE_REQUIRED") return error as MynahError;
    }
    return unreachable(`The WebSocket of the server at ${this.#url.host} did not open.`);
  }
}

interface ServerFrame {
  audio?: object;
  error?: object;
}

class WebCall implements Call {
  readonly #inbox = new Inbox<StreamSpeechResponse>();
  readonly #socket: FrameSocket<ServerFrame>;
  #error: object | undefined;
  #ended = false;
  #closed = false;

  constructor(url: URL, protocols: string[], refusal: () => Promise<MynahError>) {
    this.#socket = new FrameSocket<ServerFrame>(
      url,
      {
        followed: (frame) => frame.audio !== undefined,
        message: (frame, data) => this.#receive(frame, data),
        closed: (code, reason, opened) => {
          if (opened || this.#closed) this.#inbox.finish(this.#closingError(code, reason));
          else void refusal().then((error) => this.#inbox.finish(error));
        },
      },
      protocols,
    );
  }

  async write(message: StreamSpeechRequest): Promise<void> {
    this.#socket.send(toBinary(StreamSpeechRequestSchema, message));
    await this.#inbox.whileOpen(Promise.resolve());
  }

  end(): void {
    if (!this.#ended) this.#socket.send('{"end":{}}');
    this.#ended = true;
  }

  read(): Promise<StreamSpeechResponse | undefined> {
    return this.#inbox.read();
  }

  cancel(): void {
    this.#inbox.abandon(closedHere());
    this.#close();
  }

  #close(): void {
    this.#closed = true;
    this.#socket.close();
  }

  #receive(frame: ServerFrame, data: ArrayBuffer | undefined): void {
    if (frame.error) {
      this.#error = frame; // the close code that follows has its status
      return;
    }
    try {
      const response = parsed(StreamSpeechResponseSchema, frame);
      if (data && response.event.case === "audio") response.event.value.data = new Uint8Array(data);
      this.#inbox.push(response);
    } catch (error) {
      this.#inbox.finish(error as ServerError);
      this.#close();
    }
  }

  #closingError(code: number, reason: string): MynahError | undefined {
    if (this.#error) return fromHttp(code > ERROR_CLOSE_CODE ? code - ERROR_CLOSE_CODE : 500, this.#error);
    if (code === NORMAL_CLOSE_CODE) return undefined;
    return connectionLost(`The connection to the server was lost (close code ${code}${reason && `: ${reason}`}).`);
  }
}

function parsed<Desc extends DescMessage>(schema: Desc, json: unknown): MessageShape<Desc> {
  try {
    return fromJson(schema, json as JsonValue, { ignoreUnknownFields: true });
  } catch (error) {
    throw new ServerError(`The server answered with something else than ${schema.name}: ${String(error)}`, { reason: "BAD_ANSWER" });
  }
}

function voiceOf(json: unknown): Voice {
  return toPlain(VoiceSchema, parsed(VoiceSchema, json));
}

function parsedUrl(address: string): URL {
  try {
    const url = new URL(address);
    if (["http:", "https:"].includes(url.protocol)) return url;
  } catch {
    // the error below says what an address is
  }
  const allowed = "http://HOST:PORT or https://HOST:PORT";
  const details = { reason: "SERVER_UNCLEAR", field: "server", value: address, allowed };
  throw new InvalidArgument(`The server is ${JSON.stringify(address)}; it must be ${allowed}.`, details);
}
