"""A stream's call to the handler in this process: the client's side of it, without a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from mynah.client.errors import MynahError
from mynah.v1 import speech_pb2
from service.handlers.failures import error_of, log_failure, root_cause
from service.handlers.speech_handler import SpeechHandler, new_stream_id
from service.handlers.stream_log import Origin

_ORIGIN = Origin("bulk", "this process")
_MAX_ANSWERS = 16  # made ahead of the reader


class LocalCall:
    """A Call (see mynah.client.stream) on an event loop, for one reader."""

    def __init__(self, handler: SpeechHandler) -> None:
        self._requests: asyncio.Queue[speech_pb2.StreamSpeechRequest | None] = asyncio.Queue()
        self._answers: asyncio.Queue[speech_pb2.StreamSpeechResponse | _End] = asyncio.Queue(_MAX_ANSWERS)
        self._end: _End | None = None
        self._task = asyncio.create_task(self._run(handler), name="local-call")

    async def _run(self, handler: SpeechHandler) -> None:
        stream_id, end = new_stream_id(), _End()
        try:
            await handler.stream(stream_id, self._received(), self._send, _ORIGIN)
        except Exception as error:
            cause = root_cause(error)
            log_failure(cause, f"stream {stream_id}")
            end = _End(error_of(cause))
        await self._answers.put(end)

    async def _received(self) -> AsyncIterator[speech_pb2.StreamSpeechRequest]:
        while (request := await self._requests.get()) is not None:
            yield request

    async def _send(self, **event: Any) -> None:
        await self._answers.put(speech_pb2.StreamSpeechResponse(**event))

    async def write(self, message: Any) -> None:
        """Never waits: the text that may wait to be spoken is bounded by its sender."""
        self._requests.put_nowait(message)

    async def done_writing(self) -> None:
        self._requests.put_nowait(None)

    async def read(self) -> speech_pb2.StreamSpeechResponse | None:
        if self._end is None:
            answer = await self._answers.get()
            if not isinstance(answer, _End):
                return answer
            self._end = answer
        if self._end.error is not None:
            raise self._end.error
        return None

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


@dataclass(frozen=True)
class _End:
    error: MynahError | None = None
