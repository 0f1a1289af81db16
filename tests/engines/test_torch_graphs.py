"""Torch's CUDA graphs are captured and launched so that it does not matter which part of the engine captures first."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from engines import device as device_module
from engines.device import S3GEN_PRIORITY, T3_PRIORITY, CudaGraphs, Graphs
from engines.s3gen.gpu import buckets as buckets_module
from engines.s3gen.gpu.buffered import BufferedRuntime
from engines.s3gen.gpu.torch_graphed import TorchGraphs, torch_kernels
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.t3.decoder import T3Decoder
from engines.t3.gpu.net import StaticT3Net
from engines.t3.gpu.step import StaticPass
from tests.engines import simulated_torch_graphs
from tests.engines.s3gen.gpu.test_buffered import HostDevice
from tests.engines.s3gen.onnx_setting import checkpoint, flow_batch
from tests.engines.t3 import setting
from tests.engines.t3.gpu.tape import plain_layers

CPU = torch.device("cpu")
MODES = {"usual": contextlib.nullcontext, "no_grad": torch.no_grad, "inference": torch.inference_mode}


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> simulated_torch_graphs.Generator:
    return simulated_torch_graphs.simulate(monkeypatch)


def cuda_graphs(device: torch.device) -> Graphs:
    return CudaGraphs(device, T3_PRIORITY)


class OnStream:
    """TorchGraphs as Graphs."""

    def __init__(self, device: torch.device) -> None:
        self._graphs = TorchGraphs(device)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        return self._graphs.capture(1, work)


@pytest.mark.parametrize("kind", [cuda_graphs, OnStream])
@pytest.mark.parametrize("launch", MODES)
@pytest.mark.parametrize("second", MODES)
@pytest.mark.parametrize("first", MODES)
@pytest.mark.usefixtures("generator")
def test_graphs_are_captured_and_launched_in_any_mode_after_any_other(
    kind: Callable[[torch.device], Graphs], first: str, second: str, launch: str
) -> None:
    graphs, x, y = kind(CPU), torch.zeros(3), torch.zeros(3)
    launches = []
    for mode, target in ((first, x), (second, y)):
        with MODES[mode]():
            launches.append(graphs.capture(lambda target=target: target.add_(1)))  # type: ignore[misc]
    x.zero_(), y.zero_()
    with MODES[launch]():
        for one in launches * 2:
            one()
    assert x.tolist() == y.tolist() == [2, 2, 2]


def in_the_callers_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first form of the code."""
    usual = {name: getattr(torch, name) for name in dir(torch) if not name.startswith("__")}
    plain = type("torch", (), {**usual, "inference_mode": contextlib.nullcontext})
    monkeypatch.setattr(device_module, "torch", plain)


@pytest.mark.parametrize("kind", [cuda_graphs, OnStream])
@pytest.mark.usefixtures("generator")
def test_the_simulation_finds_a_launch_outside_the_mode_of_the_capture(
    kind: Callable[[torch.device], Graphs], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_callers_mode(monkeypatch)
    x = torch.zeros(3)
    with torch.inference_mode():
        launch = kind(CPU).capture(lambda: x.add_(1))  # type: ignore[arg-type, return-value]
    with pytest.raises(RuntimeError, match="inference tensor"):
        launch()


class CapturingNet(StaticT3Net):
    """As on a GPU."""

    def new_pass(self, slots: int, max_positions: int) -> StaticPass:
        self.steps = StaticPass(self, slots, max_positions, CudaGraphs(CPU, T3_PRIORITY))
        return self.steps


def s3gen_replays() -> None:
    """S3Gen on torch_graphs, as it is driven: calls come from outside every mode."""
    kernels = torch_kernels(checkpoint(), CPU, torch.float32, compute=0, graphs=TorchGraphs(CPU))
    runtime = BufferedRuntime("torch_graphs", HostDevice(), kernels)
    runtime.prepare()
    assert runtime.graphs == 6, "no size fell back to eager calls"
    plain = TorchRuntime(checkpoint())
    for lengths in ([9], [16, 3], [5, 9, 12]):
        batch = flow_batch(lengths)
        np.testing.assert_allclose(runtime.flow(batch), plain.flow(batch), atol=1e-4)
    assert runtime.replayed_ratio == 1


def t3_replays() -> None:
    """T3 on torch_graphs."""
    net = CapturingNet.load(setting.checkpoint().t3_path, setting.checkpoint().spec, CPU)
    subject = setting.request(1, max_speech_tokens=6)
    small: Any = {"max_positions": 400, "max_streams": 2}
    expected = setting.run(T3Decoder(setting.net(), setting.limits(**small)), subject)
    decoder = T3Decoder(net, setting.limits(**small))
    assert net.steps.graphs == 2
    assert setting.run(decoder, subject) == expected
    assert net.steps.eager == 0 < net.steps.replayed


@pytest.mark.parametrize("order", [(s3gen_replays, t3_replays), (t3_replays, s3gen_replays)], ids=["s3gen", "t3"])
@pytest.mark.usefixtures("generator")
def test_s3gen_and_t3_replay_whichever_captures_first(
    order: tuple[Callable[[], None], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_layers(monkeypatch)
    monkeypatch.setattr(buckets_module, "_GRAPH_LENGTHS", {"tokens": [16], "frames": [32]})
    for replays in order:
        replays()


def test_kernels_of_a_graph_have_the_priority_of_the_thread_that_launches_it(
    generator: simulated_torch_graphs.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They keep that of their capture: T3's would wait for S3Gen's."""

    def capture_only(steps: StaticPass, net: object, slots: int, positions: int, graphs: Graphs) -> None:
        graphs.capture(lambda: None)

    monkeypatch.setattr(StaticPass, "__init__", capture_only)
    on_gpu = SimpleNamespace(checked=None, captures=True, device=torch.device("cuda"))
    StaticT3Net.new_pass(on_gpu, 2, 400)  # type: ignore[arg-type]
    OnStream(CPU).capture(lambda: None)
    assert [graph.priority for graph in generator.captured] == [T3_PRIORITY, S3GEN_PRIORITY]
    assert T3_PRIORITY < S3GEN_PRIORITY


@pytest.mark.usefixtures("generator")
def test_the_simulation_finds_s3gen_refused_where_it_captures_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets_module, "_GRAPH_LENGTHS", {"tokens": [16], "frames": [32]})
    in_the_callers_mode(monkeypatch)
    with pytest.raises(RuntimeError, match="inference tensor"):
        s3gen_replays()
