/** What both entry points export. */

export {
  AlreadyExists,
  InvalidArgument,
  MynahError,
  NotAllowed,
  NotFound,
  ServerBusy,
  ServerError,
  StreamCancelled,
  TimedOut,
  Unavailable,
  WrongState,
} from "./errors.js";
export type { ClientOptions } from "./client.js";
export { SpeechStream } from "./stream.js";
export { Voices } from "./voices.js";
export type { NewVoice, Timeouts } from "./transport.js";
export type * from "./types.js";
