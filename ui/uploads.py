"""Uploads from browsers, kept in memory: how large, how many at once, and how long one may take.

An upload is the body of one request. No file is written and no path is taken from a browser.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect

from mynah import InvalidArgument
from ui.slots import Slots

MAX_UPLOAD_BYTES = 32 * 2**20  # the page's limit; the server has its own and checks it
MAX_PER_VISITOR = 2
MAX_UPLOADS = 6  # in all: at most 192 MiB
UPLOAD_TIMEOUT_S = 120.0


class Uploads:
    """Reads uploads within limits. Hold one of `slots` from an upload's first byte until it is used."""

    def __init__(self, max_bytes: int = MAX_UPLOAD_BYTES, timeout_s: float = UPLOAD_TIMEOUT_S) -> None:
        self._max_bytes, self._timeout_s = max_bytes, timeout_s
        self.slots = Slots(MAX_PER_VISITOR, MAX_UPLOADS, "UPLOADS_EXHAUSTED")

    async def read(self, body: AsyncIterator[bytes]) -> bytes:
        """Returns the whole body. Raises InvalidArgument if it is too large, takes too long or is broken off."""
        received = bytearray()
        try:
            async with asyncio.timeout(self._timeout_s):
                async for chunk in body:
                    received += chunk
                    if len(received) > self._max_bytes:
                        raise InvalidArgument(
                            "The file is too large.",
                            reason="AUDIO_TOO_LARGE",
                            field="audio",
                            allowed=f"at most {self._max_bytes} bytes",
                        )
        except TimeoutError:
            message = f"The upload took longer than {self._timeout_s:.0f} s. Try again."
            raise InvalidArgument(message, reason="UPLOAD_TIMED_OUT", field="audio") from None
        except ClientDisconnect:  # the answer is not read
            message = "The upload was broken off. Try again."
            raise InvalidArgument(message, reason="UPLOAD_INCOMPLETE", field="audio") from None
        return bytes(received)
