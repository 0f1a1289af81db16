"""Simulated CUDA graphs on a CPU: a capture records torch's operations, a launch repeats them on the same memory.

As on a GPU, what the host computed while it captured is part of the graph: numbers, shapes and addresses. A value that
the graph does not compute itself is poison when it runs, and an operation that waits for the device breaks the capture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_WAITING = ("item", "is_nonzero", "_local_scalar_dense", "nonzero", "masked_select", "unique")


class CaptureFailed(RuntimeError):
    """As torch's error of a capture."""


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _WAITING:
            raise CaptureFailed(f"operation not permitted when stream is capturing: {name}")
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result


class TapeGraphs:
    """As t3.gpu.step.Graphs. `refuse`: this many captures fail."""

    def __init__(self, refuse: int = 0) -> None:
        self.refuse = refuse
        self.launches = 0

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        if self.refuse:
            self.refuse -= 1
            raise CaptureFailed("CUDA error: operation failed due to a previous error during capture")
        with Recording.of() as recording:
            work()

        def launch() -> None:
            self.launches += 1
            recording.launch()

        return launch


class Recording:
    """The operations of a capture."""

    def __init__(self, calls: list[tuple[Any, Any, Any, Any]]) -> None:
        self._calls = calls

    @classmethod
    @contextlib.contextmanager
    def of(cls) -> Iterator[Recording]:
        """Records what runs in this context, and then poisons what it has made."""
        with _Recorder() as recorder:
            yield cls(recorder.calls)
        for tensor in _owned(recorder.calls):
            if tensor.is_floating_point():
                tensor.fill_(float("nan"))

    def launch(self) -> None:
        """Repeat them."""
        for func, args, kwargs, expected in self._calls:
            made = func(*args, **kwargs)
            for new, old in zip(tree_leaves(made), tree_leaves(expected), strict=True):
                if isinstance(old, Tensor) and _storage(old) != _storage(new):
                    old.copy_(new)


def _owned(calls: list[tuple[Any, Any, Any, Any]]) -> list[Tensor]:
    """What the capture made, without views of what was there before it."""
    before: set[int] = set()
    made: dict[int, Tensor] = {}
    for _, args, kwargs, result in calls:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor) and _storage(tensor) not in made:
                before.add(_storage(tensor))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _storage(tensor) not in before:
                made.setdefault(_storage(tensor), tensor)
    return list(made.values())


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def plain_layers(monkeypatch: Any) -> None:
    """Linear layers and norms by torch alone: a tape does not see compiled kernels."""
    from engines.t3 import linear, model, norm

    monkeypatch.setattr(norm, "best_simd_width", lambda *channels: None)
    monkeypatch.setattr(linear, "simd_widths", tuple)
    monkeypatch.setattr(linear, "packing_available", lambda: False)
    monkeypatch.setattr(model, "min_rows", lambda device: 1)
    assert torch.get_num_threads()
