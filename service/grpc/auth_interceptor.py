"""What stands in front of every gRPC method: the gate for API keys. Health is open, for probes that have none."""

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
    """Lets a call through to its handler, or answers it with the refusal."""

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
    """The one `authorization` there is; two different ones are as good as none.

    The same one twice is what Riva's client sends over TLS: once with the channel, once with the call.
    """
    found = {value for key, value in metadata or () if key == "authorization" and isinstance(value, str)}
    return found.pop() if len(found) == 1 else None
