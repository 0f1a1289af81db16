"""The executor, the runtimes and the parity check on a simulated GPU that knows CUDA's and TensorRT's rules, in random
orders and under injected faults. Each rule is also broken on purpose: the simulation must find it.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engines import cuda_faults
from engines.cuda_faults import DeviceLost, is_sticky
from engines.errors import EngineError
from engines.health import Health
from engines.model_spec import TINY
from engines.s3gen.gpu import buckets, tensorrt
from engines.s3gen.gpu.buffered import BufferedRuntime
from engines.s3gen.gpu.build import engine_graphs
from engines.s3gen.gpu.cuda import CudaDevice, CudaError
from engines.s3gen.gpu.double_buffer import DoubleBuffer
from engines.s3gen.gpu.tensorrt import Chain, Engine, load_engines
from engines.s3gen.nets.cfm import euler_times
from engines.s3gen.parity_check import GPU_ROUNDS, Candidate, ParityReport, select_first_valid, validate
from engines.s3gen.streaming.batcher import WindowBatcher
from engines.s3gen.streaming.segment_decoder import SegmentDecoder
from engines.s3gen.streaming.windows import Window
from tests.engines.fakes import make_voice
from tests.engines.s3gen.gpu.simulated_cuda import BLOCKING_SYNC, LEGACY_STREAM, SimulatedCuda
from tests.engines.s3gen.gpu.simulated_tensorrt import SCRATCH_BYTES, DirectRuntime, SimulatedTensorRT
from tests.engines.s3gen.onnx_setting import flow_batch, vocoder_batch

COMPOSITIONS = ((20,), (22, 29), (30, 27, 25), (40,))


@pytest.fixture(autouse=True)
def _small_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few and small sizes, so that the tests are fast; batches meet sizes with and without graphs."""
    alone, many = (1, 1, 2), (2, 4, 6)
    flow = {"one": (alone, (1, 32, 48)), "many": (many, (1, 32, 48))}
    vocoder = {"one": (alone, (2, 64, 80)), "many": (many, (2, 64, 80))}
    monkeypatch.setattr(buckets, "_FLOW_TOKENS", flow)
    monkeypatch.setattr(buckets, "_VOCODER_FRAMES", vocoder)
    monkeypatch.setattr(buckets, "_GRAPH_LENGTHS", {"tokens": [16, 32], "frames": [32, 64]})


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return tmp_path


class Simulation:
    """A TensorRT runtime on a simulated GPU."""

    def __init__(
        self, folder: Path, seed: int = 0, *, rtx: bool = False, user_allocation: bool = True, steps: int = 0
    ) -> None:
        """`steps`: of a flow with guidance."""
        self.cuda = SimulatedCuda(seed)
        self.trt = SimulatedTensorRT(self.cuda, rtx=rtx, user_allocation=user_allocation)
        self.device = CudaDevice(runtime=self.cuda)
        times = euler_times(steps)
        paths = self.trt.engine_files(folder, engine_graphs(replace(TINY.flow, guided_steps=steps)))
        self.loaded = load_engines(paths, self.device, self.trt.flavour, times)
        self.direct = DirectRuntime(times if steps else ())
        self.runtime = BufferedRuntime("tensorrt", self.device, self.loaded.kernels)

    def check(self, rounds: int = GPU_ROUNDS) -> ParityReport:
        return validate(self.runtime, self.direct, precision="fp32", compositions=COMPOSITIONS, rounds=rounds)


def serve(simulation: Simulation, seed: int = 0, batches: int = 8) -> None:
    """Batches of random sizes, two in flight, each compared with the direct result."""
    rng, direct = random.Random(seed), simulation.direct
    pending: list[tuple[Callable[[], Any], Callable[[], Any]]] = []
    for turn in range(batches):
        flow = flow_batch([rng.randint(4, 44) for _ in range(rng.randint(1, 5))], seed=turn)
        vocoder = vocoder_batch([rng.randint(4, 70) for _ in range(rng.randint(1, 5))], seed=turn)
        flows, vocoders = simulation.runtime.submit_flow(flow), simulation.runtime.submit_vocoder(vocoder)
        pending.append((flows, lambda flow=flow: direct.flow(flow)))
        pending.append((lambda v=vocoders: v().waveform, lambda vocoder=vocoder: direct.vocoder(vocoder).waveform))
        while len(pending) > rng.randint(0, 3):
            ours, theirs = pending.pop(0)
            np.testing.assert_allclose(ours(), theirs(), atol=1e-5)
    for ours, theirs in pending:
        np.testing.assert_allclose(ours(), theirs(), atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rtx", [False, True])
def test_tensorrt_gives_the_right_results_in_any_order(files: Path, seed: int, rtx: bool) -> None:
    simulation = Simulation(files, seed, rtx=rtx)
    simulation.runtime.prepare()
    report = simulation.check()
    assert report.passed, str(report)
    serve(simulation, seed)
    assert simulation.runtime.graphs == (0 if rtx else 12)
    assert (simulation.runtime.replayed_ratio > 0.3) is not rtx


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("rtx", [False, True])
def test_ten_steps_are_right_in_any_order(files: Path, seed: int, rtx: bool) -> None:
    """One engine of one step, ten times a call; with graphs, in a context of its own for each size."""
    simulation = Simulation(files, seed, rtx=rtx, steps=10)
    simulation.runtime.prepare()
    report = simulation.check()
    assert report.passed, str(report)
    serve(simulation, seed)
    assert simulation.runtime.graphs == (0 if rtx else 12)
    assert (simulation.runtime.replayed_ratio > 0.3) is not rtx


def test_steps_at_wrong_times_are_found(files: Path) -> None:
    simulation = Simulation(files, steps=10)
    simulation.direct = DirectRuntime(euler_times(9))
    assert not simulation.check(1).passed


def test_all_contexts_compute_in_one_block_of_memory(files: Path) -> None:
    """TensorRT's default is a block of the largest size for every context."""
    simulation = Simulation(files)
    before = simulation.cuda.allocated_bytes
    # all there is: weights are the simulation's functions, and the runtime says how large its buffers are
    assert before == simulation.loaded.scratch_bytes + simulation.runtime.buffer_bytes
    assert simulation.runtime.sizes_to_capture == 12
    simulation.runtime.prepare()
    assert simulation.trt.static_bytes == 0
    assert simulation.loaded.scratch_bytes == SCRATCH_BYTES
    contexts = simulation.trt.contexts
    assert len(contexts) > 12
    assert len({context._scratch_address for context in contexts}) == 1
    # inputs, outputs and what lies between for four rows of 32 tokens and of 64 frames, whatever the number of graphs
    assert simulation.cuda.allocated_bytes - before < 4 * 64 * (6 * 80 + 2 * 480 + 3) * 4


def test_the_host_sleeps_while_it_waits(files: Path) -> None:
    """An event waited for in a loop would keep one of few cores busy."""
    simulation = Simulation(files)
    made: list[int] = []
    create = simulation.cuda.cudaEventCreateWithFlags

    def recording(flags: int) -> Any:
        made.append(flags)
        return create(flags)

    simulation.cuda.cudaEventCreateWithFlags = recording  # type: ignore[method-assign]
    BufferedRuntime("tensorrt", simulation.device, simulation.loaded.kernels)
    assert made
    assert all(flags & BLOCKING_SYNC for flags in made)


def test_rtx_specialises_kernels_before_a_call_and_captures_graphs_itself(files: Path) -> None:
    configs = {id(context.config): context.config for context in Simulation(files, rtx=True).trt.contexts}.values()
    for config in configs:
        assert config is not None
        assert config.cuda_graph_strategy.name == "WHOLE_GRAPH_CAPTURE"
        assert config.dynamic_shapes_kernel_specialization_strategy.name == "EAGER"
    assert len(configs) == 3


@pytest.mark.parametrize("seed", range(3))
async def test_the_batcher_keeps_two_batches_in_flight_on_the_device(files: Path, seed: int) -> None:
    """Windows of streams that come at random, in batches of up to three: the same samples as without a device."""
    simulation = Simulation(files, seed)
    simulation.runtime.prepare()
    rng = random.Random(seed)
    work = [([rng.randrange(6561) for _ in range(rng.randint(3, 12))], rng.random()) for _ in range(9)]

    async def decoded(runtime: Any) -> list[Any]:
        batcher = WindowBatcher(runtime, max_batch=3)
        results = await asyncio.gather(
            *(
                batcher.decode(
                    SegmentDecoder(make_voice(21), number, tokens),
                    Window(0, 0, 0, len(tokens), len(tokens), is_last=True),
                    deadline_s,
                )
                for number, (tokens, deadline_s) in enumerate(work)
            )
        )
        await batcher.close()
        return [result.samples for result in results]

    for ours, theirs in zip(await decoded(simulation.runtime), await decoded(DirectRuntime()), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_captures_that_fail_cost_graphs_and_nothing_else(files: Path, seed: int) -> None:
    simulation = Simulation(files, seed)
    simulation.cuda.refuse_captures = 5
    simulation.runtime.prepare()
    assert (simulation.runtime.graphs, simulation.runtime.failed_captures) == (7, 5)
    serve(simulation, seed)


def test_what_tensorrt_says_it_cannot_capture_is_not_captured(files: Path) -> None:
    """An engine whose kernels allocate: its calls run eagerly, and no capture fails under it."""
    simulation = Simulation(files, user_allocation=False)
    simulation.runtime.prepare()
    assert (simulation.runtime.graphs, simulation.cuda.failed_captures) == (0, 0)
    serve(simulation)


@pytest.mark.parametrize("calls", [0, 1, 10, 200, 500])
def test_after_a_fault_every_call_fails_and_the_fault_is_known_as_one(files: Path, calls: int) -> None:
    simulation = Simulation(files)
    simulation.cuda.fail_after = calls

    def run() -> None:
        simulation.runtime.prepare()
        serve(simulation, batches=50)

    with pytest.raises(EngineError) as failure:
        run()
    assert is_sticky(failure.value) or "refused to enqueue" in str(failure.value)
    with pytest.raises(CudaError) as later:
        simulation.device.event()
    assert is_sticky(later.value)


def test_a_device_that_fails_in_the_parity_check_is_lost_and_not_a_refused_runtime(files: Path) -> None:
    """No fallback could use it."""
    simulation = Simulation(files)

    def make() -> BufferedRuntime:
        simulation.cuda.fail_after = 40
        return simulation.runtime

    candidates = [
        Candidate("tensorrt", make, DirectRuntime, compositions=COMPOSITIONS),
        Candidate("torch", DirectRuntime),
    ]
    with pytest.raises(DeviceLost):
        select_first_valid(candidates)


def test_t3_may_work_on_the_legacy_stream_while_s3gen_captures(files: Path) -> None:
    """Our streams are non-blocking, so implicit synchronisation does not reach them."""
    simulation = Simulation(files)
    _with_a_neighbour(simulation)
    simulation.runtime.prepare()
    assert simulation.runtime.graphs == 12


def _with_a_neighbour(simulation: Simulation) -> None:
    """Work of another thread on the legacy stream within every capture."""
    begin = simulation.cuda.cudaStreamBeginCapture

    def with_neighbour(stream: int, mode: Any) -> Any:
        result = begin(stream, mode)
        neighbour = threading.Thread(target=lambda: simulation.cuda.enqueue(LEGACY_STREAM, lambda: None))
        neighbour.start()
        neighbour.join()
        return result

    simulation.cuda.cudaStreamBeginCapture = with_neighbour  # type: ignore[method-assign]


# -- every rule broken on purpose


def full_run(folder: Path, **options: Any) -> Simulation:
    simulation = Simulation(folder, **options)
    _with_a_neighbour(simulation)
    simulation.runtime.prepare()
    assert simulation.runtime.graphs == (12 if simulation.trt.user_allocation and not simulation.trt.rtx else 0)
    assert simulation.cuda.failed_captures == 0
    report = simulation.check()
    assert report.passed, str(report)
    for seed in range(3):
        serve(simulation, seed)
    assert simulation.trt.static_bytes == 0, "a context allocated memory of its own"
    return simulation


def capture_after_a_change_of_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first form of the code: a size's second call is captured, from a context that other sizes have used."""

    def capture(self: Chain, stream: Any, addresses: Any, sizes: Any) -> Any:
        device = self._engines[0].device
        graph = device.capture(stream, lambda: self.enqueue(stream, addresses, sizes))
        return lambda: device.launch(graph, stream)

    monkeypatch.setattr(Chain, "capture", capture)


def graphs_that_share_a_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured right after an eager run, but from the profile's context, which moves on."""
    monkeypatch.setattr(Engine, "own_context", Engine.eager_context)


def capture_of_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs of TensorRT-RTX engines that allocate when they run."""
    made = Engine.__init__

    def capturable(self: Engine, *arguments: Any) -> None:
        made(self, *arguments)
        self.capturable = True

    monkeypatch.setattr(Engine, "__init__", capturable)
    capture_without_asking(monkeypatch)


def capture_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT would have said that this engine allocates when it runs."""
    monkeypatch.setattr(Engine, "check_capturable", lambda *_: None)


def static_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every context allocates its maximum."""
    load = tensorrt.load_engines

    def with_static(paths: Any, device: Any, trt: Any, times: Any) -> Any:
        trt.module.ExecutionContextAllocationStrategy = SimpleNamespace(
            USER_MANAGED=trt.module.ExecutionContextAllocationStrategy.STATIC
        )
        return load(paths, device, trt, times)

    monkeypatch.setattr(f"{__name__}.load_engines", with_static)


def two_compute_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flow and vocoder share scratch memory, but not a stream."""
    made = DoubleBuffer.__init__

    def own_stream(self: DoubleBuffer, *arguments: Any, **options: Any) -> None:
        made(self, *arguments, **{**options, "compute": None})

    monkeypatch.setattr(DoubleBuffer, "__init__", own_stream)


def blocking_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that the legacy default stream waits for."""
    monkeypatch.setattr(SimulatedCuda, "cudaStreamNonBlocking", 0)


def no_wait_for_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event fewer: the kernel may run before its input has come."""
    monkeypatch.setattr(CudaDevice, "wait", lambda self, stream, event: None)


def no_wait_for_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot is read, and used again, before its results have come."""
    synchronize = CudaDevice.synchronize

    def only_while_loading(self: CudaDevice, event: Any) -> None:
        if event % 3 == 0:
            synchronize(self, event)

    monkeypatch.setattr(CudaDevice, "synchronize", only_while_loading)


def allocation_in_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is asked for while work is captured."""
    execute = Engine.execute

    def allocating(self: Engine, *arguments: Any) -> None:
        self.device.allocate(16)
        execute(self, *arguments)

    monkeypatch.setattr(Engine, "execute", allocating)


def captures_on_uninitialised_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run before a capture reads what the memory held before."""
    monkeypatch.setattr(CudaDevice, "clear", lambda self, address, size_bytes, stream: None)


def device_of_the_constructor_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first form of the code: other threads work on device 0."""

    def call(self: CudaDevice, name: str, *arguments: Any) -> Any:
        from engines.s3gen.gpu.cuda import _check

        return _check(name, getattr(self._runtime, name)(*arguments))

    monkeypatch.setattr(CudaDevice, "_call", call)


MUTATIONS: list[tuple[Callable[[pytest.MonkeyPatch], None], dict[str, Any]]] = [
    (capture_after_a_change_of_shapes, {}),
    (graphs_that_share_a_context, {}),
    (capture_of_rtx, {"rtx": True, "user_allocation": False}),
    (capture_without_asking, {"user_allocation": False}),
    (static_contexts, {}),
    (two_compute_streams, {}),
    (blocking_streams, {}),
    (no_wait_for_the_input, {}),
    (no_wait_for_the_output, {}),
    (allocation_in_a_capture, {}),
    (captures_on_uninitialised_memory, {}),
]


@pytest.mark.parametrize(("mutation", "options"), MUTATIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_the_simulation_finds_each_broken_rule(
    mutation: Callable[[pytest.MonkeyPatch], None],
    options: dict[str, Any],
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full_run(files)  # the same run passes with the code as it is
    mutation(monkeypatch)
    with pytest.raises((AssertionError, EngineError)):
        full_run(files, **options)


def test_the_simulation_finds_work_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    device_of_the_constructor_only(monkeypatch)
    cuda = SimulatedCuda(devices=2)
    device = CudaDevice(1, cuda)
    cuda.cudaSetDevice(1)  # as the constructor did, for this thread
    stream, failures = device.stream(), list[CudaError]()

    def work() -> None:
        try:
            device.copy_on(0, 0, 0, stream)
        except CudaError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [error.status for error in failures] == [400]


def serve_until_the_end(simulation: Simulation) -> list[DeviceLost]:
    """Batches on a device that fails under them, as the server decodes them: failures are reported, and the next
    batch is tried. Returns what the process ends with; on a device that is lost no batch can succeed."""
    health, losses, served = Health(), list[DeviceLost](), 0
    health.watch_loss(losses.append)
    simulation.runtime.prepare()
    simulation.cuda.fail_after = 40
    for turn in range(12):
        try:
            simulation.runtime.flow(flow_batch([20], seed=turn))
            served += 1
        except EngineError as error:
            health.report(error)
    assert 0 < served < 12
    return losses


def faults_as_failures_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first form of the code: no status is sticky, so that every batch fails for ever and the process stays."""
    monkeypatch.setattr(cuda_faults, "STICKY_STATUSES", {})
    monkeypatch.setattr(cuda_faults, "_STICKY_TEXT", re.compile("(?!)"))


def test_the_simulation_finds_a_fault_that_does_not_end_the_process(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(serve_until_the_end(Simulation(files))) == 1
    faults_as_failures_of_a_batch(monkeypatch)
    assert not serve_until_the_end(Simulation(files))


def stored_before_the_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first form of the code: a graph is kept before it is captured, so that a size whose capture failed is
    replayed from an empty one."""
    prepare = Chain.capture

    def capture(self: Chain, stream: Any, addresses: Any, sizes: Any) -> Any:
        try:
            return prepare(self, stream, addresses, sizes)
        except EngineError:
            return lambda: None

    monkeypatch.setattr(Chain, "capture", capture)


def test_the_simulation_finds_a_graph_whose_capture_failed(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> None:
        simulation = Simulation(files)
        simulation.cuda.refuse_captures = 12
        simulation.runtime.prepare()
        for seed in range(3):
            serve(simulation, seed)

    run()
    stored_before_the_capture(monkeypatch)
    with pytest.raises((AssertionError, EngineError)):
        run()


class WrongLater:
    """Right while it runs eagerly and while it captures, wrong when it replays."""

    name = "wrong later"
    cfm_s = None

    def __init__(self) -> None:
        self._direct, self._calls = DirectRuntime(), 0

    def flow(self, batch: Any) -> Any:
        self._calls += 1
        return self._direct.flow(batch) * (1.0 if self._calls <= 2 * len(COMPOSITIONS) else 1.01)

    def vocoder(self, batch: Any) -> Any:
        return self._direct.vocoder(batch)


def test_the_parity_check_compares_replays_and_not_first_runs_alone() -> None:
    sizes: Any = {"precision": "fp32", "compositions": COMPOSITIONS}
    assert not validate(WrongLater(), DirectRuntime(), **sizes, rounds=GPU_ROUNDS).passed
    # one run of each size, as the check once was, sees nothing
    assert validate(WrongLater(), DirectRuntime(), **sizes).passed
