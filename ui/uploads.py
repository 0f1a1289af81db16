"""Uploads from browsers, kept in memory: how large, how many at once, and how long one may take.

An upload is the body of one request. No file is written and no path is taken from a browser.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mynah import InvalidArgument, MynahError, ServerBusy

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_UPLOAD_BYTES = 32 * 2**20  # the page's limit; the server has its own and checks it
MAX_PER_VISITOR = 2
MAX_UPLOADS = 6  # in all: at most 192 MiB
UPLOAD_TIMEOUT_S = 120.0


class Uploads:
    """Reads uploads within limits. `visitor` is the address of the browser."""

    def __init__(self, max_bytes: int = MAX_UPLOAD_BYTES, timeout_s: float = UPLOAD_TIMEOUT_S) -> None:
        self._max_bytes, self._timeout_s = max_bytes, timeout_s
        self._running: Counter[str] = Counter()

    @contextmanager
    def slot(self, visitor: str) -> Iterator[None]:
        """Hold one upload's place, from its first byte until it is used. Raises ServerBusy if none is free."""
        if self._running[visitor] >= MAX_PER_VISITOR or self._running.total() >= MAX_UPLOADS:
            raise ServerBusy("The page is receiving too many recordings now.", reason="UPLOADS_EXHAUSTED")
        self._running[visitor] += 1
        try:
            yield
        finally:
            self._running[visitor] -= 1
            if not self._running[visitor]:
                del self._running[visitor]

    async def read(self, body: AsyncIterator[bytes]) -> bytes:
        """Returns the whole body. Raises InvalidArgument if it is too large or takes too long."""
        received = bytearray()
        try:
            async with asyncio.timeout(self._timeout_s):
                async for chunk in body:
                    received += chunk
                    if len(received) > self._max_bytes:
                        raise _too_large(self._max_bytes)
        except TimeoutError:
            message = f"The upload took longer than {self._timeout_s:.0f} s. Try again."
            raise InvalidArgument(message, reason="UPLOAD_TIMED_OUT", field="audio") from None
        return bytes(received)

    @property
    def running(self) -> int:
        return self._running.total()


def _too_large(max_bytes: int) -> MynahError:
    allowed = f"at most {max_bytes} bytes"
    return InvalidArgument("The file is too large.", reason="AUDIO_TOO_LARGE", field="audio", allowed=allowed)
