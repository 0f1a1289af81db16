"""A double buffer: while one batch computes on a GPU, the next is copied in and the last is copied out.

It runs any kernel that can be enqueued on a stream. Work on the three streams is ordered by events alone: the host
waits only for finished results, and for a slot whose last results have not been collected yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engines.s3gen.export.graphs import Port

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Sizes = Mapping[str, int]
_MAX_GRAPHS = 32


class Device(Protocol):
    """See cuda.CudaDevice."""

    def stream(self) -> Any: ...
    def event(self) -> Any: ...
    def record(self, event: Any, stream: Any) -> None: ...
    def wait(self, stream: Any, event: Any) -> None: ...
    def synchronize(self, event: Any) -> None: ...
    def allocate(self, size_bytes: int) -> int: ...
    def pinned(self, size_bytes: int) -> Bytes: ...
    def copy_in(self, address: int, source: Bytes, stream: Any) -> None: ...
    def copy_out(self, target: Bytes, address: int, stream: Any) -> None: ...
    def capture(self, stream: Any, work: Callable[[], None]) -> Any: ...
    def launch(self, graph: Any, stream: Any) -> None: ...


class Kernel(Protocol):
    """Work that can be enqueued on a CUDA stream.

    inputs, outputs  ports that are copied
    inner            ports that need memory, but no copy
    capturable       whether repeated calls with the same sizes and addresses enqueue the same work
    enqueue          returns at once; `addresses` has every port's memory, the same for a slot's whole life
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    inner: tuple[Port, ...]
    capturable: bool

    def enqueue(self, stream: Any, addresses: Mapping[str, int], sizes: Sizes) -> None: ...


@dataclass
class Ticket:
    """One batch in flight; `result` may be called at any time, also after later batches were submitted."""

    _collect: Callable[[], None]
    _arrays: dict[str, Array] | None = None

    def result(self) -> dict[str, Array]:
        """Returns the outputs by name, as copies. Blocks until they are computed."""
        if self._arrays is None:
            self._collect()
        assert self._arrays is not None
        return self._arrays

    def fill(self, arrays: dict[str, Array]) -> None:
        self._arrays = arrays


@dataclass
class _Slot:
    host: dict[str, Bytes]
    addresses: dict[str, int]
    copied_in: Any
    computed: Any
    copied_out: Any
    ticket: Ticket | None = None
    sizes: Sizes = field(default_factory=dict)
    graphs: dict[tuple[tuple[str, int], ...], Any] = field(default_factory=dict)


class DoubleBuffer:
    """Runs batches of one kernel, at most `depth` of them in flight. For one thread at a time."""

    def __init__(self, device: Device, kernel: Kernel, capacities: Sequence[Sizes], *, depth: int = 2) -> None:
        """A batch must fit into one of `capacities`, each of which bounds every axis by name. All memory is allocated
        here."""
        assert depth >= 1
        assert capacities
        self._device, self._kernel, self._capacities = device, kernel, [dict(one) for one in capacities]
        self._in, self._compute, self._out = device.stream(), device.stream(), device.stream()
        self._slots = [self._new_slot() for _ in range(depth)]
        self._next = 0

    def _new_slot(self) -> _Slot:
        device, kernel = self._device, self._kernel
        ports = (*kernel.inputs, *kernel.outputs, *kernel.inner)
        size = {port.name: max(_bytes(port, room) for room in self._capacities) for port in ports}
        host = {p.name: device.pinned(size[p.name]) for p in (*kernel.inputs, *kernel.outputs)}
        addresses = {name: device.allocate(count) for name, count in size.items()}
        return _Slot(host, addresses, device.event(), device.event(), device.event())

    def submit(self, arrays: Mapping[str, Array], sizes: Sizes) -> Ticket:
        """Start a batch. Waits only if the next slot's last results are not on the host yet.

        Raises ValueError if the batch fits no capacity.
        """
        if not any(all(size <= room[axis] for axis, size in sizes.items()) for room in self._capacities):
            raise ValueError(f"a batch of {dict(sizes)} fits none of {self._capacities}")
        slot = self._slots[self._next]
        self._next = (self._next + 1) % len(self._slots)
        if slot.ticket is not None:
            self._collect(slot, slot.ticket)
        slot.sizes = dict(sizes)
        self._enqueue(slot, arrays)
        slot.ticket = ticket = Ticket(lambda: self._collect(slot, ticket))
        return ticket

    def _enqueue(self, slot: _Slot, arrays: Mapping[str, Array]) -> None:
        device = self._device
        for port in self._kernel.inputs:
            staged = slot.host[port.name][: _bytes(port, slot.sizes)]
            staged[:] = np.ascontiguousarray(arrays[port.name], port.dtype).reshape(-1).view(np.uint8)
            device.copy_in(slot.addresses[port.name], staged, self._in)
        device.record(slot.copied_in, self._in)
        device.wait(self._compute, slot.copied_in)
        self._run(slot)
        device.record(slot.computed, self._compute)
        device.wait(self._out, slot.computed)
        for port in self._kernel.outputs:
            target = slot.host[port.name][: _bytes(port, slot.sizes)]
            device.copy_out(target, slot.addresses[port.name], self._out)
        device.record(slot.copied_out, self._out)

    def _run(self, slot: _Slot) -> None:
        """The kernel, as a graph from a size's second call on: in the first it may still allocate and tune."""

        def work() -> None:
            self._kernel.enqueue(self._compute, slot.addresses, slot.sizes)

        key = tuple(sorted(slot.sizes.items()))
        if not self._kernel.capturable or (key not in slot.graphs and len(slot.graphs) >= _MAX_GRAPHS):
            work()
        elif key not in slot.graphs:
            work()
            slot.graphs[key] = None
        else:
            if slot.graphs[key] is None:
                slot.graphs[key] = self._device.capture(self._compute, work)
            self._device.launch(slot.graphs[key], self._compute)

    def _collect(self, slot: _Slot, ticket: Ticket) -> None:
        """Wait for a slot's results and copy them out of its buffers, which are free afterwards."""
        self._device.synchronize(slot.copied_out)
        ticket.fill({port.name: self._read(slot, port) for port in self._kernel.outputs})
        slot.ticket = None

    def _read(self, slot: _Slot, port: Port) -> Array:
        raw = slot.host[port.name][: _bytes(port, slot.sizes)].copy()
        return raw.view(port.dtype).reshape(port.shape(slot.sizes))


def _bytes(port: Port, sizes: Sizes) -> int:
    return int(np.prod(port.shape(sizes))) * np.dtype(port.dtype).itemsize
