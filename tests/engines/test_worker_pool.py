"""Pools of threads: what hangs in one fails in time, and holds no other."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from engines.errors import TimeLimitExceeded
from engines.worker_pool import WorkerPool


def pool(workers: int = 2, time_limit_s: float = 60.0, max_waiting: int = 100) -> WorkerPool:
    return WorkerPool(
        "test", workers=workers, time_limit_s=time_limit_s, reason="TEST_TIMEOUT", work="This", max_waiting=max_waiting
    )


async def test_results_errors_and_the_context_pass_through():
    def fail() -> None:
        raise ValueError("its own")

    current: ContextVar[str] = ContextVar("current")
    current.set("of the caller")
    assert await pool().run(current.get) == "of the caller"
    assert pool().call(int, "12") == 12
    with pytest.raises(ValueError, match="its own"):
        await pool().run(fail)


async def test_a_call_that_hangs_fails_in_time_and_so_do_those_behind_it():
    workers, go_on = pool(1, time_limit_s=0.02), threading.Event()
    calls = [workers.run(go_on.wait), workers.run(go_on.wait)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [TimeLimitExceeded] * 2
    assert all(result.reason == "TEST_TIMEOUT" and result.retryable for result in results)
    assert workers.unfinished == 2
    go_on.set()
    assert await pool().run(int) == 0  # another pool


async def test_threads_and_waiting_calls_are_bounded():
    workers, go_on, names = pool(2, max_waiting=3), threading.Event(), set()

    def work() -> None:
        go_on.wait()
        names.add(threading.current_thread().name)

    calls = [asyncio.ensure_future(workers.run(work)) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(TimeLimitExceeded, match="5 calls wait"):
        await workers.run(work)
    go_on.set()
    await asyncio.gather(*calls)
    assert names <= {"test-1", "test-2"}


async def test_a_call_whose_caller_has_left_is_not_begun():
    workers, go_on, begun = pool(1), threading.Event(), []
    first = asyncio.ensure_future(workers.run(go_on.wait))
    second = asyncio.ensure_future(workers.run(begun.append, 2))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    go_on.set()
    await first
    await workers.run(begun.append, 3)
    assert begun == [3]
