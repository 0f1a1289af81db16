"""Failures as gRPC statuses with google.rpc details."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from mynah.client.errors import DETAILS_KEY, DOMAIN
from service.errors import RequestError
from service.handlers.failures import Code, Failure, log, log_failure, root_cause


def details(failure: Failure) -> bytes:
    """A serialised google.rpc.Status with ErrorInfo, and BadRequest and RetryInfo where they apply."""
    info = {"field": failure.field, "value": failure.value, "allowed": failure.allowed}
    metadata = {key: text for key, text in info.items() if text}
    parts: list[Any] = [error_details_pb2.ErrorInfo(reason=failure.reason, domain=DOMAIN, metadata=metadata)]
    if failure.field and failure.code is Code.INVALID_ARGUMENT:
        violation = error_details_pb2.BadRequest.FieldViolation(field=failure.field, description=failure.message)
        parts.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if failure.retry_after_s is not None:
        parts.append(error_details_pb2.RetryInfo(retry_delay=_duration(failure.retry_after_s)))
    status = status_pb2.Status(code=failure.code.value, message=failure.message)
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


@asynccontextmanager
async def grpc_errors(context: grpc.aio.ServicerContext[Any, Any], call: str) -> AsyncIterator[None]:
    """Inside a handler: any exception ends the call with its status. Cancellation passes through."""
    try:
        yield
    except asyncio.CancelledError:
        log.info("%s: the client disconnected", call)
        raise
    except Exception as error:
        failure = log_failure(root_cause(error), call)
        if failure is None:
            return
        code = grpc.StatusCode[failure.code.name]
        with suppress(grpc.aio.InternalError):  # the client has left meanwhile; gRPC would log the error's own words
            await context.abort(code, failure.message, ((DETAILS_KEY, details(failure)),))


def reject(error: RequestError) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler, for a method of any kind, that ends every call with this error's status at once."""

    async def abort(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        async with grpc_errors(context, "call"):
            raise error

    return grpc.stream_stream_rpc_method_handler(abort)
