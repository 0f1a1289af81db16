"""Windows of many streams in one queue: order, companions, failures, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from engines.errors import EngineFailure
from engines.s3gen.streaming.batcher import Results, WindowBatcher
from engines.s3gen.streaming.decode_times import GPU_CALIBRATION, Calibration
from engines.s3gen.streaming.schedule import SCHEDULES
from engines.s3gen.streaming.segment_decoder import SegmentDecoder
from engines.s3gen.streaming.window_queue import Decoded, DecodeRequest
from engines.s3gen.streaming.windows import Window, WindowPlanner
from tests.engines.fakes import CallObserver, FakeRuntime, SlowExecute, make_voice
from tests.virtual_time import virtual_time


def make_request(token: int, tokens: int = 12) -> tuple[SegmentDecoder, Window]:
    decoder = SegmentDecoder(make_voice(), seed=1)
    decoder.speech_tokens = [token] * tokens
    window = WindowPlanner(SCHEDULES["throughput"]).next(tokens, ended=True)
    assert window is not None
    return decoder, window


def test_the_earliest_deadline_is_decoded_first() -> None:
    async def run() -> list[int]:
        execute = SlowExecute(FakeRuntime(), 1.0)
        batcher = WindowBatcher(FakeRuntime(), max_batch=1, execute=execute)
        deadlines = [5.0, 3.0, 9.0, 1.0]
        await asyncio.gather(*(batcher.decode(*make_request(i + 1), d) for i, d in enumerate(deadlines)))
        return [batch[0].decoder.speech_tokens[0] for batch in execute.batches]

    assert virtual_time(run()) == [4, 2, 1, 3]


def test_windows_that_wait_together_are_decoded_together() -> None:
    async def run() -> list[int]:
        execute = SlowExecute(FakeRuntime(), 1.0)
        batcher = WindowBatcher(FakeRuntime(), max_batch=4, execute=execute)
        await asyncio.gather(*(batcher.decode(*make_request(i + 1), 0.0) for i in range(6)))
        return [len(batch) for batch in execute.batches]

    assert virtual_time(run()) == [4, 2]


def test_a_long_window_does_not_pad_short_ones() -> None:
    async def run() -> list[set[int]]:
        execute = SlowExecute(FakeRuntime(), 1.0)
        batcher = WindowBatcher(FakeRuntime(), max_batch=8, execute=execute)
        lengths = [12, 80, 14, 85]
        await asyncio.gather(*(batcher.decode(*make_request(1, n), 0.0) for n in lengths))
        return [{len(request.decoder.speech_tokens) for request in batch} for batch in execute.batches]

    assert virtual_time(run()) == [{12, 14}, {80, 85}]


@pytest.mark.parametrize("fault", ["poison", "explosive"])
def test_only_the_culprit_fails(fault: str) -> None:
    async def run() -> list[object]:
        runtime = FakeRuntime()
        setattr(runtime, fault, 77)
        batcher = WindowBatcher(runtime, max_batch=8)
        requests = [make_request(code) for code in (1, 77, 3)]
        outcomes = await asyncio.gather(
            *(batcher.decode(*request, 0.0) for request in requests), return_exceptions=True
        )
        await batcher.close()
        return outcomes

    first, second, third = asyncio.run(run())
    assert isinstance(second, EngineFailure)
    for outcome, code in ((first, 1), (third, 3)):
        assert isinstance(outcome, Decoded)
        assert outcome.samples[-1] == pytest.approx(code / 6561)


def test_a_rejected_window_is_decoded_once_more_on_the_reference_path() -> None:
    async def run() -> tuple[object, int, int]:
        broken, reference = FakeRuntime(), FakeRuntime()
        broken.poison = 77
        batcher = WindowBatcher(broken, max_batch=4, reference=reference)
        good, saved = await asyncio.gather(
            batcher.decode(*make_request(1), 0.0), batcher.decode(*make_request(77), 0.0)
        )
        await batcher.close()
        assert good.samples[-1] == pytest.approx(1 / 6561)
        return saved.samples[-1], sum(broken.batches), sum(reference.batches)

    assert asyncio.run(run()) == (pytest.approx(77 / 6561), 2, 1)


def test_a_window_that_the_reference_path_rejects_too_ends_with_a_typed_error() -> None:
    async def run() -> int:
        runtime = FakeRuntime()
        runtime.poison = 77
        batcher = WindowBatcher(runtime, max_batch=4)
        with pytest.raises(EngineFailure, match="not finite"):
            await batcher.decode(*make_request(77), 0.0)
        await batcher.close()
        return len(runtime.batches)

    assert asyncio.run(run()) == 2


def test_running_late_is_noticed_and_forgotten() -> None:
    async def run() -> list[bool]:
        loop = asyncio.get_running_loop()
        batcher = WindowBatcher(FakeRuntime(), max_batch=1, execute=SlowExecute(FakeRuntime(), 1.0))
        decoder, first = make_request(1, 100)
        planner = WindowPlanner(SCHEDULES["throughput"])
        windows = [planner.next(100, True) for _ in range(2)]
        seen = []
        await batcher.decode(decoder, windows[0], loop.time())
        seen.append(batcher.overloaded(loop.time()))  # a first window is always awaited
        await batcher.decode(decoder, windows[1], loop.time() + 0.5)
        seen.append(batcher.overloaded(loop.time()))
        await asyncio.sleep(1.1)
        seen.append(batcher.overloaded(loop.time()))
        assert first is not None
        return seen

    assert virtual_time(run()) == [False, True, False]


def test_a_window_that_cannot_be_in_time_is_noticed_before_it_is_late() -> None:
    async def run() -> list[bool]:
        loop = asyncio.get_running_loop()
        batcher = WindowBatcher(FakeRuntime(), max_batch=1, execute=SlowExecute(FakeRuntime(), 1.0))
        decoder, _ = make_request(1, 200)
        planner = WindowPlanner(SCHEDULES["throughput"])
        first, second = (planner.next(200, True) for _ in range(2))
        await batcher.decode(decoder, first, loop.time())
        seen = []
        for slack_s in (3.0, 0.4):
            waiting = asyncio.create_task(batcher.decode(*make_request(2), loop.time()))
            later = asyncio.create_task(batcher.decode(decoder, second, loop.time() + slack_s))
            await asyncio.sleep(0.1)
            seen.append(batcher.overloaded(loop.time()))
            later.cancel()
            await asyncio.gather(waiting, later, return_exceptions=True)
        return seen

    assert virtual_time(run()) == [False, True]


def test_calibration_tells_what_a_call_costs_apart_from_its_rows() -> None:
    async def run(batch_s: float, token_s: float) -> tuple[float, float]:
        execute = SlowExecute(FakeRuntime(), batch_s, token_s)
        batcher = WindowBatcher(FakeRuntime(), max_batch=8, execute=execute)
        await batcher.calibrate(make_voice(60))
        assert {len(batch) for batch in execute.batches} == {1, 4}
        return batcher.times.shared_work, execute.batches[0][0].work / execute.batches[0][0].tokens

    shared, work_of_token = virtual_time(run(0.2, 0.001))
    assert shared == pytest.approx(200 * work_of_token), "as much as 200 tokens"
    assert virtual_time(run(0.0, 0.001))[0] == pytest.approx(0.0, abs=0.1)
    assert virtual_time(run(0.2, 0.0))[0] > 1000


def test_a_rejected_window_does_not_delay_others() -> None:
    async def run() -> tuple[float, float]:
        runtime, clock = FakeRuntime(), asyncio.get_running_loop().time
        runtime.poison = 77
        batcher = WindowBatcher(FakeRuntime(), max_batch=4, execute=SlowExecute(runtime, 1.0))

        async def ready_s(code: int) -> float:
            await asyncio.gather(batcher.decode(*make_request(code), 0.0), return_exceptions=True)
            return clock()

        rejected, good = await asyncio.gather(ready_s(77), ready_s(1))
        return rejected, good

    assert virtual_time(run()) == (2.0, 1.0)


def test_a_cancelled_window_is_never_decoded_and_delays_no_other() -> None:
    async def run() -> tuple[list[int], int]:
        execute = SlowExecute(FakeRuntime(), 1.0)
        batcher = WindowBatcher(FakeRuntime(), max_batch=1, execute=execute)
        tasks = [asyncio.create_task(batcher.decode(*make_request(i + 1), float(i))) for i in range(3)]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return [batch[0].decoder.speech_tokens[0] for batch in execute.batches], batcher.waiting_windows

    assert virtual_time(run()) == ([1, 3], 0)


def test_closing_fails_what_waits_and_what_comes_later() -> None:
    async def run() -> list[object]:
        batcher = WindowBatcher(FakeRuntime(), max_batch=1, execute=SlowExecute(FakeRuntime(), 1.0))
        tasks = [asyncio.create_task(batcher.decode(*make_request(i + 1), float(i))) for i in range(2)]
        await asyncio.sleep(0.5)
        await batcher.close()
        late = asyncio.create_task(batcher.decode(*make_request(9), 0.0))
        return await asyncio.gather(*tasks, late, return_exceptions=True)

    first, second, late = virtual_time(run())
    assert isinstance(first, Decoded)
    assert isinstance(second, EngineFailure)
    assert isinstance(late, EngineFailure)


@pytest.mark.parametrize("steady_after", [1, 4])
def test_calibration_measures_the_steady_time_and_not_first_use(steady_after: int) -> None:
    async def run() -> float:
        seen: dict[int, int] = {}

        async def execute(batch: Sequence[DecodeRequest]) -> Results:
            seen[len(batch)] = seen.get(len(batch), 0) + 1
            first_use_s = 5.0 * len(batch) if seen[len(batch)] <= steady_after else 0.0
            await asyncio.sleep(first_use_s + 1.0 + 0.5 * len(batch))
            return []

        given = Calibration(steady_after=steady_after)
        batcher = WindowBatcher(FakeRuntime(), max_batch=16, execute=execute, calibration=given)
        await batcher.calibrate(make_voice())
        work = batcher._calibration_request(make_voice()).work
        await batcher.close()
        return batcher.times.shared_work / work

    assert virtual_time(run()) == pytest.approx(2.0, rel=0.2)  # a call costs 1.0, a row 0.5


@pytest.mark.parametrize(("calibration", "is_right"), [(GPU_CALIBRATION, True), (Calibration(steady_after=6), False)])
def test_a_gpu_is_measured_with_windows_of_the_size_that_it_serves(calibration: Calibration, is_right: bool) -> None:
    """It takes as long as its arithmetic, or as its launches if they take longer: of short windows they do, even of
    many. The first calls of each size cost more. Sixteen full windows must be expected to take what they do."""

    def takes_s(tokens: int) -> float:
        return max(0.02, 0.004 + 3e-5 * tokens)

    async def run() -> float:
        seen: dict[int, int] = {}

        async def execute(batch: Sequence[DecodeRequest]) -> Results:
            seen[len(batch)] = seen.get(len(batch), 0) + 1
            await asyncio.sleep(takes_s(sum(r.tokens for r in batch)) + (0.5 if seen[len(batch)] <= 6 else 0.0))
            return []

        batcher = WindowBatcher(FakeRuntime(), max_batch=16, execute=execute, calibration=calibration)
        voice = make_voice(250)
        await batcher.calibrate(voice)
        one = batcher._calibration_request(voice)
        batcher.times.observe(one.work, takes_s(one.tokens))
        await batcher.close()
        return batcher.times.call_s(16 * one.work) / takes_s(16 * one.tokens)

    assert (virtual_time(run()) == pytest.approx(1.0, rel=0.25)) is is_right


@dataclass
class GrowingPlan:
    """A plan whose T3 makes tokens, or has made them all."""

    growth: int
    made_tokens: int = 0

    def enlarge(self, window: Window, now_s: float) -> Window:
        return window


def test_what_a_call_takes_beside_t3_is_what_is_expected_of_the_next() -> None:
    async def run() -> list[float]:
        plans = {0: GrowingPlan(0), 1: GrowingPlan(5)}
        expected_s = []

        async def execute(batch: Sequence[DecodeRequest]) -> Results:
            plan = plans[batch[0].decoder.speech_tokens[0] - 1]
            await asyncio.sleep(2.0 if plan.growth else 1.0)
            plan.made_tokens += plan.growth
            return [np.zeros(480, np.float32) for _ in batch]

        batcher = WindowBatcher(FakeRuntime(), max_batch=1, execute=execute)
        for index in (0, 1, 0, 0):
            decoder, window = make_request(index + 1)
            await batcher.decode(decoder, window, 0.0, plans[index])
            work = DecodeRequest(decoder, window, asyncio.get_running_loop().create_future(), 0.0, 0.0)
            batcher._queue.measure(work)
            expected_s.append(batcher.times.call_s(work.work))
        await batcher.close()
        return expected_s

    assert virtual_time(run()) == pytest.approx([1.0, 2.0, 2.0, 2.0])


def test_a_call_that_does_not_return_is_seen_by_the_observer() -> None:
    async def run() -> tuple[int, int, int]:
        observer, returning, begun = CallObserver(), asyncio.Event(), asyncio.Event()
        runtime = FakeRuntime()

        async def hang(batch: Sequence[DecodeRequest]) -> Results:
            begun.set()
            await returning.wait()
            return await SlowExecute(runtime, 0.0)(batch)

        batcher = WindowBatcher(runtime, max_batch=4, execute=hang, observer=observer)
        decoding = asyncio.create_task(batcher.decode(*make_request(1), 0.0))
        await begun.wait()
        hanging = observer.running["s3gen"]
        returning.set()
        await decoding
        await batcher.close()
        return hanging, observer.running["s3gen"], observer.returned["s3gen"]

    assert virtual_time(run()) == (1, 0, 1)
