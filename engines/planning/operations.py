"""The operations of a call, counted on torch's meta device: arithmetic and bytes, without weights or a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

ATTENTION = "attention"
_NO_KERNEL = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "_unsafe_view", "lift_fresh"}
_LOOKUPS = {"embedding", "index_select", "index", "gather"}  # they read as much of their first input as they write


@dataclass(frozen=True)
class Operation:
    """One kernel of a call, as torch runs it.

    weight_bytes  read of the net's weights: the same for any number of rows
    other_bytes   all else that it reads and writes
    half          whether it computes in 16 bits
    constant      whether it depends on weights alone; engines compute it once, when they are built
    """

    name: str
    flops: int
    weight_bytes: int
    other_bytes: int
    half: bool = False
    constant: bool = False

    def repeated(self, times: int) -> Operation:
        """The operation for `times` as many rows."""
        return replace(self, flops=times * self.flops, other_bytes=times * self.other_bytes)


Operations = tuple[Operation, ...]


def flops(operations: Operations) -> int:
    """Floating point operations, a multiplication and an addition counted as two."""
    return sum(operation.flops for operation in operations)


def weight_bytes(operations: Operations) -> int:
    """Bytes of weights that are read."""
    return sum(operation.weight_bytes for operation in operations)


def batched(operations: Operations, rows: int) -> Operations:
    """The operations for `rows` independent rows, from those of one: weights are read once for all."""
    return tuple(operation.repeated(rows) for operation in operations)


def mixed(same: Sequence[Operation], shares: Sequence[Fraction | int]) -> Operation:
    """One operation of several sizes of a call, mixed by shares: its size lies on the same line or curve."""
    assert len({operation.name for operation in same}) == 1

    def total(amounts: Iterable[int]) -> int:
        return int(sum(share * amount for share, amount in zip(shares, amounts, strict=True)))

    return replace(
        same[0],
        flops=total(operation.flops for operation in same),
        weight_bytes=total(operation.weight_bytes for operation in same),
        other_bytes=total(operation.other_bytes for operation in same),
    )


def in_half(operations: Operations) -> Operations:
    """The same operations in 16 bits instead of 32."""
    return tuple(
        replace(o, weight_bytes=o.weight_bytes // 2, other_bytes=o.other_bytes // 2, half=True) for o in operations
    )


def count(call: Callable[[], object], inputs: Iterable[Tensor]) -> Operations:
    """The operations of a call on meta tensors, in their order; views cost nothing.

    What the call reads is a weight, unless it is one of `inputs` or was made by the call.
    """
    counter = _Counter(inputs)
    with torch.no_grad(), counter, _WholeAttention(counter):
        call()
    return tuple(counter.operations)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, inputs: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[Operation] = []
        self._variable = {_storage(tensor) for tensor in inputs}  # storages of all that is no weight

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not _is_view(func):
            counted = flop_registry.get(func.overloadpacket)
            work = 0 if counted is None else counted(*args, **kwargs, out_val=result)
            self.add(func.overloadpacket.__name__, int(work), list(_tensors((args, kwargs))), list(_tensors(result)))
        return result

    def add(self, name: str, work: int, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """Count one kernel."""
        constant = bool(inputs) and all(self._is_weight(tensor) for tensor in inputs)
        made = {_storage(tensor) for tensor in outputs}
        weights, others, written = 0, 0, sum(map(_bytes, outputs))
        for position, tensor in enumerate(inputs):
            read = min(_bytes(tensor), written) if name in _LOOKUPS and position == 0 else _bytes(tensor)
            if self._is_weight(tensor):
                weights += read
            else:
                others += read
        self._variable = self._variable - made if constant else self._variable | made
        if name in _NO_KERNEL:
            return
        half = any(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in outputs)
        self.operations.append(Operation(name, work, weights, others + written, half, constant))

    def _is_weight(self, tensor: Tensor) -> bool:
        return _storage(tensor) not in self._variable


class _WholeAttention(TorchFunctionMode):
    """Attention as one kernel that keeps its scores on the chip; the meta device would break it down."""

    def __init__(self, counter: _Counter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value = args[:3]
        mixed = query.new_empty((*query.shape[:-1], value.shape[-1]))
        inputs = list(_tensors((args, kwargs)))
        work = int(sdpa_flop_count(query.shape, key.shape, value.shape))  # type: ignore[no-untyped-call]
        self._counter.add(ATTENTION, work, inputs, [mixed])
        return mixed


def _is_view(func: Any) -> bool:
    aliases = [result.alias_info for result in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _tensors(values: object) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
