"""A CFM's Euler steps on TensorRT: one engine of one step, run for each of them.

Ten steps in one engine would take ten times as long to build, and the copies of their weights ten times the memory. A
loop inside it would not survive the capture of a graph. So the steps follow each other on the stream; between them
copies on the device put the result and the next times where the engine reads them. Its addresses never change, which a
captured graph demands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.s3gen.export.graphs import CFM, CFM_STEP, Port
from engines.s3gen.gpu.buckets import buckets
from engines.s3gen.gpu.double_buffer import Sizes

if TYPE_CHECKING:
    from engines.s3gen.gpu.tensorrt import Engine

_NOISE, _MEL = CFM.inputs[0], CFM.outputs[0]
_X, _NEXT_X = CFM_STEP.inputs[0], CFM_STEP.outputs[0]
_TIMES = tuple(port for port in CFM_STEP.inputs if port.name in ("t", "r"))


@dataclass
class Call:
    """A context of the step's engine, and the memory of its next calls."""

    context: Any
    addresses: Mapping[str, int] = field(default_factory=dict)


class Solver:
    """All steps with the ports of the whole CFM, in the place of its engine in a Chain.

    `inner` ports need memory besides: what a step starts from, and its times.
    """

    graph = CFM
    inner: tuple[Port, ...] = (_X, *_TIMES)

    def __init__(self, step: Engine, times: Sequence[float]) -> None:
        self.device, self._step, self._steps = step.device, step, len(times) - 1
        most_rows = max(bucket.batch[2] for bucket in buckets(CFM_STEP))
        self._row_bytes = most_rows * np.dtype(np.float32).itemsize
        self._times = self._send(np.repeat(np.array(times, np.float32), most_rows))

    def _send(self, times: np.ndarray[Any, np.dtype[np.float32]]) -> int:
        """The address of the times, each as often as the largest call has rows."""
        device = self.device
        address, staged = device.allocate(times.nbytes), device.pinned(times.nbytes)
        staged[:] = times.view(np.uint8)
        stream, sent = device.stream(), device.event()
        device.copy_in(address, staged, stream)
        device.record(sent, stream)
        device.synchronize(sent)
        return address

    @property
    def capturable(self) -> bool:
        """As Engine.capturable."""
        return self._step.capturable

    def eager_context(self, sizes: Sizes) -> Call:
        """As Engine.eager_context."""
        return Call(self._step.eager_context(sizes))

    def own_context(self, sizes: Sizes) -> Call:
        """As Engine.own_context."""
        return Call(self._step.own_context(sizes))

    def bind(self, call: Call, addresses: Mapping[str, int], sizes: Sizes) -> None:
        """As Engine.bind."""
        call.addresses = dict(addresses)
        self._step.bind(call.context, {**addresses, _NEXT_X.name: addresses[_MEL.name]}, sizes)

    def check_capturable(self, call: Call, stream: Any, sizes: Sizes) -> None:
        """As Engine.check_capturable."""
        self._step.check_capturable(call.context, stream, sizes)

    def execute(self, call: Call, stream: Any, sizes: Sizes) -> None:
        """As Engine.execute."""
        device, at = self.device, call.addresses
        x_bytes = _bytes(_X, sizes)
        device.copy_on(at[_X.name], at[_NOISE.name], x_bytes, stream)
        for step in range(self._steps):
            for index, port in enumerate(_TIMES):  # from the time of this step to that of the next
                source = self._times + (step + index) * self._row_bytes
                device.copy_on(at[port.name], source, _bytes(port, sizes), stream)
            self._step.execute(call.context, stream, sizes)
            if step + 1 < self._steps:
                device.copy_on(at[_X.name], at[_MEL.name], x_bytes, stream)


def _bytes(port: Port, sizes: Sizes) -> int:
    return int(np.prod(port.shape(sizes))) * np.dtype(port.dtype).itemsize
