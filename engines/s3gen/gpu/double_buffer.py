"""A double buffer: while one batch computes on a GPU, the next is copied in and the last is copied out.

It runs any kernel that can be enqueued on a stream. Work on the three streams is ordered by events alone: the host
waits only for finished results, and for a slot whose last results have not been collected yet.

Sizes named to `prepare` are captured as CUDA graphs then, and replayed later; all other sizes run eagerly. Nothing is
captured while batches run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from engines.cuda_faults import is_sticky
from engines.s3gen.export.graphs import Port

_log = logging.getLogger(__name__)
Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
Sizes = Mapping[str, int]
Launch = Callable[[], None]
_Key = tuple[tuple[str, int], ...]


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
    def copy_on(self, target: int, source: int, size_bytes: int, stream: Any) -> None: ...
    def clear(self, address: int, size_bytes: int, stream: Any) -> None: ...
    def capture(self, stream: Any, work: Callable[[], None]) -> Any: ...
    def launch(self, graph: Any, stream: Any) -> None: ...


class Kernel(Protocol):
    """Work that can be enqueued on a CUDA stream.

    inputs, outputs  ports that are copied
    inner            ports that need memory, but no copy
    unpadded         whether a call whose rows are all full is cheaper without masks, at whatever size it has
    enqueue          returns at once; `addresses` has every port's memory. `full`: all rows are, if it is `unpadded`
    capture          captures the call at these addresses and sizes, after one eager run of it. Returns the launch of
                     the graph on `stream`, valid whatever is enqueued or captured later; None for a kernel that is not
                     captured
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    inner: tuple[Port, ...]
    unpadded: bool

    def enqueue(self, stream: Any, addresses: Mapping[str, int], sizes: Sizes, *, full: bool = False) -> None: ...
    def capture(self, stream: Any, addresses: Mapping[str, int], sizes: Sizes) -> Launch | None: ...


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
    full: bool = False


class DoubleBuffer:
    """Runs batches of one kernel, at most `depth` of them in flight. For one thread at a time."""

    def __init__(
        self, device: Device, kernel: Kernel, capacities: Sequence[Sizes], *, compute: Any = None, depth: int = 2
    ) -> None:
        """A batch must fit into one of `capacities`, each of which bounds every axis by name. All memory for batches is
        allocated here. `compute`: the stream that kernels share with others, e.g. because they share scratch memory;
        None: one of its own.
        """
        assert depth >= 1
        assert capacities
        self._device, self._kernel, self._capacities = device, kernel, [dict(one) for one in capacities]
        self._in, self._out = device.stream(), device.stream()
        self._compute = device.stream() if compute is None else compute
        self._slots = [self._new_slot() for _ in range(depth)]
        self._next = 0
        self._fixed: dict[str, int] = {}  # addresses that graphs were captured with
        self._graphs: dict[_Key, Launch] = {}
        self.failed_captures = 0
        self.replayed = self.eager = 0  # calls so far

    @property
    def outputs(self) -> tuple[Port, ...]:
        """The ports of a result."""
        return self._kernel.outputs

    @property
    def device_bytes(self) -> int:
        """Memory on the device for batches, without that of graphs."""
        return len(self._slots) * sum(max(_bytes(port, room) for room in self._capacities) for port in self._ports)

    @property
    def _ports(self) -> tuple[Port, ...]:
        return (*self._kernel.inputs, *self._kernel.outputs, *self._kernel.inner)

    @property
    def graphs(self) -> int:
        """The number of sizes that are replayed."""
        return len(self._graphs)

    @property
    def unpadded(self) -> bool:
        """As Kernel.unpadded."""
        return self._kernel.unpadded

    def replays(self, sizes: Sizes) -> bool:
        """Whether calls of this size are replayed."""
        return _key(sizes) in self._graphs

    def prepare(self, all_sizes: Sequence[Sizes]) -> None:
        """Capture these sizes as graphs. Call it once, while nothing else uses the device.

        Graphs work on memory of their own, shared by all of them, so that every size is captured once and not once per
        slot. A size that cannot be captured runs eagerly for good. Raises what the device raises if it is lost.
        """
        assert not self._fixed
        kernel = self._kernel
        ports = (*kernel.inputs, *kernel.outputs, *kernel.inner)
        for port in ports:
            size_bytes = max(_bytes(port, sizes) for sizes in all_sizes)
            self._fixed[port.name] = self._device.allocate(size_bytes)
            # kernels run on this before they are captured, and random bytes are no valid speech tokens
            self._device.clear(self._fixed[port.name], size_bytes, self._compute)
        for sizes in all_sizes:
            try:
                launch = kernel.capture(self._compute, self._fixed, sizes)
            except Exception as error:
                if is_sticky(error):
                    raise
                self.failed_captures += 1
                _log.warning("No CUDA graph for %s, which will run eagerly: %s", dict(sizes), error)
                continue
            if launch is None:
                return
            self._graphs[_key(sizes)] = launch

    def _new_slot(self) -> _Slot:
        device, kernel = self._device, self._kernel
        ports = (*kernel.inputs, *kernel.outputs, *kernel.inner)
        size = {port.name: max(_bytes(port, room) for room in self._capacities) for port in ports}
        host = {p.name: device.pinned(size[p.name]) for p in (*kernel.inputs, *kernel.outputs)}
        addresses = {name: device.allocate(count) for name, count in size.items()}
        return _Slot(host, addresses, device.event(), device.event(), device.event())

    def submit(self, arrays: Mapping[str, Array], sizes: Sizes, *, full: bool = False) -> Ticket:
        """Start a batch. Waits only if the next slot's last results are not on the host yet. `full`: see Kernel.

        An array may be smaller than its port at these sizes: it is padded with zeros, and its rows with copies of the
        first row. Raises ValueError if the batch fits no capacity.
        """
        if not any(all(size <= room[axis] for axis, size in sizes.items()) for room in self._capacities):
            raise ValueError(f"a batch of {dict(sizes)} fits none of {self._capacities}")
        slot = self._slots[self._next]
        self._next = (self._next + 1) % len(self._slots)
        if slot.ticket is not None:
            self._collect(slot, slot.ticket)
        slot.sizes, slot.full = dict(sizes), full
        self._enqueue(slot, arrays)
        slot.ticket = ticket = Ticket(lambda: self._collect(slot, ticket))
        return ticket

    def _enqueue(self, slot: _Slot, arrays: Mapping[str, Array]) -> None:
        device = self._device
        for port in self._kernel.inputs:
            staged = slot.host[port.name][: _bytes(port, slot.sizes)]
            _pad_into(staged.view(port.dtype).reshape(port.shape(slot.sizes)), arrays[port.name])
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
        launch = self._graphs.get(_key(slot.sizes))
        if launch is None:
            self.eager += 1
            self._kernel.enqueue(self._compute, slot.addresses, slot.sizes, full=slot.full)
            return
        self.replayed += 1
        for port in self._kernel.inputs:
            self._copy(port, self._fixed, slot.addresses, slot)
        launch()
        for port in self._kernel.outputs:
            self._copy(port, slot.addresses, self._fixed, slot)

    def _copy(self, port: Port, target: Mapping[str, int], source: Mapping[str, int], slot: _Slot) -> None:
        size_bytes = _bytes(port, slot.sizes)
        self._device.copy_on(target[port.name], source[port.name], size_bytes, self._compute)

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


def _key(sizes: Sizes) -> _Key:
    return tuple(sorted(sizes.items()))


def _pad_into(target: Array, source: Array) -> None:
    if source.shape == target.shape:
        target[...] = source
        return
    target[...] = 0
    target[tuple(slice(n) for n in source.shape)] = source
    target[len(source) :] = target[0]
