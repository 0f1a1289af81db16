"""Two batches overlap in serving: the device has work while the host lays out the next batch and finishes the last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from engines.errors import EngineFailure
from engines.s3gen.noise import F32
from engines.s3gen.runtime import FlowBatch, VocoderBatch, VocoderResult
from engines.s3gen.streaming.batcher import WindowBatcher
from engines.s3gen.streaming.segment_decoder import SegmentDecoder
from engines.s3gen.streaming.windows import Window
from tests.engines.fakes import FakeRuntime, make_voice

HOST_MS, FLOW_MS, VOCODER_MS = 3, 10, 4


class Clocked(FakeRuntime):
    """A device with a clock of its own: it computes what was started in order, while the host goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.host_ms = self.free_ms = self.busy_ms = 0
        self.log: list[str] = []

    def _start(self, name: str, cost_ms: int) -> int:
        self.host_ms += HOST_MS
        self.free_ms = max(self.free_ms, self.host_ms) + cost_ms
        self.busy_ms += cost_ms
        self.log.append(f"{name} started")
        return self.free_ms

    def _wait(self, name: str, end_ms: int) -> None:
        self.host_ms = max(self.host_ms, end_ms) + HOST_MS
        self.log.append(f"{name} done")

    def flow(self, batch: FlowBatch) -> F32:
        end_ms = self._start("flow", FLOW_MS)
        self._wait("flow", end_ms)
        return super().flow(batch)

    def vocoder(self, batch: VocoderBatch) -> VocoderResult:
        end_ms = self._start("vocoder", VOCODER_MS)
        self._wait("vocoder", end_ms)
        return super().vocoder(batch)


class Submitting(Clocked):
    """The same device, driven without waiting."""

    def submit_flow(self, batch: FlowBatch) -> Callable[[], F32]:
        end_ms, mel = self._start("flow", FLOW_MS), FakeRuntime.flow(self, batch)
        return lambda: (self._wait("flow", end_ms), mel)[1]

    def submit_vocoder(self, batch: VocoderBatch) -> Callable[[], VocoderResult]:
        end_ms, result = self._start("vocoder", VOCODER_MS), FakeRuntime.vocoder(self, batch)
        return lambda: (self._wait("vocoder", end_ms), result)[1]


async def decoded(runtime: Clocked, windows: int = 5) -> list[F32 | BaseException]:
    batcher = WindowBatcher(runtime, max_batch=1)
    decoders = [SegmentDecoder(make_voice(21), seed, list(range(10 * seed, 10 * seed + 10))) for seed in range(windows)]
    window = Window(0, 0, 0, 10, 10, is_last=True)
    results = await asyncio.gather(
        *(batcher.decode(decoder, window, deadline_s=0.0) for decoder in decoders), return_exceptions=True
    )
    await batcher.close()
    return [result if isinstance(result, BaseException) else result.samples for result in results]


async def test_the_next_flow_runs_while_a_batch_is_finished() -> None:
    waiting, overlapping = Clocked(), Submitting()
    expected, samples = await decoded(waiting), await decoded(overlapping)
    for ours, theirs in zip(samples, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert overlapping.log[:6] == [
        "flow started", "flow done", "vocoder started", "flow started", "vocoder done", "flow done",
    ]  # fmt: skip
    assert waiting.busy_ms == overlapping.busy_ms
    idle_before, idle_now = waiting.host_ms - waiting.busy_ms, overlapping.host_ms - overlapping.busy_ms
    # once a batch: its layout, the end of the one before it, and nothing for the vocoder that both wait for
    assert idle_now <= 0.6 * idle_before


async def test_a_lone_window_is_finished_at_once() -> None:
    runtime = Submitting()
    (samples,) = await decoded(runtime, windows=1)
    assert not isinstance(samples, BaseException)
    assert runtime.log == ["flow started", "flow done", "vocoder started", "vocoder done"]


@pytest.mark.parametrize("culprit", range(4))
async def test_a_batch_that_fails_in_flight_fails_alone(culprit: int) -> None:
    runtime = Submitting()
    runtime.explosive = 10 * culprit + 3
    results = await decoded(runtime, windows=4)
    failed = [index for index, result in enumerate(results) if isinstance(result, BaseException)]
    assert failed == [culprit]
    assert isinstance(results[culprit], EngineFailure)


async def test_a_rejected_window_is_decoded_once_more_and_the_others_go_on() -> None:
    runtime = Submitting()
    runtime.poison = 13
    results = await decoded(runtime, windows=3)
    assert [isinstance(result, BaseException) for result in results] == [False, True, False]
    assert len(runtime.batches) == 4
