"""The gRPC interceptor that asks for API keys. Health checks need none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from service.access.auth import Authenticator
from service.errors import Unauthenticated
from service.grpc.status import reject

_OPEN = "/grpc.health.v1.Health/"


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Authenticates each call; rejects it with UNAUTHENTICATED otherwise."""

    def __init__(self, gate: Authenticator) -> None:
        self._gate = gate

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        if not str(handler_call_details.method).startswith(_OPEN):
            try:
                self._gate.authenticate(_authorization(handler_call_details.invocation_metadata))
            except Unauthenticated as error:
                return reject(error)
        return await continuation(handler_call_details)


def _authorization(metadata: Any) -> str | None:
    """The value of `authorization`; None if it is missing or has several values.

    Riva's client sends the same value twice over TLS, once with the channel and once with the call.
    """
    values = {value for key, value in metadata or () if key == "authorization" and isinstance(value, str)}
    return values.pop() if len(values) == 1 else None
