"""The sending side of a streaming gRPC call: its headers, then its messages. Knows gRPC, and nothing of speech."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import grpc.aio

from service.errors import ClientGone
from service.handlers.timeouts import within_stall_timeout


class CallWriter:
    """`open`, then `write` each message. Both raise ClientGone when the call is closed already."""

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any], stall_timeout_s: float) -> None:
        self._context = context
        self._stall_timeout_s = stall_timeout_s

    async def open(self) -> None:
        """Send the headers; await it before anything runs that can end the call.

        A first message would bring the headers with it, but gRPC notes them as sent only when that message is. A
        message given up on its way makes `abort` send them again, which fails: the client would never get its status.
        """
        await _unless_gone(self._context.send_initial_metadata(()))

    async def write(self, message: Any) -> None:
        """Returns when the connection has taken it. Raises TookTooLong. May be cancelled: the call ends well."""
        await _unless_gone(within_stall_timeout(self._context.write(message), self._stall_timeout_s))


async def _unless_gone(sending: Awaitable[None]) -> None:
    try:
        await sending
    except grpc.aio.InternalError as error:  # the call is closed already; its cancelling is on the way
        raise ClientGone from error
