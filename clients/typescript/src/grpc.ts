/** The connection of Node: gRPC by @grpc/grpc-js. */

import * as grpc from "@grpc/grpc-js";
import { type DescMessage, type DescMethod, type MessageShape, create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { anyUnpack, durationMs } from "@bufbuild/protobuf/wkt";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "./gen/google/rpc/status_pb.js";
import { GetServerInfoResponseSchema, Speech, type StreamSpeechRequest, type StreamSpeechResponse } from "./gen/mynah/v1/speech_pb.js";
import { CreateVoiceRequestSchema, type CreateVoiceResponse, NewVoiceSchema, VoiceSchema, Voices } from "./gen/mynah/v1/voices_pb.js";
import { type ErrorDetails, type MynahError, ServerError, closedHere, fromStatus } from "./errors.js";
import { Inbox } from "./inbox.js";
import { toMessage, toPlain } from "./plain.js";
import type { Call, Connection, NewVoice, VoicePage } from "./transport.js";
import type { ServerInfo, Voice } from "./types.js";

/** The certificates of an encrypted connection, in PEM. */
export interface Tls {
  /** The trusted ones; absent: those of Node. */
  rootCertificates?: Buffer;
  /** The name in the server's certificate, if it is not the address's. */
  serverName?: string;
  /** Both identify this client to a server that requires it. */
  certificate?: Buffer;
  key?: Buffer;
}

const OPTIONS: grpc.ChannelOptions = {
  // pings detect a peer that vanished; the server allows one every 10 s
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
  // gRPC's own limit is two minutes, too long after a restart of the server
  "grpc.max_reconnect_backoff_ms": 2_000,
};
const MAX_UNREAD = 4; // messages; then the server has to wait
const UPLOAD_BYTES = 64 * 1024;
const DETAILS = "grpc-status-details-bin";
const DOMAIN = "mynah";
// gRPC's health protocol is two messages of one field each
const HEALTH_CHECK = "/grpc.health.v1.Health/Check";
const SERVING = Buffer.from([8, 1]); // HealthCheckResponse: field 1, the value SERVING

type Status = Pick<grpc.StatusObject, "code" | "details" | "metadata">;

/** The connection to one HOST:PORT; it connects on first use. */
export class GrpcConnection implements Connection {
  readonly #client: grpc.Client;
  readonly #metadata = new grpc.Metadata();

  constructor(readonly address: string, tls: Tls | undefined, apiKey: string | undefined) {
    const named = tls?.serverName ? { "grpc.ssl_target_name_override": tls.serverName } : {};
    this.#client = new grpc.Client(address, credentials(tls), { ...OPTIONS, ...named });
    if (apiKey !== undefined) this.#metadata.set("authorization", `Bearer ${apiKey}`);
  }

  stream(): Call {
    const { path, write, read } = codec(Speech.method.streamSpeech);
    return new GrpcCall(this.#client.makeBidiStreamRequest(path, write, read, this.#metadata));
  }

  async info(timeoutS: number): Promise<ServerInfo> {
    return toPlain(GetServerInfoResponseSchema, await this.#unary(Speech.method.getServerInfo, {}, timeoutS));
  }

  async ready(timeoutS: number): Promise<boolean> {
    const bytes = (value: Buffer) => value;
    const answer = await settled<Buffer>((done) =>
      this.#client.makeUnaryRequest(HEALTH_CHECK, bytes, bytes, Buffer.alloc(0), deadline(timeoutS), done),
    );
    return SERVING.equals(answer);
  }

  async listVoices(pageSize: number, pageToken: string, timeoutS: number): Promise<VoicePage> {
    const page = await this.#unary(Voices.method.listVoices, { pageSize, pageToken }, timeoutS);
    return { voices: page.voices.map((voice) => toPlain(VoiceSchema, voice)), nextPageToken: page.nextPageToken };
  }

  async getVoice(voiceId: string, timeoutS: number): Promise<Voice> {
    return voiceOf(await this.#unary(Voices.method.getVoice, { voiceId }, timeoutS));
  }

  async deleteVoice(voiceId: string, timeoutS: number): Promise<void> {
    await this.#unary(Voices.method.deleteVoice, { voiceId }, timeoutS);
  }

  async createVoice(voice: NewVoice, audio: Uint8Array, timeoutS: number): Promise<Voice> {
    const { path, write, read } = codec(Voices.method.createVoice);
    const metadata = toMessage(NewVoiceSchema, voice);
    let answered = false;
    const answer = await settled<CreateVoiceResponse>((done) => {
      const call = this.#client.makeClientStreamRequest(path, write, read, this.#metadata, deadline(timeoutS), (error, value) => {
        answered = true;
        done(error, value);
      });
      const send = (part: { case: "metadata"; value: typeof metadata } | { case: "audioChunk"; value: Uint8Array }) =>
        new Promise((sent) => call.write(create(CreateVoiceRequestSchema, { part }), sent));
      const upload = async () => {
        await send({ case: "metadata", value: metadata });
        for (let start = 0; start < audio.length && !answered; start += UPLOAD_BYTES)
          await send({ case: "audioChunk", value: audio.subarray(start, start + UPLOAD_BYTES) });
        call.end();
      };
      void upload();
    });
    return voiceOf(answer);
  }

  close(): void {
    this.#client.close();
  }

  #unary<Method extends DescMethod>(method: Method, request: object, timeoutS: number): Promise<MessageShape<Method["output"]>> {
    const { path, write, read } = codec(method);
    const message = create(method.input, request as never) as MessageShape<Method["input"]>;
    return settled((done) => this.#client.makeUnaryRequest(path, write, read, message, this.#metadata, deadline(timeoutS), done));
  }
}

class GrpcCall implements Call {
  readonly #inbox = new Inbox<StreamSpeechResponse>();
  readonly #call: grpc.ClientDuplexStream<StreamSpeechRequest, StreamSpeechResponse>;
  #error: MynahError | undefined;

  constructor(call: grpc.ClientDuplexStream<StreamSpeechRequest, StreamSpeechResponse>) {
    this.#call = call;
    call.on("data", (message: StreamSpeechResponse) => {
      this.#inbox.push(message);
      if (this.#inbox.size >= MAX_UNREAD) call.pause();
    });
    call.on("error", () => {}); // the status has it, too
    call.on("status", (status: Status) => (this.#error = status.code === grpc.status.OK ? undefined : fromGrpc(status)));
    call.on("end", () => this.#inbox.finish(this.#error)); // after the last message
  }

  async write(message: StreamSpeechRequest): Promise<void> {
    // a message that is not sent has no answer here: the call's status says why
    const sent = new Promise<void>((resolve) => this.#call.write(message, (error?: Error | null) => error ?? resolve()));
    await this.#inbox.whileOpen(sent);
  }

  end(): void {
    this.#call.end();
  }

  async read(): Promise<StreamSpeechResponse | undefined> {
    if (this.#inbox.size < MAX_UNREAD) this.#call.resume();
    return this.#inbox.read();
  }

  cancel(): void {
    this.#inbox.abandon(closedHere());
    this.#call.cancel();
    this.#call.resume(); // what is unread goes, so that the call's resources do
  }
}

function credentials(tls: Tls | undefined): grpc.ChannelCredentials {
  if (!tls) return grpc.credentials.createInsecure();
  return grpc.credentials.createSsl(tls.rootCertificates ?? null, tls.key ?? null, tls.certificate ?? null);
}

function deadline(timeoutS: number): grpc.CallOptions {
  return { deadline: Date.now() + timeoutS * 1000 };
}

interface Codec<Input, Output> {
  path: string;
  write: (message: Input) => Buffer;
  read: (bytes: Buffer) => Output;
}

function codec<Method extends DescMethod>(method: Method): Codec<MessageShape<Method["input"]>, MessageShape<Method["output"]>> {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    write: (message) => Buffer.from(toBinary(method.input as DescMessage, message)),
    read: (bytes) => fromBinary(method.output as DescMessage, bytes) as MessageShape<Method["output"]>,
  };
}

function settled<T>(start: (done: (error: grpc.ServiceError | null, value?: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    start((error, value) => (error ? reject(fromGrpc(error)) : resolve(value as T)));
  });
}

function voiceOf({ voice }: Pick<CreateVoiceResponse, "voice">): Voice {
  if (!voice) throw new ServerError("The server answered without the voice.", { reason: "BAD_ANSWER" });
  return toPlain(VoiceSchema, voice);
}

/** Returns the error for a status of gRPC. */
export function fromGrpc({ code, details, metadata }: Status): MynahError {
  const name = grpc.status[code] ?? "UNKNOWN";
  return fromStatus(name, details || name, readDetails(metadata?.get(DETAILS)[0]));
}

/** Returns Mynah's details of a status, or undefined if it has none. */
function readDetails(raw: grpc.MetadataValue | undefined): ErrorDetails | undefined {
  if (!(raw instanceof Uint8Array)) return undefined;
  const details: ErrorDetails = {};
  let ours = false;
  try {
    for (const any of fromBinary(StatusSchema, raw).details) {
      const info = anyUnpack(any, ErrorInfoSchema);
      if (info) {
        ours = info.domain === DOMAIN;
        const { field = "", value = "", allowed = "" } = info.metadata;
        Object.assign(details, { reason: info.reason, value, allowed, field: field || details.field });
      }
      const retry = anyUnpack(any, RetryInfoSchema);
      if (retry?.retryDelay) details.retryAfterS = durationMs(retry.retryDelay) / 1000;
      details.field ||= anyUnpack(any, BadRequestSchema)?.fieldViolations[0]?.field ?? "";
    }
  } catch {
    return undefined; // bytes of something else
  }
  return ours ? details : undefined;
}
