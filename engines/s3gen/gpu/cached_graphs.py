"""Cached decoding on a GPU: blocks of several streams in one captured call on fixed memory.

A stream's state stays in its own memory on the device, a ring of the last tokens behind a prompt that all streams of a
voice share. Before a call the state of its rows is copied, on the device, to where the graph reads it. A row whose
prompt is already there from an earlier call keeps it: the prompt is five sixths of the copy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from engines.cuda_faults import is_sticky
from engines.model_spec import MAX_S3GEN_PROMPT_TOKENS, MEL_BANDS, MEL_FRAMES_PER_TOKEN
from engines.s3gen.cache.cached_flow import Blocks, BlocksDone, FlowBlocks
from engines.s3gen.cache.conv import ConvState
from engines.s3gen.gpu.static_keys import StaticKeys
from engines.s3gen.nets.encoder import PositionCache
from engines.s3gen.runtime import F32, CachedFlowBatch
from engines.s3gen.runtimes.cached import DEFAULT_CONTEXT_TOKENS, DEFAULT_PROMPT_BYTES
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime, TorchFlowCache
from engines.s3gen.streaming.schedule import SCHEDULES

_log = logging.getLogger(__name__)
Launch = Callable[[], None]
ROWS = (1, 2, 4, 8)
_GRID_TOKENS = 8


class Graphs(Protocol):
    """Capture of torch's work; see t3.gpu.step.CudaGraphs."""

    def capture(self, work: Callable[[], None]) -> Launch: ...


def block_sizes() -> tuple[int, ...]:
    """The tokens of captured blocks: every hop of the schedules with its lookahead, on a grid."""
    blocks = {step.block_tokens for schedule in SCHEDULES.values() for step in schedule.steps}
    return tuple(sorted({-(-tokens // _GRID_TOKENS) * _GRID_TOKENS for tokens in blocks}))


class StaticBlocks:
    """The memory of captured calls, and the calls, by rows and tokens. One thread at a time."""

    def __init__(
        self,
        blocks: FlowBlocks,
        positions: PositionCache,
        context_tokens: int,
        *,
        rows: Sequence[int] = ROWS,
        tokens: Sequence[int] = (),
        prompt_tokens: int = MAX_S3GEN_PROMPT_TOKENS,
    ) -> None:
        """tokens: of the blocks that have a size of their own; (): `block_sizes()`"""
        self._rows, self._tokens = tuple(sorted(rows)), tuple(sorted(tokens or block_sizes()))
        most_rows, most_tokens = self._rows[-1], self._tokens[-1]
        like, spec = blocks.like, blocks.spec
        device = like.device
        # projected once for the longest: graphs read them where they are
        positions.covering(prompt_tokens + context_tokens + most_tokens)
        self._blocks = blocks.with_positions(positions)
        self.keys = StaticKeys(spec, most_rows, prompt_tokens, context_tokens, like)
        self._states = ConvState.stacked([ConvState.zeros(spec, like)] * most_rows)
        self._speaker = like.new_zeros(most_rows, MEL_BANDS)
        frames = most_tokens * MEL_FRAMES_PER_TOKEN
        self._ids = torch.zeros((most_rows, most_tokens), dtype=torch.int64, device=device)
        self._lengths = torch.ones(most_rows, dtype=torch.int64, device=device)
        self._new = torch.ones(most_rows, dtype=torch.int64, device=device)
        self._noise = torch.zeros((most_rows, frames, MEL_BANDS), device=device)
        self._prompt_mel = torch.zeros((most_rows, frames, MEL_BANDS), device=device)
        self._results: dict[tuple[int, int], BlocksDone] = {}
        self._launches: dict[tuple[int, int], Launch] = {}
        self.replayed = self.eager = 0  # calls so far

    @property
    def most_rows(self) -> int:
        """Of one call."""
        return self._rows[-1]

    @property
    def graphs(self) -> int:
        """The number of sizes that are replayed."""
        return len(self._launches)

    @property
    def nbytes(self) -> int:
        """Of the memory that graphs read."""
        return self.keys.nbytes + self._states.nbytes

    def fits(self, tokens: int) -> bool:
        """Whether there is a size for blocks of so many tokens."""
        return tokens <= self._tokens[-1]

    @torch.inference_mode()
    def capture(self, graphs: Graphs) -> None:
        """Capture all sizes, largest first. One that cannot be captured runs eagerly for good."""
        for rows in self._rows[::-1]:
            for tokens in self._tokens[::-1]:
                self._capture_size(graphs, (rows, tokens))

    def _capture_size(self, graphs: Graphs, size: tuple[int, int]) -> None:
        def work() -> None:
            self._results[size] = self._compute(*size)

        try:
            work()  # the first call of a size may allocate and tune
            self._launches[size] = graphs.capture(work)
        except Exception as error:
            if is_sticky(error):
                raise
            _log.warning("No CUDA graph for %d blocks of %d tokens, which run eagerly: %s", *size, error)

    def _compute(self, rows: int, tokens: int) -> BlocksDone:
        frames = tokens * MEL_FRAMES_PER_TOKEN
        states = self._states
        return self._blocks.advance(
            Blocks(
                tokens=self._ids[:rows, :tokens],
                lengths=self._lengths[:rows],
                new=self._new[:rows],
                prompt_mel=self._prompt_mel[:rows, :frames],
                noise=self._noise[:rows, :frames],
                speaker=self._speaker[:rows],
                cached=self.keys.rows(rows),
                conv_states=ConvState(states.tokens[:rows], states.frames[:rows], states.steps[:rows]),
            )
        )

    def run(self, batch: CachedFlowBatch, first: int, caches: Sequence[TorchFlowCache], mel: F32) -> None:
        """Compute the rows of `batch` from `first` on that these caches belong to; their mel goes to `mel`."""
        count, stop = len(caches), first + len(caches)
        longest = int(batch.token_lengths[first:stop].max())
        rows = next(size for size in self._rows if size >= count)
        tokens = next(size for size in self._tokens if size >= longest)
        self._fill(batch, first, caches, rows, tokens)
        done = self._call((rows, tokens))
        frames = longest * MEL_FRAMES_PER_TOKEN
        mel[first:stop, :frames] = done.mel[:count, :frames].cpu().numpy()
        for row, cache in enumerate(caches):
            cache.hold_row(row, int(batch.new_tokens[first + row]), done)

    def _call(self, size: tuple[int, int]) -> BlocksDone:
        launch = self._launches.get(size)
        if launch is None:
            self.eager += 1
            return self._compute(*size)
        self.replayed += 1
        launch()
        return self._results[size]

    def _fill(
        self, batch: CachedFlowBatch, first: int, caches: Sequence[TorchFlowCache], rows: int, tokens: int
    ) -> None:
        """Inputs and state of the rows. Rows beyond them repeat the last one's inputs with whatever state is there."""
        source = [min(first + row, first + len(caches) - 1) for row in range(rows)]
        width = min(tokens, batch.tokens.shape[1])
        ids = np.zeros((rows, tokens), np.int64)
        noise = np.zeros((rows, tokens * MEL_FRAMES_PER_TOKEN, MEL_BANDS), np.float32)
        ids[:, :width] = batch.tokens[source, :width]
        noise[:, : width * MEL_FRAMES_PER_TOKEN] = batch.noise[source, : width * MEL_FRAMES_PER_TOKEN]
        self._send(self._ids[:rows, :tokens], ids)
        self._send(self._noise[:rows, : noise.shape[1]], noise)
        self._send(self._lengths[:rows], batch.token_lengths[source])
        self._send(self._new[:rows], batch.new_tokens[source])
        for row, cache in enumerate(caches):
            self._speaker[row].copy_(cache.prompt.speaker)
            self._states.put(row, cache.conv_state)
            self.keys.put(row, cache.prompt.kv, cache.kv)
        self.keys.set_lengths()

    def _send(self, target: Tensor, array: np.ndarray) -> None:
        target.copy_(torch.from_numpy(np.ascontiguousarray(array)))


class GraphedCachedRuntime(TorchCachedRuntime):
    """A TorchCachedRuntime whose usual blocks are computed on fixed memory, replayed as CUDA graphs after `prepare`."""

    def __init__(
        self,
        nets: TorchRuntime,
        *,
        name: str = "torch_graphs-cached",
        context_tokens: int = DEFAULT_CONTEXT_TOKENS,
        prompt_bytes: int = DEFAULT_PROMPT_BYTES,
        rows: Sequence[int] = ROWS,
        tokens: Sequence[int] = (),
    ) -> None:
        super().__init__(nets, context_tokens=context_tokens, prompt_bytes=prompt_bytes, pad_batches=True)
        self.name = name
        self.static = StaticBlocks(self._blocks, nets.new_positions(), context_tokens, rows=rows, tokens=tokens)

    def prepare(self, graphs: Graphs) -> None:
        """Capture the usual sizes. Call it once, before anything else runs on the device."""
        self.static.capture(graphs)

    @property
    def cache_bytes(self) -> int:
        """As CachedRuntime.cache_bytes."""
        return super().cache_bytes + self.static.nbytes

    @torch.inference_mode()
    def flow_cached(self, batch: CachedFlowBatch) -> F32:
        """As CachedRuntime.flow_cached."""
        if not self.static.fits(int(batch.token_lengths.max())):
            return super().flow_cached(batch)  # a segment's last block, or one that an error made long
        caches = [cache for cache in batch.caches if isinstance(cache, TorchFlowCache)]
        assert len(set(caches)) == len(batch.tokens), "every row has a cache of this runtime, for itself alone"
        self.count(batch.token_lengths, caches)
        mel = np.zeros(batch.noise.shape, np.float32)
        for first in range(0, len(caches), self.static.most_rows):
            self.static.run(batch, first, caches[first : first + self.static.most_rows], mel)
        return mel
