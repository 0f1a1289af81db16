"""T3's requests on an engine that draws tokens: what each token means, and what happens when the engine breaks.

Has the same face as decoder.py's T3Decoder, so that the same thread and the same generations serve both. Knows the
engine by its protocol only; imports no vLLM.
"""

from __future__ import annotations

import itertools
import logging
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from engines.api import T3Use
from engines.errors import EngineFailure
from engines.t3.backend import T3Request
from engines.t3.decoder import Progress
from engines.t3.decoder import Sequence as T3Sequence
from engines.t3.speech_tokens import SpeechTokens
from engines.t3.vllm.engine import Drawn
from engines.t3.vllm.sampler import NOT_FINITE_TOKEN

_log = logging.getLogger(__name__)

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
_REBUILDING = "the speech token engine failed and is being rebuilt"


class TokenEngine(Protocol):
    """What VllmEngine does. Used by one thread."""

    @property
    def use(self) -> T3Use: ...

    @property
    def idle(self) -> bool: ...

    def add(self, request_id: str, request: T3Request) -> None: ...

    def promote(self, request_id: str) -> None: ...

    def abort(self, request_id: str) -> None: ...

    def step(self) -> Sequence[Drawn]: ...

    def close(self) -> None: ...


class VllmDecoder:
    """All requests of one backend. Everything but `ready` and `healthy` belongs to one thread.

    The first `step` builds the engine. An exception out of its `step` breaks it: the requests it had fail, and the
    following steps build a new one, the first at once, each later one after a pause twice as long (1 s to 60 s),
    until one has brought a request to its end. A request that cannot be added, or whose logits are not finite, fails
    alone.

    build      makes an engine
    wait       sleeps so many seconds; True when it was woken because the backend is closing
    on_health  told, on the thread, whenever `healthy` changes
    """

    def __init__(
        self,
        build: Callable[[], TokenEngine],
        *,
        wait: Callable[[float], bool],
        on_health: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.ready: Future[None] = Future()  # of the first engine, with what went wrong if it could not be built
        self._build, self._wait, self._on_health = build, wait, on_health
        self._engine: TokenEngine | None = None
        self._failures = 0  # since a request last came to its end
        self._given_up = False
        self._ids = itertools.count()
        self._id_of: dict[T3Sequence, str] = {}
        self._sequence_of: dict[str, T3Sequence] = {}
        self._refused: list[Progress] = []

    @property
    def healthy(self) -> bool:
        """Whether a request that comes now would be worked on. From any thread."""
        return self._engine is not None

    @property
    def engine(self) -> TokenEngine:
        """The engine in use; only while healthy."""
        assert self._engine is not None
        return self._engine

    @property
    def use(self) -> T3Use:
        """Of the engine in use; nothing while there is none."""
        return T3Use() if self._engine is None else self._engine.use

    @property
    def idle(self) -> bool:
        """Whether `step` would do nothing, to the engine or for anyone."""
        if self._refused:
            return False
        return self._given_up if self._engine is None else self._engine.idle

    def add(self, request: T3Request) -> T3Sequence:
        """Queue a checked request. Never raises: the next step reports what went wrong."""
        sequence = T3Sequence(request, SpeechTokens(request.sampling.max_speech_tokens))
        request_id = str(next(self._ids))
        self._id_of[sequence], self._sequence_of[request_id] = request_id, sequence
        try:
            if self._engine is None:
                raise EngineFailure(_REBUILDING)
            self._engine.add(request_id, request)
        except Exception as error:
            self._refused.append(self._fail(sequence, error))
        return sequence

    def promote(self, sequence: T3Sequence) -> None:
        """Let a sequence that was made ahead compete as one that was not. Idempotent, also after its end."""
        request_id = self._id_of.get(sequence)
        if request_id is None or self._engine is None:
            return
        try:
            self._engine.promote(request_id)
        except Exception as error:
            self._broke(error)

    def release(self, sequence: T3Sequence) -> None:
        """Forget a sequence; its blocks are free when this returns, and nothing more is reported of it. Idempotent."""
        self._refused[:] = [progress for progress in self._refused if progress.sequence is not sequence]
        request_id = self._id_of.pop(sequence, None)
        if request_id is None:
            return
        del self._sequence_of[request_id]
        if self._engine is not None:
            try:
                self._engine.abort(request_id)
            except Exception as error:
                self._broke(error)

    def step(self) -> list[Progress]:
        """One step of the engine, or one attempt to have an engine. Reports failures, never raises them."""
        if self._refused:
            return self._take_refused()
        if self._engine is None:
            self._rebuild()
            return []
        try:
            drawn = self._engine.step()
        except Exception as error:
            self._broke(error)
            return self._take_refused()
        return [progress for token in drawn if (progress := self._accept(token)) is not None]

    def close(self) -> None:
        """Let go of the engine."""
        self._given_up = True
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _take_refused(self) -> list[Progress]:
        refused, self._refused = self._refused, []
        return refused

    def _accept(self, drawn: Drawn) -> Progress | None:
        sequence = self._sequence_of.get(drawn.request_id)
        if sequence is None:
            return None  # released in this very step, when the one before it failed
        if drawn.token == NOT_FINITE_TOKEN:
            return self._fail(sequence, ArithmeticError("logits are not finite"))
        speech_tokens = sequence.speech.accept(drawn.token)
        if sequence.speech.finished:
            self._failures = 0
            self.release(sequence)
        return Progress(sequence, speech_tokens, over=sequence.speech.finished)

    def _fail(self, sequence: T3Sequence, error: Exception) -> Progress:
        self.release(sequence)
        # no __cause__: its frames would keep a broken engine, and its memory, alive
        failure = error if isinstance(error, EngineFailure) else _failure(error)
        return Progress(sequence, over=True, error=failure)

    def _broke(self, error: Exception) -> None:
        """The engine is beyond use: let go of it, then fail what it had."""
        _log.error("the speech token engine failed under %d requests", len(self._id_of), exc_info=error)
        traceback.clear_frames(error.__traceback__)
        engine, self._engine = self._engine, None
        if engine is not None:
            self._failures += 1
            self._on_health(False)
            engine.close()
        self._refused += [self._fail(sequence, error) for sequence in list(self._id_of)]

    def _rebuild(self) -> None:
        if self._given_up or (self._failures > 1 and self._wait(self._pause_s())):
            return
        try:
            self._engine = self._build()
        except Exception as error:
            self._could_not_build(error)
            return
        if not self.ready.done():
            self.ready.set_result(None)
        self._on_health(True)

    def _could_not_build(self, error: Exception) -> None:
        self._failures += 1
        if not self.ready.done():
            self._given_up = True  # it never worked: that is for whoever starts the backend to say
            self.ready.set_exception(error)
            return
        _log.error("rebuilding the speech token engine failed, attempt %d", self._failures, exc_info=error)
        traceback.clear_frames(error.__traceback__)

    def _pause_s(self) -> float:
        return min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** (self._failures - 2))


def refused(request: T3Request) -> Progress:
    """The answer to a request that comes while there is no engine."""
    speech = SpeechTokens(request.sampling.max_speech_tokens)
    return Progress(T3Sequence(request, speech), over=True, error=EngineFailure(_REBUILDING))


def _failure(error: Exception) -> EngineFailure:
    return EngineFailure(f"T3 failed: {type(error).__name__}: {error}")
