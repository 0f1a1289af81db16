"""Keys and values of the flow's attention layers, on torch and on the host: blocks of tokens, and a stream's cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines.model_spec import MEL_FRAMES_PER_TOKEN, FlowSpec
from engines.s3gen.cache.ring import RingBuffer

F32 = npt.NDArray[np.float32]


class _Array(Protocol):
    @property
    def shape(self) -> Any: ...

    @property
    def nbytes(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...


A = TypeVar("A", bound=_Array)


@dataclass(frozen=True, eq=False)
class _Block(Generic[A]):
    """A run of n tokens; the last axis but one is n long in `lower` and 2n long in `upper` and `steps`."""

    lower: A
    upper: A
    steps: A

    @property
    def tokens(self) -> int:
        count: int = self.lower.shape[-2]
        return count

    @property
    def nbytes(self) -> int:
        return self.lower.nbytes + self.upper.nbytes + self.steps.nbytes

    def cut(self, tokens: slice) -> Self:
        """A view of some of the tokens."""
        frames = slice(tokens.start * MEL_FRAMES_PER_TOKEN, tokens.stop * MEL_FRAMES_PER_TOKEN)
        return type(self)(self.lower[..., tokens, :], self.upper[..., frames, :], self.steps[..., frames, :])


class KVBlock(_Block[Tensor]):
    """A run of n tokens on torch. Each row of the last axis holds a layer's keys, then its values.

    lower  (encoder layers, n, 2 x width)
    upper  (upper layers, 2n, 2 x width)
    steps  (Euler steps, transformer blocks, lanes, 2n, 2 x attention width)

    A batch has an axis of rows before that of tokens. The CFM's rows are first all conditional lanes, then all
    unconditional ones: its `steps` are (Euler steps, transformer blocks, lanes x rows, 2n, 2 x attention width).
    """

    @classmethod
    def empty(cls, spec: FlowSpec, tokens: int, like: Tensor, batch: int | None = None) -> KVBlock:
        """Uninitialised, of the dtype and on the device of `like`; with `batch`, for that many rows."""
        rows = () if batch is None else (batch,)
        frames, width = tokens * MEL_FRAMES_PER_TOKEN, 2 * spec.width
        blocks = (spec.mid_stages + 2) * spec.blocks_per_stage
        attention = 2 * spec.cfm_heads * spec.cfm_head_dim
        return cls(
            like.new_empty(spec.encoder_layers, *rows, tokens, width),
            like.new_empty(spec.up_layers, *rows, frames, width),
            like.new_empty(spec.steps, blocks, spec.lanes * (batch or 1), frames, attention),
        )

    def put(self, tokens: slice, source: KVBlock) -> None:
        """Overwrite some of the tokens."""
        target = self.cut(tokens)
        target.lower.copy_(source.lower)
        target.upper.copy_(source.upper)
        target.steps.copy_(source.steps)

    def row(self, index: int, tokens: slice) -> KVBlock:
        """A copy of some tokens of one row of a batch."""
        one = KVBlock(self.lower[:, index], self.upper[:, index], self.lanes(index)).cut(tokens)
        return KVBlock(
            *(part.clone(memory_format=torch.contiguous_format) for part in (one.lower, one.upper, one.steps))
        )

    def only_row(self) -> KVBlock:
        """The row of a batch of one, as views."""
        assert self.lower.shape[1] == 1
        return KVBlock(self.lower[:, 0], self.upper[:, 0], self.steps)

    def lanes(self, index: int) -> Tensor:
        """The part of `steps` of one row of a batch, as a view."""
        return self.steps[:, :, index :: self.lower.shape[1]]


def token_bytes(spec: FlowSpec, bytes_per_value: int = 4) -> int:
    """Bytes of one token's keys and values."""
    encoder = (spec.encoder_layers + MEL_FRAMES_PER_TOKEN * spec.up_layers) * 2 * spec.width
    blocks = (spec.mid_stages + 2) * spec.blocks_per_stage
    step = MEL_FRAMES_PER_TOKEN * blocks * 2 * spec.cfm_heads * spec.cfm_head_dim
    return (encoder + spec.steps * spec.lanes * step) * bytes_per_value


class KVCache:
    """The last `capacity_tokens` tokens of a stream on torch."""

    def __init__(self, spec: FlowSpec, capacity_tokens: int, like: Tensor) -> None:
        self._ring = RingBuffer(capacity_tokens)
        self._store = KVBlock.empty(spec, capacity_tokens, like)

    @property
    def tokens(self) -> int:
        return self._ring.held_tokens

    @property
    def capacity_tokens(self) -> int:
        return self._ring.capacity_tokens

    @property
    def nbytes(self) -> int:
        return self._store.nbytes

    def blocks(self) -> list[KVBlock]:
        """The cached tokens, oldest first, as views."""
        return [self._store.cut(place) for place in self._ring.held()]

    def unordered(self) -> Tensor:
        """The CFM's part of the cached tokens in the order of their places, from the first on, as a view."""
        # tokens fill the store from its beginning, and only a full one goes around its end
        return self._store.cut(slice(0, self.tokens)).steps

    @torch.inference_mode()
    def append(self, block: KVBlock, tokens: int) -> None:
        """Add the first `tokens` of `block`."""
        for source, place in self._ring.append(tokens):
            self._store.put(place, block.cut(source))

    def clear(self) -> None:
        self._ring.clear()


class HostKVBlock(_Block[F32]):
    """A run of n tokens on the host, for ONNX Runtime; keys before values, head by head, as attention reads them.

    lower  (encoder layers, 2, 1, heads, n, head width)
    upper  (upper layers, 2, 1, heads, 2n, head width)
    steps  (Euler steps, transformer blocks, 2, lanes, heads, 2n, head width)
    """

    @classmethod
    def empty(cls, spec: FlowSpec, tokens: int) -> HostKVBlock:
        """Uninitialised."""
        frames, head = tokens * MEL_FRAMES_PER_TOKEN, spec.width // spec.heads
        blocks = (spec.mid_stages + 2) * spec.blocks_per_stage
        return cls(
            np.empty((spec.encoder_layers, 2, 1, spec.heads, tokens, head), np.float32),
            np.empty((spec.up_layers, 2, 1, spec.heads, frames, head), np.float32),
            np.empty((spec.steps, blocks, 2, spec.lanes, spec.cfm_heads, frames, spec.cfm_head_dim), np.float32),
        )

    def put(self, tokens: slice, source: HostKVBlock) -> None:
        """Overwrite some of the tokens."""
        target = self.cut(tokens)
        target.lower[:] = source.lower
        target.upper[:] = source.upper
        target.steps[:] = source.steps


class HostKVCache:
    """The last `capacity_tokens` tokens of a stream on the host, in `block`.

    The CFM's attention has no positions, so once the store is full its part of `block`, nearly all of the memory, is
    the store itself in any order. The encoder's part must be in order and is a copy.
    """

    def __init__(self, spec: FlowSpec, capacity_tokens: int) -> None:
        self._ring = RingBuffer(capacity_tokens)
        self._store = HostKVBlock.empty(spec, capacity_tokens)
        self._empty = HostKVBlock.empty(spec, 0)
        self.block = self._empty

    @property
    def nbytes(self) -> int:
        copies = self.block.nbytes - (self.block.steps.nbytes if self.block.steps is self._store.steps else 0)
        return self._store.nbytes + copies

    def append(self, block: HostKVBlock, tokens: int) -> None:
        """Add the first `tokens` of `block`."""
        for source, place in self._ring.append(tokens):
            self._store.put(place, block.cut(source))
        parts = [self._store.cut(place) for place in self._ring.held()] or [self._store.cut(slice(0, 0))]
        full = self._ring.held_tokens == self._store.tokens
        self.block = HostKVBlock(
            np.concatenate([part.lower for part in parts], axis=-2),
            np.concatenate([part.upper for part in parts], axis=-2),
            self._store.steps if full else np.concatenate([part.steps for part in parts], axis=-2),
        )

    def clear(self) -> None:
        self._ring.clear()
        self.block = self._empty
