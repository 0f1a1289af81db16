"""The sending side of a streaming gRPC call: its headers, then its messages."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import grpc.aio

from service.errors import ClientGone
from service.handlers.timeouts import within_stall_timeout


class CallWriter:
    """Use `open`, then `write` for each message. Both raise ClientGone if the call is closed already."""

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any], stall_timeout_s: float) -> None:
        self._context = context
        self._stall_timeout_s = stall_timeout_s

    async def open(self) -> None:
        """Send the headers. Await this before starting anything that can end the call.

        The first message would carry the headers too, but gRPC notes them as sent only once that message is. If that
        message is abandoned, `abort` sends the headers again and fails, and the client never gets its status.
        """
        await _unless_gone(self._context.send_initial_metadata(()))

    async def write(self, message: Any) -> None:
        """Send a message; returns when the connection has taken it. Raises DeadlineExceeded. May be cancelled."""
        await _unless_gone(within_stall_timeout(self._context.write(message), self._stall_timeout_s))


async def _unless_gone(sending: Awaitable[None]) -> None:
    try:
        await sending
    except grpc.aio.InternalError as error:  # the call is closed already; its cancellation follows
        raise ClientGone from error
