/** What the client needs of a connection to one server. gRPC and WebSockets provide it. */

import type { StreamSpeechRequest, StreamSpeechResponse } from "./gen/mynah/v1/speech_pb.js";
import type { ServerInfo, Voice } from "./types.js";

/** Time limits in seconds. An open stream has none here: the server's idle and stall limits apply. */
export interface Timeouts {
  /** Until the server has opened a stream; 10. */
  openS?: number;
  /** For info, ready and voices, except `create`; 30. */
  callS?: number;
  /** For `voices.create`; 300. */
  createVoiceS?: number;
}

/** A recording for a new voice. */
export interface NewVoice {
  name: string;
  /** The speaker agreed to this voice; must be true. */
  consent: boolean;
  voiceId?: string | undefined;
  normalizeLoudness?: boolean | undefined;
  /** Whether the server keeps the recording, so that the voice can be made again from it for another model. */
  keepRecording?: boolean | undefined;
  /** The model that the voice is made for; absent: the server's first. */
  model?: string | undefined;
}

export interface VoicePage {
  voices: Voice[];
  nextPageToken: string;
}

/** The connection to one server. Calls reject with a MynahError; `timeoutS` limits how long they take. */
export interface Connection {
  readonly address: string;
  /** Begins a call of StreamSpeech. */
  stream(): Call;
  info(timeoutS: number): Promise<ServerInfo>;
  /** Whether the server takes new streams. Needs no API key. */
  ready(timeoutS: number): Promise<boolean>;
  listVoices(pageSize: number, pageToken: string, timeoutS: number): Promise<VoicePage>;
  getVoice(voiceId: string, timeoutS: number): Promise<Voice>;
  createVoice(voice: NewVoice, audio: Uint8Array, timeoutS: number): Promise<Voice>;
  deleteVoice(voiceId: string, timeoutS: number): Promise<void>;
  close(): void;
}

/** One call of StreamSpeech. One task may read at a time. */
export interface Call {
  /** Sends a message; resolves when more may be sent. Rejects with the call's error if it has ended. */
  write(message: StreamSpeechRequest): Promise<void>;
  /** Half-closes. Does nothing if the call has ended. */
  end(): void;
  /** Returns the next message, undefined at the end. Rejects with the call's error after its last message. */
  read(): Promise<StreamSpeechResponse | undefined>;
  /** Ends the call at once, in any state. */
  cancel(): void;
}
