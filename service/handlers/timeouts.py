"""The time limits of a client's sending and reading."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from service.errors import DeadlineExceeded

T = TypeVar("T")


async def within_stall_timeout(sending: Awaitable[T], stall_timeout_s: float) -> T:
    """Await a send. Raises DeadlineExceeded if the client leaves it unread for longer."""
    try:
        async with asyncio.timeout(stall_timeout_s):
            return await sending
    except TimeoutError:
        allowed = f"{stall_timeout_s:g} s"
        message = f"The client has not read for {allowed}, as long as it may; read on and retry with a new stream."
        raise DeadlineExceeded("READER_STALLED", message, allowed=allowed) from None
