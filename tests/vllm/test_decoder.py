"""The meaning of tokens and the replacement of broken engines, on a scripted engine."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from engines.api import T3Use
from engines.errors import EngineFailure
from engines.model_spec import SILENCE_SPEECH_TOKEN, START_SPEECH_TOKEN, STOP_SPEECH_TOKEN
from engines.t3.backend import T3Request
from engines.t3.decoder import Progress
from engines.t3.vllm.decoder import VllmDecoder
from engines.t3.vllm.engine import Drawn
from engines.t3.vllm.sampler import NOT_FINITE_TOKEN
from tests.engines.t3.setting import request

TAIL = [SILENCE_SPEECH_TOKEN] * 3


class ScriptedEngine:
    """Draws the script's tokens for every request, one a step; an exception in the script is raised."""

    def __init__(self, script: list[int | Exception]) -> None:
        self.script = script
        self.steps: dict[str, int] = {}
        self.closed = False
        self.fails_to_add: Exception | None = None
        self.fails_to_change: Exception | None = None
        self.promoted: list[str] = []

    @property
    def idle(self) -> bool:
        return not self.steps

    @property
    def use(self) -> T3Use:
        return T3Use(len(self.steps) / 4, read_positions=7)

    def add(self, request_id: str, request: T3Request) -> None:
        if self.fails_to_add is not None:
            raise self.fails_to_add
        self.steps[request_id] = 0

    def promote(self, request_id: str) -> None:
        if self.fails_to_change is not None:
            raise self.fails_to_change
        self.promoted.append(request_id)

    def rest(self, request_ids: Iterable[str]) -> None:
        self.resting = set(request_ids)

    def abort(self, request_id: str) -> None:
        if self.fails_to_change is not None:
            raise self.fails_to_change
        self.steps.pop(request_id, None)

    def step(self) -> list[Drawn]:
        drawn = []
        for request_id, step in self.steps.items():
            token = self.script[step]
            if isinstance(token, Exception):
                raise token
            self.steps[request_id] = step + 1
            drawn.append(Drawn(request_id, token))
        return drawn

    def close(self) -> None:
        self.closed = True


class Factory:
    """Builds engines from a plan: a script for each, or the exception that its build raises."""

    def __init__(self, *plan: list[int | Exception] | Exception) -> None:
        self.plan = list(plan)
        self.engines: list[ScriptedEngine] = []
        self.pauses_s: list[float] = []
        self.health: list[bool] = []
        self.closing = False

    def build(self) -> ScriptedEngine:
        planned = self.plan.pop(0)
        if isinstance(planned, Exception):
            raise planned
        self.engines.append(ScriptedEngine(planned))
        return self.engines[-1]

    def wait(self, pause_s: float) -> bool:
        self.pauses_s.append(pause_s)
        return self.closing

    def decoder(self) -> VllmDecoder:
        decoder = VllmDecoder(self.build, wait=self.wait, on_health=self.health.append)
        decoder.step()
        return decoder


def until(decoder: VllmDecoder, done: Callable[[], bool], max_steps: int = 50) -> list[Progress]:
    """Everything reported until `done`."""
    progress: list[Progress] = []
    for _ in range(max_steps):
        if done():
            return progress
        progress += decoder.step()
    raise AssertionError(f"not done after {max_steps} steps")


def test_tokens_become_speech_by_the_same_rules_as_on_torch() -> None:
    """A stop drawn first does not end the segment, marks are not speech, silence closes the segment."""
    factory = Factory([STOP_SPEECH_TOKEN, 5, START_SPEECH_TOKEN, 6, STOP_SPEECH_TOKEN])
    decoder = factory.decoder()
    sequence = decoder.add(request())
    progress = until(decoder, lambda: decoder.idle)
    assert [token for step in progress for token in step.speech_tokens] == [5, 6, *TAIL]
    assert sequence.speech.finished
    assert not sequence.speech.hit_limit
    assert progress[-1].over
    assert factory.engines[0].idle, "a finished request is taken out of the engine"


def test_the_limit_counts_the_tokens_after_the_first() -> None:
    decoder = Factory([1, 2, 3, 4, 5]).decoder()
    sequence = decoder.add(request(max_speech_tokens=3))
    until(decoder, lambda: decoder.idle)
    assert sequence.speech.raw == [1, 2, 3, 4]
    assert sequence.speech.hit_limit


def test_a_released_request_is_out_of_the_engine_at_once() -> None:
    factory = Factory([1, 2, 3])
    decoder = factory.decoder()
    sequence = decoder.add(request())
    decoder.step()
    decoder.release(sequence)
    assert factory.engines[0].idle
    decoder.release(sequence)


def test_a_promoted_request_is_promoted_in_the_engine_until_it_ends() -> None:
    factory = Factory([1, 2, STOP_SPEECH_TOKEN])
    decoder = factory.decoder()
    ahead, other = (decoder.add(request(seed)) for seed in (1, 2))
    decoder.promote(other)
    assert factory.engines[0].promoted == ["1"]
    decoder.release(other)
    until(decoder, lambda: decoder.idle)
    decoder.promote(other)
    decoder.promote(ahead)
    assert factory.engines[0].promoted == ["1"], "nothing is promoted after its end"


def test_an_engine_that_cannot_promote_is_broken() -> None:
    factory = Factory([1, 2, 3], [7, STOP_SPEECH_TOKEN])
    decoder = factory.decoder()
    sequence = decoder.add(request(1))
    factory.engines[0].fails_to_change = RuntimeError("scheduler lost")
    decoder.promote(sequence)
    progress = until(decoder, lambda: decoder.healthy and decoder.idle)
    assert [step.sequence for step in progress if step.error] == [sequence]
    decoder.promote(sequence)


def test_a_request_that_cannot_be_added_fails_alone() -> None:
    factory = Factory([1, 2, STOP_SPEECH_TOKEN])
    decoder = factory.decoder()
    good = decoder.add(request(1))
    factory.engines[0].fails_to_add = LookupError("all 4 voice slots are in use")
    bad = decoder.add(request(2))
    progress = until(decoder, lambda: decoder.idle)
    (failed,) = [step for step in progress if step.error]
    assert failed.sequence is bad
    assert "voice slots" in str(failed.error)
    assert good.speech.finished
    assert factory.health == [True]


def test_logits_that_are_not_finite_fail_their_request_alone() -> None:
    factory = Factory([1, NOT_FINITE_TOKEN])
    decoder = factory.decoder()
    decoder.add(request())
    progress = until(decoder, lambda: decoder.idle)
    assert isinstance(progress[-1].error, EngineFailure)
    assert "not finite" in str(progress[-1].error)
    assert decoder.healthy


def test_a_broken_engine_fails_what_it_had_and_is_replaced() -> None:
    factory = Factory([1, RuntimeError("device lost")], [7, STOP_SPEECH_TOKEN])
    decoder = factory.decoder()
    first, second = decoder.add(request(1)), decoder.add(request(2))
    progress = until(decoder, lambda: not decoder.healthy)
    failed = [step for step in progress if step.error]
    assert [step.sequence for step in failed] == [first, second]
    assert all("RuntimeError: device lost" in str(step.error) and step.error.retryable for step in failed if step.error)
    assert factory.engines[0].closed
    until(decoder, lambda: decoder.healthy)
    assert factory.pauses_s == [], "the first new engine is built at once"
    assert factory.health == [True, False, True]
    third = decoder.add(request(3))
    until(decoder, lambda: decoder.idle)
    assert third.speech.raw == [7, STOP_SPEECH_TOKEN]


def test_an_engine_that_cannot_abort_is_broken_too() -> None:
    factory = Factory([1, 2, 3], [7, STOP_SPEECH_TOKEN])
    decoder = factory.decoder()
    cancelled, other = decoder.add(request(1)), decoder.add(request(2))
    factory.engines[0].fails_to_change = RuntimeError("scheduler lost")
    decoder.release(cancelled)
    progress = until(decoder, lambda: decoder.healthy and decoder.idle)
    assert [step.sequence for step in progress if step.error] == [other]


def test_the_broken_engine_is_gone_before_a_new_one_is_built() -> None:
    """A GPU has no room for two."""
    built: list[weakref.ref[ScriptedEngine]] = []

    def build() -> ScriptedEngine:
        assert all(engine() is None for engine in built), "the old engine is still alive"
        engine = ScriptedEngine([1, RuntimeError("device lost")])
        built.append(weakref.ref(engine))
        return engine

    decoder = VllmDecoder(build, wait=lambda _: False)
    decoder.step()
    kept = []
    for seed in range(3):
        decoder.add(request(seed))
        kept += until(decoder, lambda: not decoder.healthy)  # a caller may keep the error
        until(decoder, lambda: decoder.healthy)
    assert len(built) == 4
    assert len([step for step in kept if step.error]) == 3


def test_pauses_grow_until_a_request_is_completed() -> None:
    broken: list[int | Exception] = [RuntimeError("again")]
    factory = Factory(broken, broken, OSError("no memory"), broken, [1, STOP_SPEECH_TOKEN, RuntimeError("later")], [])
    decoder = factory.decoder()
    for seed in range(3):
        decoder.add(request(seed))
        until(decoder, lambda: not decoder.healthy)
        until(decoder, lambda: decoder.healthy)
    assert factory.pauses_s == [1.0, 2.0, 4.0]
    decoder.add(request(4))
    until(decoder, lambda: decoder.idle)  # completed: the pauses start anew
    decoder.add(request(5, max_speech_tokens=5))
    factory.engines[-1].script[1] = 2  # this one goes on to the script's end, where the engine breaks
    until(decoder, lambda: not decoder.healthy)
    until(decoder, lambda: decoder.healthy)
    assert factory.pauses_s == [1.0, 2.0, 4.0]


def test_pauses_are_bounded() -> None:
    factory = Factory([RuntimeError("once")], *[OSError("no memory")] * 9, [])
    decoder = factory.decoder()
    decoder.add(request())
    until(decoder, lambda: not decoder.healthy)
    until(decoder, lambda: decoder.healthy)
    assert factory.pauses_s == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_a_request_that_comes_while_there_is_no_engine_fails() -> None:
    factory = Factory([RuntimeError("device lost")], [])
    decoder = factory.decoder()
    decoder.add(request(1))
    until(decoder, lambda: not decoder.healthy)
    late = decoder.add(request(2))
    (progress,) = decoder.step()
    assert progress.sequence is late
    assert "being rebuilt" in str(progress.error)
    assert not decoder.healthy, "it was answered before the next attempt"


def test_nothing_is_reported_of_a_request_that_was_released() -> None:
    """Cancelled between its failure and the report of it."""
    factory = Factory([1, 2], [])
    decoder = factory.decoder()
    factory.engines[0].fails_to_add = LookupError("no slot")
    rejected = decoder.add(request(1))
    assert not decoder.idle
    decoder.release(rejected)
    assert decoder.idle
    assert decoder.step() == []


def test_a_first_engine_that_cannot_be_built_is_not_tried_again() -> None:
    factory = Factory(OSError("no such device"))
    decoder = factory.decoder()
    with pytest.raises(OSError, match="no such device"):
        decoder.ready.result(timeout=0)
    assert decoder.idle
    assert factory.health == []


def test_closing_ends_the_wait_without_another_engine() -> None:
    factory = Factory([RuntimeError("once")], OSError("no memory"))
    decoder = factory.decoder()
    decoder.add(request())
    until(decoder, lambda: not decoder.healthy)
    decoder.step()
    factory.closing = True
    assert decoder.step() == []
    assert not decoder.healthy
    decoder.close()
    assert decoder.idle
    assert all(engine.closed for engine in factory.engines)


def test_speech_that_runs_away_is_ended_and_freed() -> None:
    factory = Factory([1, 2, 3, 4, 5, 6])
    decoder = factory.decoder()
    sequence = decoder.add(replace(request(), runaway_tokens=3))
    progress = until(decoder, lambda: decoder.idle)
    assert [token for each in progress for token in each.speech_tokens] == [1, 2, 3, 4, *TAIL]
    assert progress[-1].over
    assert sequence.speech.ran_away
    assert decoder.idle
