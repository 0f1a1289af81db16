"""Torch's CUDA graphs on a CPU, with what torch does around them: the state of its random generator.

Torch up to 2.9 makes two tensors for that state when the first graph of a process is captured, and fills them at the
beginning of every capture and of every launch (CUDAGeneratorState in its source). Filling is an update in place, which
torch refuses outside inference mode for a tensor that was made in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.engines.t3.gpu.tape import Recording


class Generator:
    """The default generator's state for graphs."""

    def __init__(self) -> None:
        self.seed: torch.Tensor | None = None
        self.captured: list[Graph] = []

    def before_capture(self) -> None:
        if self.seed is None:
            self.seed = torch.empty(1, dtype=torch.int64)
        self.before_launch()

    def before_launch(self) -> None:
        assert self.seed is not None
        self.seed.fill_(0)


class Graph:
    """torch.cuda.CUDAGraph."""

    def __init__(self, generator: Generator) -> None:
        self.generator, self.priority = generator, 0
        self.recording: Recording | None = None

    def replay(self) -> None:
        self.generator.before_launch()
        assert self.recording is not None, "the graph was not captured"
        self.recording.launch()


def simulate(patch: pytest.MonkeyPatch) -> Generator:
    """Put the simulation in the place of torch.cuda's functions."""
    generator = Generator()

    @contextlib.contextmanager
    def graph(graph: Graph, *, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local", "calls of other threads must not break a capture"
        graph.priority = stream.priority
        generator.captured.append(graph)
        generator.before_capture()
        with Recording.of() as recording:
            yield
        graph.recording = recording

    patch.setattr(torch.cuda, "CUDAGraph", lambda: Graph(generator))
    patch.setattr(torch.cuda, "graph", graph)
    patch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    for name in ("device", "stream"):
        patch.setattr(torch.cuda, name, lambda _: contextlib.nullcontext())
    external = SimpleNamespace(synchronize=lambda: None, priority=0)
    patch.setattr(torch.cuda, "ExternalStream", lambda handle, device: external)
    patch.setattr(torch.cuda, "Stream", lambda device, priority: SimpleNamespace(priority=priority))
    return generator
