/** The client's errors, and their translation from gRPC statuses and HTTP answers. */

export interface ErrorDetails {
  reason?: string;
  code?: string;
  retryAfterS?: number | undefined;
  field?: string;
  value?: string;
  allowed?: string;
}

/**
 * The base class of all errors that the client throws about a call.
 *
 * `reason` is a stable UPPER_SNAKE identifier for programs; `code` is the name of the gRPC status. `retryable` is true
 * if the same call may succeed later, and `retryAfterS` is the wait that the server suggests. `field`, `value` and
 * `allowed` describe the part of the request that was wrong; they are empty for other errors.
 */
export class MynahError extends Error {
  readonly reason: string;
  readonly code: string;
  readonly retryAfterS: number | undefined;
  readonly field: string;
  readonly value: string;
  readonly allowed: string;

  constructor(message: string, { reason = "", code = "", retryAfterS, field = "", value = "", allowed = "" }: ErrorDetails = {}) {
    super(message);
    this.reason = reason || code;
    this.code = code;
    this.retryAfterS = retryAfterS;
    this.field = field;
    this.value = value;
    this.allowed = allowed;
  }

  get retryable(): boolean {
    return this.retryAfterS !== undefined;
  }
}

/** The request is invalid; see `field`, `value` and `allowed`. */
export class InvalidArgument extends MynahError {
  override readonly name = "InvalidArgument";
}

/** The voice does not exist. */
export class NotFound extends MynahError {
  override readonly name = "NotFound";
}

/** The API key is missing or not known to the server, or the server does not serve this web page. */
export class NotAllowed extends MynahError {
  override readonly name = "NotAllowed";
}

/** The chosen voice id is already in use. */
export class AlreadyExists extends MynahError {
  override readonly name = "AlreadyExists";
}

/** The call is out of order, or its object is in a state that does not allow it. */
export class WrongState extends MynahError {
  override readonly name = "WrongState";
}

/** The server has no room for another stream (retryable) or for more text on this one. */
export class ServerBusy extends MynahError {
  override readonly name = "ServerBusy";
}

/** The server cannot be reached, is not ready, or is shutting down. */
export class Unavailable extends MynahError {
  override readonly name = "Unavailable";
}

/** A deadline or a time limit of the stream expired. */
export class TimedOut extends MynahError {
  override readonly name = "TimedOut";
}

/** The call was cancelled by this client. */
export class StreamCancelled extends MynahError {
  override readonly name = "StreamCancelled";
}

/** The server failed. */
export class ServerError extends MynahError {
  override readonly name = "ServerError";
}

const CLASSES: Record<string, typeof MynahError> = {
  INVALID_ARGUMENT: InvalidArgument,
  OUT_OF_RANGE: InvalidArgument,
  NOT_FOUND: NotFound,
  UNAUTHENTICATED: NotAllowed,
  PERMISSION_DENIED: NotAllowed,
  ALREADY_EXISTS: AlreadyExists,
  FAILED_PRECONDITION: WrongState,
  RESOURCE_EXHAUSTED: ServerBusy,
  UNAVAILABLE: Unavailable,
  DEADLINE_EXCEEDED: TimedOut,
  CANCELLED: StreamCancelled,
};
/** The messages of gRPC libraries for a stream that a proxy reset because the server behind it went away. */
const RESET_MESSAGES = ["RST_STREAM", "Stream removed", "Connection dropped"];
const RETRY_UNAVAILABLE_S = 1.0;
const RETRY_LOST_S = 0.1;

/**
 * Returns the error for the name of a status, its message and Mynah's details, which are absent if the status is from
 * gRPC itself or from a proxy. Without them it is retryable only for UNAVAILABLE or a lost connection.
 */
export function fromStatus(code: string, message: string, details?: ErrorDetails): MynahError {
  const kind = CLASSES[code] ?? ServerError;
  if (details) return new kind(message, { ...details, code });
  const reset = ["UNKNOWN", "INTERNAL"].includes(code) && RESET_MESSAGES.some((words) => message.includes(words));
  if (reset || code === "CANCELLED") return connectionLost(message);
  return new kind(message, { code, retryAfterS: code === "UNAVAILABLE" ? RETRY_UNAVAILABLE_S : undefined });
}

/** The error for a connection that broke under a call. */
export function connectionLost(message: string): MynahError {
  return new Unavailable(message, { reason: "CONNECTION_LOST", code: "UNAVAILABLE", retryAfterS: RETRY_LOST_S });
}

/** The error for a server that cannot be reached. */
export function unreachable(message: string): MynahError {
  return new Unavailable(message, { code: "UNAVAILABLE", retryAfterS: RETRY_UNAVAILABLE_S });
}

/** The error of what is used after this client closed it. */
export function closedHere(): MynahError {
  return new StreamCancelled("The stream was closed by this client.", { reason: "STREAM_CLOSED", code: "CANCELLED" });
}

const HTTP_CODES: Record<number, string> = {
  400: "INVALID_ARGUMENT",
  401: "UNAUTHENTICATED",
  403: "PERMISSION_DENIED",
  404: "NOT_FOUND",
  408: "DEADLINE_EXCEEDED",
  409: "FAILED_PRECONDITION",
  413: "INVALID_ARGUMENT",
  415: "INVALID_ARGUMENT",
  426: "FAILED_PRECONDITION",
  429: "RESOURCE_EXHAUSTED",
  502: "UNAVAILABLE",
  503: "UNAVAILABLE",
  504: "UNAVAILABLE",
  507: "RESOURCE_EXHAUSTED",
};
/** Where one status of HTTP stands for two of gRPC. */
const REASON_CODES: Record<string, string> = { VOICE_EXISTS: "ALREADY_EXISTS", VOICE_DAMAGED: "DATA_LOSS" };

/** Returns the error for an HTTP status and the answer's JSON, `{"error": {...}}`; a proxy's answer has another body. */
export function fromHttp(status: number, body: unknown): MynahError {
  const code = HTTP_CODES[status] ?? "INTERNAL";
  const error = (body as { error?: Record<string, unknown> } | null)?.error;
  if (typeof error?.["code"] !== "string") return fromStatus(code, `The server answered with HTTP status ${status}.`);
  const text = (name: string) => (typeof error[name] === "string" ? error[name] : "");
  const wait = error["retry_after_s"];
  const details = { reason: error["code"], field: text("param"), value: text("value"), allowed: text("allowed") };
  const retryAfterS = typeof wait === "number" ? wait : undefined;
  return fromStatus(REASON_CODES[details.reason] ?? code, text("message"), { ...details, retryAfterS });
}
