"""T3's kernels beside S3Gen: fewer threads take part, and every result stays what it was."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from engines.kernels.dense import DenseLayer
from engines.kernels.library import S3GEN, T3, simd_widths, thread_pool
from engines.kernels.sharing import beside_t3

pytestmark = pytest.mark.skipif(not simd_widths(), reason="the kernels are not compiled here")
THREADS = 3


def run(pool: str, times: int = 50) -> list[bytes]:
    """A layer's results, each of a job of its own."""
    draw = np.random.default_rng(0)
    weight, bias = draw.standard_normal((96, 160), np.float32), draw.standard_normal(160, np.float32)
    layer = DenseLayer(weight, bias, THREADS, weights="float32", pool=pool)
    x, out = draw.standard_normal((2, 96), np.float32), np.empty((2, layer.width), np.float32)
    work = np.empty(layer.work_floats(2), np.float32)
    results = []
    for _ in range(times):
        out.fill(np.nan)
        layer.run(x.ctypes.data, 2, out.ctypes.data, work.ctypes.data)
        results.append(out.tobytes())
    return results


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_share_of_a_pool_gives_the_same(threads: int) -> None:
    from engines.kernels.library import library

    functions, pool = library(), thread_pool(THREADS, "share")
    assert functions is not None
    expected = run("share")[0]
    functions.mynah_thread_pool_share(pool, threads)
    try:
        assert set(run("share")) == {expected}
    finally:
        functions.mynah_thread_pool_share(pool, THREADS)
    assert set(run("share")) == {expected}


def test_jobs_go_on_while_calls_of_s3gen_begin_and_end() -> None:
    """From several threads at once, and inside each other."""
    expected, results = run(T3)[0], []

    def windows() -> None:
        for _ in range(200):
            with beside_t3(), beside_t3():
                run(S3GEN, 1)

    callers = [threading.Thread(target=windows) for _ in range(2)]
    for caller in callers:
        caller.start()
    while any(caller.is_alive() for caller in callers):
        results += run(T3, 20)
    for caller in callers:
        caller.join()
    assert set(results) <= {expected}
    assert set(run(T3)) == {expected}


def test_a_call_that_fails_gives_the_threads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from engines.kernels import sharing

    run(T3, 1)
    library = sharing.library()
    assert library is not None
    shares: list[int] = []

    class Recorder:
        @staticmethod
        def mynah_thread_pool_share(pool: int, threads: int) -> None:
            if pool == thread_pool(THREADS, T3):
                shares.append(threads)
            library.mynah_thread_pool_share(pool, threads)

    monkeypatch.setattr(sharing, "library", Recorder)
    with pytest.raises(ArithmeticError), beside_t3():
        raise ArithmeticError
    assert shares == [1, THREADS]
