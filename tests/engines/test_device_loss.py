"""A GPU that fails or hangs is found, and ends the process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from engines import device as device_module
from engines.api import T3Use
from engines.cuda_faults import DeviceLost, is_sticky
from engines.device import DeviceThread, use_exact_float32, use_own_stream
from engines.device_watch import DeviceWatch
from engines.errors import EngineFailure
from engines.exclusive import Exclusive
from engines.health import Health
from engines.s3gen.gpu.cuda import CudaError
from engines.s3gen.streaming.batcher import WindowBatcher
from engines.t3.step_loop import StepLoop
from engines.t3.vllm.decoder import VllmDecoder
from tests.engines.s3gen.streaming.test_batcher import make_request


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: unspecified launch failure",
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA error: device-side assert triggered",
        "T3 failed: AcceleratorError: CUDA error: an illegal memory access was encountered",
    ],
)
def test_a_fault_is_known_by_the_words_of_torch(text: str) -> None:
    assert is_sticky(RuntimeError(text))


def test_what_a_later_call_may_survive_is_not_a_fault() -> None:
    assert not is_sticky(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert not is_sticky(CudaError("cudaMalloc", "cudaErrorMemoryAllocation", 2))
    assert not is_sticky(CudaError("cudaStreamEndCapture", "cudaErrorStreamCaptureInvalidated", 901))
    assert is_sticky(CudaError("cudaGraphLaunch", "cudaErrorIllegalAddress", 700))


def test_a_fault_is_found_behind_what_it_caused() -> None:
    failure = EngineFailure("TensorRT refused to enqueue encoder.")
    failure.__cause__ = CudaError("cudaEventRecord", "cudaErrorLaunchFailure", 719)
    assert is_sticky(failure)


def test_a_lost_device_stays_lost_and_is_reported_once() -> None:
    health, losses, changes = Health(), list[DeviceLost](), list[bool]()
    health.watch(changes.append)
    health.watch_loss(losses.append)
    health.report(ValueError("a wrong argument"))
    assert health.healthy
    for _ in range(2):
        health.report(RuntimeError("CUDA error: unspecified launch failure"))
    health.set(True)  # an engine that was rebuilt on it would fail again
    assert (health.healthy, changes, len(losses)) == (False, [False], 1)
    late: list[DeviceLost] = []
    health.watch_loss(late.append)
    assert late == losses


class FailingDecoder:
    """A T3 decoder whose step fails as the whole CUDA context does."""

    idle, use = False, None

    def step(self) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_a_fault_in_t3s_step_loses_the_device() -> None:
    health, lost = Health(), threading.Event()
    health.watch_loss(lambda error: lost.set())
    loop = StepLoop(FailingDecoder(), on_device=DeviceThread(failed=health.report))  # type: ignore[arg-type]
    assert lost.wait(60)
    loop.close()


async def test_a_fault_in_a_call_of_s3gen_loses_the_device() -> None:
    class Lost:
        name, cfm_s = "lost", None

        def flow(self, batch: object) -> Any:
            raise CudaError("cudaGraphLaunch", "cudaErrorIllegalAddress", 700)

    health = Health()
    batcher = WindowBatcher(Lost(), max_batch=4, on_device=DeviceThread(failed=health.report))  # type: ignore[arg-type]
    with pytest.raises(EngineFailure):
        await batcher.decode(*make_request(1), 0.0)
    assert health.lost is not None
    await batcher.close()


def test_t3s_engine_that_cannot_be_rebuilt_loses_the_device() -> None:
    health, built = Health(), 0

    class Broken:
        use, idle = T3Use(), False

        def step(self) -> Any:
            raise RuntimeError("CUDA out of memory")

        def rest(self, request_ids: object) -> None: ...

        def close(self) -> None: ...

    def build() -> Any:
        nonlocal built
        built += 1
        if built > 1:
            raise RuntimeError("CUDA out of memory")
        return Broken()

    decoder = VllmDecoder(build, wait=lambda seconds: False, on_failure=health.report)
    for _ in range(9):
        assert health.lost is None
        decoder.step()
    assert "8 times in a row" in str(health.lost)
    assert built == 8


def test_a_call_that_does_not_come_back_is_a_hang() -> None:
    now_s, hangs = 0.0, list[DeviceLost]()
    watch = DeviceWatch(hangs.append, limit_s=60, clock=lambda: now_s)
    with watch.call("a step of T3"):
        now_s = 59
        assert not watch.check()
    now_s = 200
    assert not watch.check()
    with watch.call("a call of S3Gen"):
        now_s = 261
        assert watch.check()
    assert "a call of S3Gen has not come back for 61 s" in str(hangs[0])


def test_the_server_process_ends_with_its_own_code() -> None:
    program = """
        import threading
        from engines.cuda_faults import DeviceLost
        from engines.health import Health
        from service.__main__ import _end_process
        health = Health()
        health.watch_loss(_end_process)
        threading.Thread(target=threading.Event().wait).start()  # as one that waits for a GPU
        health.report(RuntimeError("CUDA error: an illegal memory access was encountered"))
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 70
    assert "illegal memory access" in ended.stderr


def test_one_that_works_alone_waits_for_the_others_and_keeps_new_ones_out() -> None:
    exclusive, order = Exclusive(), list[str]()
    sharing, release = threading.Event(), threading.Event()

    def share() -> None:
        with exclusive.shared():
            sharing.set()
            release.wait(60)
            order.append("shared")

    def alone() -> None:
        with exclusive.alone():
            order.append("alone")

    def later() -> None:
        with exclusive.shared():
            order.append("later")

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(share)
        assert sharing.wait(60)
        second = threads.submit(alone)
        while not exclusive._alone:
            pass
        third = threads.submit(later)
        release.set()
        for done in (first, second, third):
            done.result(60)
    assert order == ["shared", "alone", "later"]


@pytest.mark.parametrize(("name", "index"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_each_thread_has_a_stream_of_its_own_on_its_device(
    name: str, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T3's before S3Gen's; neither is the default one, which all threads share. Torch itself reads the device's name:
    it refuses some that it takes elsewhere."""
    calls: list[tuple[str, Any]] = []
    cuda = device_module.torch.cuda
    monkeypatch.setattr(torch._C, "_cuda_setDevice", lambda number: calls.append(("device", number)), raising=False)
    monkeypatch.setattr(cuda, "synchronize", lambda device: calls.append(("synchronize", device)))
    monkeypatch.setattr(cuda, "Stream", lambda device, priority: (device, priority))
    monkeypatch.setattr(cuda, "set_stream", lambda stream: calls.append(("stream", stream)))
    gpu = torch.device(name)
    use_own_stream(name, device_module.T3_PRIORITY)
    use_own_stream("cpu", 0)
    assert calls == [("device", index), ("synchronize", gpu), ("stream", (gpu, -1))]
    assert device_module.T3_PRIORITY < device_module.S3GEN_PRIORITY


def test_threads_that_use_a_device_start_by_taking_it() -> None:
    started: list[str] = []

    def start() -> None:
        started.append(threading.current_thread().name)

    loop = StepLoop(_Idle(), on_device=DeviceThread(start))  # type: ignore[arg-type]
    loop.close()
    batcher = WindowBatcher(object(), max_batch=1, on_device=DeviceThread(start))  # type: ignore[arg-type]
    batcher._worker.submit(int).result()
    asyncio.run(batcher.close())
    assert [name.split("_")[0] for name in started] == ["t3-steps", "s3gen"]


def test_a_step_thread_that_cannot_take_its_device_is_an_error_at_once() -> None:
    """A thread that ended would leave every request, and an engine that is to be built, waiting for ever."""

    def start() -> None:
        raise ValueError("there is no such device")

    with pytest.raises(ValueError, match="no such device"):
        StepLoop(_Idle(), on_device=DeviceThread(start))  # type: ignore[arg-type]


class _Idle:
    idle, use = True, None


def test_float32_on_a_gpu_has_all_its_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    use_exact_float32()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
