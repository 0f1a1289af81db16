"""What responses with speech share: the writer of their bytes, and how they are made of a stream's events."""

from __future__ import annotations

from typing import Any, Protocol

from starlette.types import Send

from service.handlers.timeouts import within_stall_timeout
from service.http.error_responses import UNPACED

MAX_WHOLE_BYTES = 32 * 1024 * 1024  # 11 minutes of 24 kHz WAV


class ResponseWriter:
    """Writes the response. It starts with the first data, so that an error before that can have a status code."""

    def __init__(self, send: Send, stall_timeout_s: float, stream_id: str) -> None:
        self._send, self._stall_timeout_s, self._stream_id = send, stall_timeout_s, stream_id
        self.started = False
        self.headers: dict[str, str] = {}  # beside those of every response

    async def write(self, media_type: str, data: bytes, *, last: bool = False) -> None:
        """Raises DeadlineExceeded if the client does not read."""
        if not self.started:
            self.started = True
            headers = {"content-type": media_type, "cache-control": "no-store", "x-request-id": self._stream_id}
            headers |= self.headers
            encoded = [(name.encode(), text.encode()) for name, text in headers.items()]
            await self._send({"type": "http.response.start", "status": 200, "headers": encoded})
        body = {"type": "http.response.body", "body": data, "more_body": not last}
        await within_stall_timeout(self._send(body), self._stall_timeout_s)

    async def write_error(self, data: bytes) -> None:
        """Ends a response that has started and failed. Does not wait for a client that does not read."""
        await self._send({"type": "http.response.body", "body": data, "more_body": False, UNPACED: True})


class SpeechResponse(Protocol):
    """A response made of the stream's events."""

    async def send(self, **event: Any) -> None: ...

    async def end(self) -> None: ...

    async def fail(self, error: Exception, stream_id: str) -> None: ...
