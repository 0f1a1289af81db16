"""What cached decoding on ONNX Runtime remembers: keys, values and convolution tails as numpy arrays on the host.

Knows how they lie; knows no graph. Keys and values lie head by head, as attention reads them, so that a graph never
has to turn what it is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.model_spec import MEL_FRAMES_PER_TOKEN, FlowSpec
from engines.s3gen.cache.kv import CFM_TAIL_FRAMES, EULER_STEPS, LOOKAHEAD_TAIL_TOKENS, UP_TAIL_FRAMES, cfm_widths
from engines.s3gen.cache.ring import ContextRing
from engines.s3gen.cache.token_run import TokenRun

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class HostMemory(TokenRun[F32]):
    """A run of n tokens; keys before values.

    lower  (encoder layers, 2, heads, n, head width)
    upper  (upper layers, 2, heads, 2n, head width)
    steps  (Euler steps, transformer blocks, 2, heads, 2n, head width)
    """

    @classmethod
    def empty(cls, spec: FlowSpec, tokens: int) -> HostMemory:
        """Room for `tokens`, not yet filled in."""
        frames, head = tokens * MEL_FRAMES_PER_TOKEN, spec.width // spec.heads
        blocks = (spec.mid_stages + 2) * spec.blocks_per_stage
        return cls(
            np.empty((spec.encoder_layers, 2, spec.heads, tokens, head), np.float32),
            np.empty((spec.up_layers, 2, spec.heads, frames, head), np.float32),
            np.empty((EULER_STEPS, blocks, 2, spec.cfm_heads, frames, spec.cfm_head_dim), np.float32),
        )

    def put(self, tokens: slice, source: HostMemory) -> None:
        """Overwrite some of the tokens."""
        place = self.cut(tokens)
        place.lower[:] = source.lower
        place.upper[:] = source.upper
        place.steps[:] = source.steps


class HostContext:
    """The last `most_tokens` of a stream's tokens, in a store that never moves anything.

    The CFM's attention knows no positions, so its rows, nearly all of the memory, are read as they lie once the store
    is full; the encoder's are read in order, from a copy.
    """

    def __init__(self, spec: FlowSpec, most_tokens: int) -> None:
        self._ring = ContextRing(most_tokens)
        self._store = HostMemory.empty(spec, most_tokens)
        self.memory = HostMemory.empty(spec, 0)  # for reading; what `append` leaves is a new one

    @property
    def nbytes(self) -> int:
        copies = self.memory.nbytes - (self.memory.steps.nbytes if self.memory.steps is self._store.steps else 0)
        return self._store.nbytes + copies

    def append(self, rows: HostMemory, new_tokens: int) -> None:
        """Take up the first `new_tokens` of `rows`."""
        for source, place in self._ring.append(new_tokens):
            self._store.put(place, rows.cut(source))
        parts = [self._store.cut(place) for place in self._ring.held()] or [self._store.cut(slice(0, 0))]
        full = self._ring.held_tokens == self._store.tokens
        self.memory = HostMemory(
            np.concatenate([part.lower for part in parts], axis=-2),
            np.concatenate([part.upper for part in parts], axis=-2),
            self._store.steps if full else np.concatenate([part.steps for part in parts], axis=-2),
        )


@dataclass(frozen=True, eq=False)
class HostTails:
    """As memory.Tails, of one row: tokens (2, width), frames (4, width), steps (Euler steps, 2, channels)."""

    tokens: F32
    frames: F32
    steps: F32

    @classmethod
    def zeros(cls, spec: FlowSpec) -> HostTails:
        return cls(
            np.zeros((LOOKAHEAD_TAIL_TOKENS, spec.width), np.float32),
            np.zeros((UP_TAIL_FRAMES, spec.width), np.float32),
            np.zeros((EULER_STEPS, CFM_TAIL_FRAMES, sum(cfm_widths(spec))), np.float32),
        )

    @property
    def nbytes(self) -> int:
        return self.tokens.nbytes + self.frames.nbytes + self.steps.nbytes
