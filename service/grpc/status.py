"""The one place where errors become gRPC statuses with details, and where a failed call is logged.

Messages and values may quote a client's own text back to it; the log gets neither.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from engines.errors import CheckpointError, EngineBusy, EngineError, EngineFailure, InvalidInput
from mynah.client.errors import DETAILS_KEY, DOMAIN
from service import errors
from service.telemetry import metrics

log = logging.getLogger("mynah.service")

_CODES: dict[type[Exception], grpc.StatusCode] = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    EngineBusy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    EngineFailure: grpc.StatusCode.INTERNAL,
    CheckpointError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_ENGINE_RETRY_AFTER_S = 1.0


@dataclass(frozen=True)
class Failure:
    """A status to be sent. `retry_after_s` is None when retrying the same call is pointless."""

    code: grpc.StatusCode
    reason: str
    message: str
    field: str = ""
    value: str = ""
    allowed: str = ""
    retry_after_s: float | None = None

    def details(self) -> bytes:
        """A serialised google.rpc.Status with ErrorInfo, and BadRequest and RetryInfo where they apply."""
        about = {"field": self.field, "value": self.value, "allowed": self.allowed}
        metadata = {key: text for key, text in about.items() if text}
        parts: list[Any] = [error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=metadata)]
        if self.field and self.code is grpc.StatusCode.INVALID_ARGUMENT:
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=self.message)
            parts.append(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.retry_after_s is not None:
            parts.append(error_details_pb2.RetryInfo(retry_delay=_duration(self.retry_after_s)))
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for part in parts:
            packed = AnyMessage()
            packed.Pack(part)
            status.details.append(packed)
        serialised: bytes = status.SerializeToString()
        return serialised


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def failure_of(error: BaseException) -> Failure:
    """The status for any exception; one that is not ours is a fault of the server's, and says no more than that."""
    if isinstance(error, DecodeError):
        message = "a message could not be decoded as what the contract says stands here"
        return Failure(grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_INVALID", message, field="message")
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), None)
    if code is None:
        return Failure(grpc.StatusCode.INTERNAL, "INTERNAL", "the server failed on this call; its log says where")
    if isinstance(error, InvalidInput):
        return Failure(code, error.reason, str(error), error.field, error.value, error.allowed)
    if isinstance(error, errors.RequestError):
        return Failure(code, error.reason, str(error), error.field, error.value, error.allowed, error.retry_after_s)
    assert isinstance(error, EngineError)
    return Failure(code, error.reason, str(error), retry_after_s=_ENGINE_RETRY_AFTER_S if error.retryable else None)


def root_cause(error: Exception) -> Exception:
    """Of the failures of several tasks the one that ended the others."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def log_failure(error: Exception, call: str) -> Failure | None:
    """What to tell a client of an error, once the log has it; None when there is nobody to tell."""
    if isinstance(error, errors.ClientGone):
        log.info("%s: the client went away", call)
        return None
    failure = failure_of(error)
    _log(call, failure, error)
    return failure


@asynccontextmanager
async def grpc_errors(context: grpc.aio.ServicerContext[Any, Any], call: str) -> AsyncIterator[None]:
    """Inside a handler: any exception ends the call with its status. Cancellation passes through."""
    try:
        yield
    except asyncio.CancelledError:
        log.info("%s: the client went away", call)
        raise
    except Exception as error:
        failure = log_failure(root_cause(error), call)
        if failure is None:
            return
        with suppress(grpc.aio.InternalError):  # the client has gone meanwhile; gRPC would log the error's own words
            await context.abort(failure.code, failure.message, ((DETAILS_KEY, failure.details()),))


def reject(error: errors.RequestError) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler, for a method of any kind, that ends every call with this error's status at once."""

    async def abort(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        async with grpc_errors(context, "call"):
            raise error

    return grpc.stream_stream_rpc_method_handler(abort)


def _log(call: str, failure: Failure, error: BaseException) -> None:
    metrics.ERRORS.labels(failure.reason).inc()
    if failure.code is not grpc.StatusCode.INTERNAL:
        log.info("%s: %s %s %s", call, failure.code.name, failure.reason, failure.field)
        return
    log.error("%s: %s\n%s", call, failure.reason, _places(error))


def _places(error: BaseException) -> str:
    """Type and place of an exception and of what caused it. Its own words may hold text and are left out."""
    about = f"{type(error).__name__}\n" + "".join(traceback.format_tb(error.__traceback__))
    cause = error.__cause__ or error.__context__
    return about if cause is None else f"{about}because of {_places(cause)}"
