"""A call that moves to another server when its own fails before the first audio.

Until then everything that was sent is kept and said again there, and what the listener already knows is left out.
From the first audio on a failure is the caller's to handle: nobody may hear the same words twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from mynah.client.errors import MynahError
from mynah.client.servers import Server, Servers
from mynah.client.transport import Duplex


class Replay:
    """Reads and writes as a Duplex; `start` begins the call on a server, `moves` is how often it may move."""

    def __init__(self, servers: Servers, start: Callable[[Server], Any], moves: int) -> None:
        self._servers = servers
        self._start = start
        self._moves = moves
        self._tried: list[str] = []
        self._said: list[Any] = []
        self._ended = False
        self._given = 0  # messages that the reader has had
        self._unwanted = 0  # of a new call: those that the reader has had from an earlier one
        self._settled = False  # audio came: no more moving
        self._closed = False
        self._call_number = 0
        self._lock = asyncio.Lock()  # one writer or mover at a time
        self._begin()

    def _begin(self) -> None:
        self._server = self._servers.pick(avoid=self._tried)
        self._tried.append(self._server.address)
        self._server.enter()
        self._call = Duplex(self._start(self._server))
        self._call_number += 1
        self._unwanted = self._given

    async def _leave(self) -> None:
        self._server.leave()
        await self._call.close()

    async def read(self) -> Any | None:
        """The next message that is new; None at the end. Raises MynahError when the call failed for good."""
        while True:
            number = self._call_number
            try:
                message = await self._call.read()
            except MynahError as error:
                await self._move(error, number)
                continue
            if message is None:
                return None
            is_audio = message.WhichOneof("event") == "audio"
            if self._unwanted and not is_audio:
                self._unwanted -= 1
                continue
            self._given += 1
            if is_audio and not self._settled:
                self._settled = True
                self._said.clear()
            return message

    async def write(self, message: Any) -> None:
        """Send a message. Raises MynahError when the call has failed for good."""
        async with self._lock:
            if not self._settled:
                self._said.append(message)
            number = self._call_number
            try:
                await self._call.write(message)
                return
            except MynahError as error:
                failure = error
        await self._move(failure, number)

    async def done_writing(self) -> None:
        """Half-close."""
        async with self._lock:
            self._ended = True
            await self._call.done_writing()

    async def close(self) -> None:
        """End the call, whatever its state. Idempotent."""
        if not self._closed:
            self._closed = True
            await self._leave()

    async def _move(self, error: MynahError, number: int) -> None:
        """Go on elsewhere after call `number` failed; raises the error when that is not allowed."""
        async with self._lock:
            while number == self._call_number:  # else somebody else has moved already
                if self._settled or self._closed or not error.retryable or not self._moves:
                    raise error
                self._moves -= 1
                self._server.failed(error)
                await self._leave()
                await asyncio.sleep(self._servers.rest_s())
                self._begin()
                try:
                    await self._say_again()
                except MynahError as again:
                    error, number = again, self._call_number

    async def _say_again(self) -> None:
        for message in self._said:
            await self._call.write(message)
        if self._ended:
            await self._call.done_writing()
