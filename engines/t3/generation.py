"""T3Generation over a step loop: carries speech tokens from the step thread to an asyncio task."""

from __future__ import annotations

import asyncio
import contextlib

from engines.errors import EngineFailure
from engines.t3.backend import T3Request
from engines.t3.decoder import Progress
from engines.t3.step_loop import StepLoop


class Generation:
    """The speech tokens that were drawn for one request and not yet taken. Lives on the event loop that started it."""

    def __init__(self, steps: StepLoop) -> None:
        self._steps = steps
        self._loop = asyncio.get_running_loop()
        self._speech_tokens: list[int] = []
        self._ended = False
        self._failure: EngineFailure | None = None
        self._hit_token_limit = self._hit_runaway_limit = False
        self._news = asyncio.Event()
        self._freed: asyncio.Future[None] | None = None  # set by the first `cancel`

    @classmethod
    def start(cls, steps: StepLoop, request: T3Request) -> Generation:
        """Queue a checked request. Raises EngineFailure after the loop was closed."""
        generation = cls(steps)
        if not steps.start(request, generation):
            raise EngineFailure("the engine is closed")
        return generation

    def set_target(self, speech_tokens: int) -> None:
        """As T3Generation.set_target."""
        if not self._ended:
            self._steps.set_target(self, speech_tokens)

    @property
    def hit_token_limit(self) -> bool:
        return self._hit_token_limit

    @property
    def hit_runaway_limit(self) -> bool:
        return self._hit_runaway_limit

    async def next_speech_tokens(self) -> list[int]:
        """As T3Generation.next_speech_tokens. What was made before a failure is returned before it is raised."""
        while not (self._speech_tokens or self._ended):
            self._news.clear()
            await self._news.wait()
        if not self._speech_tokens and self._failure is not None:
            raise self._failure
        speech_tokens, self._speech_tokens = self._speech_tokens, []
        return speech_tokens

    async def cancel(self) -> None:
        """As T3Generation.cancel. A `next_speech_tokens` that waits meanwhile returns []."""
        self._speech_tokens.clear()
        if self._freed is None and not self._ended:
            self._freed = self._loop.create_future()
            self._ended = True
            self._news.set()
            if not self._steps.cancel(self, self._post_freed):
                self._freed.set_result(None)
        if self._freed is not None:
            await asyncio.shield(self._freed)

    def promote(self) -> None:
        """As T3Generation.promote. From any thread; without effect after the end or `cancel`."""
        if not self._ended:
            self._steps.promote(self)

    def post(self, progress: Progress) -> None:
        """As TokenReceiver.post, on the step thread."""
        self._loop.call_soon_threadsafe(self._take, progress)

    def _take(self, progress: Progress) -> None:
        if self._freed is not None:
            return  # cancelled while this was on its way
        self._speech_tokens += progress.speech_tokens
        self._failure = progress.error
        self._ended = progress.over
        self._hit_token_limit = progress.over and progress.sequence.speech.hit_limit
        self._hit_runaway_limit = progress.over and progress.sequence.speech.ran_away
        self._news.set()

    def _post_freed(self) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed, so that `cancel` waits no more
            self._loop.call_soon_threadsafe(self._set_freed)

    def _set_freed(self) -> None:
        if self._freed is not None and not self._freed.done():
            self._freed.set_result(None)
