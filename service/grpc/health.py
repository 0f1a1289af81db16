"""gRPC's health service, for probes without a key: calls that stay open are limited, and none of them delays another.

`grpc_health`'s own servicer keeps any number of watches, holds a lock while it writes to a client, so that one that
reads nothing stops every change of the state, and forgets all watches of a service when one of them ends.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.grpc.places import Places
from service.grpc.status import grpc_errors

MAX_WATCHES, MAX_WATCHES_OF_CONNECTION = 1000, 16
_ADVICE = "close some, or call Check now and then"

Context = grpc.aio.ServicerContext[Any, Any]
Status = int  # a HealthCheckResponse.ServingStatus


class HealthService(health_pb2_grpc.HealthServicer):
    """grpc.health.v1.Health. At the limit of watches the oldest of the connection with the most ends for a new one."""

    def __init__(self, max_watches: int = MAX_WATCHES, max_of_connection: int = MAX_WATCHES_OF_CONNECTION) -> None:
        self._watches = Places("watches of its health", "WATCHES_EXHAUSTED", _ADVICE, max_watches, max_of_connection)
        self._statuses: dict[str, Status] = {}
        self._changed = asyncio.Event()  # replaced at each change

    @property
    def watches(self) -> int:
        """Calls of Watch that are open."""
        return self._watches.in_use

    def allow(self, max_watches: int) -> None:
        """Sets the limit of watches."""
        self._watches.limit = max_watches

    def set(self, service: str, status: Status) -> None:
        """Sets a service's status. It reaches its watches whenever they read."""
        self._statuses[service] = status
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse | None:
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND)
            return None
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        async with grpc_errors(context, "health watch"):
            ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            with self._watches.hold(str(context.peer()), lambda: ended.set_result(None)):
                await self._report(request.service, context, ended)

    async def _report(self, service: str, context: Context, ended: asyncio.Future[None]) -> None:
        """Sends the status and each change until the watch is ended for another one. Raises ResourceExhausted."""
        reporting = asyncio.ensure_future(self._send_changes(service, context))
        try:
            await asyncio.wait([reporting, ended], return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise self._watches.exhausted()
            await reporting
        finally:
            reporting.cancel()

    async def _send_changes(self, service: str, context: Context) -> None:
        sent: Status | None = None
        while True:
            changed = self._changed
            status = self._statuses.get(service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            if status != sent:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                sent = status
            await changed.wait()
