"""The decoder on an engine that draws tokens: what the tokens mean, and how a broken engine is replaced.

It has the interface of T3Decoder, so that the same step loop drives both. It imports no vLLM.
"""

from __future__ import annotations

import itertools
import logging
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Protocol

from engines.api import T3Use
from engines.cuda_faults import DeviceLost
from engines.errors import EngineFailure
from engines.t3.backend import T3Request
from engines.t3.decoder import Progress
from engines.t3.decoder import Sequence as T3Sequence
from engines.t3.speech_tokens import EndRules, SpeechTokens
from engines.t3.vllm.engine import Drawn
from engines.t3.vllm.sampler import NOT_FINITE_TOKEN

_log = logging.getLogger(__name__)

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
_MOST_FAILURES = 8  # two minutes; a new process may do what this one cannot
_REBUILDING = "the speech token engine failed and is being rebuilt"


class TokenEngine(Protocol):
    """The interface of VllmEngine. Used by one thread."""

    @property
    def use(self) -> T3Use: ...

    @property
    def idle(self) -> bool: ...

    def add(self, request_id: str, request: T3Request) -> None: ...

    def promote(self, request_id: str) -> None: ...

    def rest(self, request_ids: Iterable[str]) -> None: ...

    def abort(self, request_id: str) -> None: ...

    def step(self) -> Sequence[Drawn]: ...

    def close(self) -> None: ...


class VllmDecoder:
    """All requests of one backend, on one thread. `ready` and `healthy` may be read from any thread.

    The first `step` builds the engine. An exception from the engine's `step` breaks it: its requests fail, and the next
    step builds a new engine. If engines keep failing, the pause before the next one doubles from 1 s up to 60 s, until
    an engine has completed a request. A request that cannot be added, or whose logits are not finite, fails alone.

    build       builds an engine
    wait        sleeps this many seconds; returns True if it was woken because the backend is closing
    on_health   called with `healthy` when it changes, on the thread
    rules       where a segment's speech ends; None: as Turbo's
    on_failure  called with each exception that broke an engine or kept one from being built; with DeviceLost when too
                many engines have failed in a row
    """

    def __init__(
        self,
        build: Callable[[], TokenEngine],
        *,
        wait: Callable[[float], bool],
        on_health: Callable[[bool], None] = lambda _: None,
        on_failure: Callable[[BaseException], None] = lambda _: None,
        rules: EndRules | None = None,
    ) -> None:
        self._on_failure, self._rules = on_failure, rules
        self.ready: Future[None] = Future()  # done when the first engine is built; raises if it could not be built
        self._build, self._wait, self._on_health = build, wait, on_health
        self._engine: TokenEngine | None = None
        self._failures = 0  # since a request was last completed
        self._given_up = False
        self._ids = itertools.count()
        self._id_of: dict[T3Sequence, str] = {}
        self._sequence_of: dict[str, T3Sequence] = {}
        self._rejected: list[Progress] = []

    @property
    def healthy(self) -> bool:
        """Whether there is an engine for new requests. From any thread."""
        return self._engine is not None

    @property
    def engine(self) -> TokenEngine:
        """The engine in use; only while healthy."""
        assert self._engine is not None
        return self._engine

    @property
    def use(self) -> T3Use:
        """The use of the current engine; zero while there is none."""
        return T3Use() if self._engine is None else self._engine.use

    @property
    def idle(self) -> bool:
        """Whether `step` would do nothing."""
        if self._rejected:
            return False
        if self._engine is None:
            return self._given_up
        return self._engine.idle or (bool(self._id_of) and all(sequence.paused for sequence in self._id_of))

    def add(self, request: T3Request) -> T3Sequence:
        """Queue a checked request. Never raises: the next step reports a failure."""
        speech = SpeechTokens(request.sampling.max_speech_tokens, request.runaway_tokens, self._rules)
        sequence = T3Sequence(request, speech)
        request_id = str(next(self._ids))
        self._id_of[sequence], self._sequence_of[request_id] = request_id, sequence
        try:
            if self._engine is None:
                raise EngineFailure(_REBUILDING)
            self._engine.add(request_id, request)
        except Exception as error:
            self._rejected.append(self._fail(sequence, error))
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
        """Forget a sequence. Its blocks are free when this returns, and nothing is reported about it. Idempotent."""
        self._rejected[:] = [progress for progress in self._rejected if progress.sequence is not sequence]
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
        """One step of the engine, or one attempt to build an engine. Reports failures, never raises them."""
        if self._rejected:
            return self._take_rejected()
        if self._engine is None:
            self._rebuild()
            return []
        try:
            self._engine.rest(request_id for sequence, request_id in self._id_of.items() if sequence.paused)
            drawn = self._engine.step()
        except Exception as error:
            self._broke(error)
            return self._take_rejected()
        return [progress for token in drawn if (progress := self._accept(token)) is not None]

    def close(self) -> None:
        """Close the engine."""
        self._given_up = True
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _take_rejected(self) -> list[Progress]:
        rejected, self._rejected = self._rejected, []
        return rejected

    def _accept(self, drawn: Drawn) -> Progress | None:
        sequence = self._sequence_of.get(drawn.request_id)
        if sequence is None:
            return None  # released in this step, when the engine could not abort another one
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
        """Close the broken engine, then fail its requests."""
        _log.error("the speech token engine failed under %d requests", len(self._id_of), exc_info=error)
        traceback.clear_frames(error.__traceback__)
        engine, self._engine = self._engine, None
        if engine is not None:
            self._failures += 1
            self._on_health(False)
            self._on_failure(error)
            engine.close()
        self._rejected += [self._fail(sequence, error) for sequence in list(self._id_of)]

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
            self._given_up = True  # it never worked: the backend's constructor raises this error
            self.ready.set_exception(error)
            return
        _log.error("rebuilding the speech token engine failed, attempt %d", self._failures, exc_info=error)
        self._on_failure(error)
        if self._failures >= _MOST_FAILURES:
            self._on_failure(DeviceLost(f"The speech token engine failed {self._failures} times in a row: {error}"))
        traceback.clear_frames(error.__traceback__)

    def _pause_s(self) -> float:
        return min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** (self._failures - 2))


def rejected(request: T3Request) -> Progress:
    """The failure of a request that arrives while there is no engine."""
    speech = SpeechTokens(request.sampling.max_speech_tokens)
    return Progress(T3Sequence(request, speech), over=True, error=EngineFailure(_REBUILDING))


def _failure(error: Exception) -> EngineFailure:
    return EngineFailure(f"T3 failed: {type(error).__name__}: {error}")
