"""A call that fails over to another server until its first audio.

Until then all sent messages are kept and sent again to the next server, and events that the reader already has are
skipped. After the first audio an error is raised instead, because a retry would repeat words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from mynah.client.errors import MynahError
from mynah.client.servers import Server, Servers
from mynah.client.transport import BidiStream


class FailoverCall:
    """A BidiStream with failover. `start` begins the call on a server."""

    def __init__(self, servers: Servers, start: Callable[[Server], Any], max_failovers: int) -> None:
        self._servers = servers
        self._start = start
        self._failovers_left = max_failovers
        self._tried: list[str] = []
        self._sent: list[Any] = []
        self._ended = False
        self._delivered = 0  # messages, to the reader
        self._to_skip = 0  # messages of this call that the reader has from an earlier one
        self._has_audio = False  # from then on no failover
        self._closed = False
        self._call_number = 0
        self._lock = asyncio.Lock()  # one write or failover at a time
        self._begin()

    def _begin(self) -> None:
        self._server = self._servers.pick(avoid=self._tried)
        self._tried.append(self._server.address)
        self._server.acquire()
        self._call = BidiStream(self._start(self._server))
        self._call_number += 1
        self._to_skip = self._delivered

    async def _release(self) -> None:
        self._server.release()
        await self._call.close()

    async def read(self) -> Any | None:
        """Returns the next new message, or None at the end. Raises MynahError if the call failed for good."""
        while True:
            number = self._call_number
            try:
                message = await self._call.read()
            except MynahError as error:
                await self._fail_over(error, number)
                continue
            if message is None:
                return None
            is_audio = message.WhichOneof("event") == "audio"
            if self._to_skip and not is_audio:
                self._to_skip -= 1
                continue
            self._delivered += 1
            if is_audio and not self._has_audio:
                self._has_audio = True
                self._sent.clear()
            return message

    async def write(self, message: Any) -> None:
        """Send a message. Raises MynahError if the call failed for good."""
        async with self._lock:
            if not self._has_audio:
                self._sent.append(message)
            number = self._call_number
            try:
                await self._call.write(message)
                return
            except MynahError as error:
                failure = error
        await self._fail_over(failure, number)

    async def done_writing(self) -> None:
        """Half-close."""
        async with self._lock:
            self._ended = True
            await self._call.done_writing()

    async def close(self) -> None:
        """End the call in any state. Idempotent."""
        if not self._closed:
            self._closed = True
            await self._release()

    async def _fail_over(self, error: MynahError, number: int) -> None:
        """Continue on another server after call `number` failed. Raises the error if that is not allowed."""
        async with self._lock:
            while number == self._call_number:  # else another task has already failed over
                if self._has_audio or self._closed or not error.retryable or not self._failovers_left:
                    raise error
                self._failovers_left -= 1
                self._server.failed(error)
                await self._release()
                await asyncio.sleep(self._servers.cooldown_s())
                self._begin()
                try:
                    await self._resend()
                except MynahError as next_error:
                    error, number = next_error, self._call_number

    async def _resend(self) -> None:
        for message in self._sent:
            await self._call.write(message)
        if self._ended:
            await self._call.done_writing()
