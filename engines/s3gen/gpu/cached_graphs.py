"""Cached decoding on a GPU: blocks of several streams in one captured call on fixed memory.

A stream's state stays in its own memory on the device, a ring of the last tokens behind a prompt that all streams of a
voice share. Before a call the state of its rows is copied, on the device, to where the graph reads it. A row whose
prompt is already there from an earlier call keeps it: the prompt is five sixths of the copy.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines.cuda_faults import is_sticky
from engines.device import Graphs, Launch, send, staging_memory
from engines.model_spec import MAX_S3GEN_PROMPT_TOKENS, MEL_BANDS, MEL_FRAMES_PER_TOKEN
from engines.s3gen.cache.cached_flow import Blocks, BlocksDone, FlowBlocks
from engines.s3gen.cache.conv import ConvState
from engines.s3gen.gpu.static_keys import StaticKeys
from engines.s3gen.nets.encoder import PositionCache
from engines.s3gen.runtime import F32, CachedFlowBatch, FlowBatch, Runtime, VocoderBatch, VocoderResult
from engines.s3gen.runtimes.cached import DEFAULT_CONTEXT_TOKENS
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime, TorchFlowCache
from engines.s3gen.streaming.schedule import SCHEDULES

_log = logging.getLogger(__name__)
ROWS = (1, 2, 4, 8)
_GRID_TOKENS = 8


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
        values = most_rows * most_tokens * MEL_FRAMES_PER_TOKEN * MEL_BANDS
        self._tokens_in = _Input(most_rows * most_tokens, torch.int64, device)
        self._noise = _Input(values, torch.float32, device)
        self._lengths = _Input(most_rows, torch.int64, device, 1)
        self._new = _Input(most_rows, torch.int64, device, 1)
        self._prompt_mel = torch.zeros(values, device=device)
        self._results: dict[tuple[int, int], BlocksDone] = {}
        self._launches: dict[tuple[int, int], Launch] = {}
        self.failed_captures = 0  # sizes that run eagerly for good
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
        """Whether there is a size for blocks of this length."""
        return tokens <= self._tokens[-1]

    @torch.no_grad()
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
            self.failed_captures += 1
            _log.warning("No CUDA graph for %d blocks of %d tokens, which run eagerly: %s", *size, error)

    def _compute(self, rows: int, tokens: int) -> BlocksDone:
        mel = rows, tokens * MEL_FRAMES_PER_TOKEN, MEL_BANDS
        states = self._states
        return self._blocks.advance(
            Blocks(
                tokens=self._tokens_in.view(rows, tokens),
                lengths=self._lengths.view(rows),
                new=self._new.view(rows),
                prompt_mel=self._prompt_mel[: math.prod(mel)].view(mel),
                noise=self._noise.view(*mel),
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
        frames = width * MEL_FRAMES_PER_TOKEN
        self._tokens_in.fill((rows, tokens), batch.tokens[source, :width])
        self._noise.fill((rows, tokens * MEL_FRAMES_PER_TOKEN, MEL_BANDS), batch.noise[source, :frames])
        self._lengths.fill((rows,), batch.token_lengths[source])
        self._new.fill((rows,), batch.new_tokens[source])
        for row, cache in enumerate(caches):
            self._speaker[row].copy_(cache.prompt.speaker)
            self._states.put(row, cache.conv_state)
            self.keys.put(row, cache.prompt.kv, cache.kv)
        self.keys.set_lengths()


class _Input:
    """Fixed memory on the device for one input, whose shape depends on the call, and staging memory for it."""

    def __init__(self, values: int, dtype: torch.dtype, device: torch.device, filled: int = 0) -> None:
        self._memory = torch.full((values,), filled, dtype=dtype, device=device)
        self._staged = staging_memory((values,), dtype, device)

    def view(self, *shape: int) -> Tensor:
        """The memory in this shape."""
        return self._memory[: math.prod(shape)].view(shape)

    def fill(self, shape: tuple[int, ...], array: npt.NDArray[Any]) -> None:
        """Send an array, with zeros behind it up to the shape."""
        staged = self._staged[: math.prod(shape)]
        padded = staged.numpy().reshape(shape)
        padded[...] = 0
        padded[tuple(slice(n) for n in array.shape)] = array
        send(self._memory[: math.prod(shape)], staged)


class GraphedCachedRuntime(TorchCachedRuntime):
    """A TorchCachedRuntime whose usual blocks are computed on fixed memory, replayed as CUDA graphs after `prepare`."""

    def __init__(
        self,
        nets: TorchRuntime,
        *,
        uncached: Runtime | None = None,
        name: str = "torch_graphs-cached",
        context_tokens: int = DEFAULT_CONTEXT_TOKENS,
        prompt_bytes: int | None = None,
        rows: Sequence[int] = ROWS,
        tokens: Sequence[int] = (),
    ) -> None:
        """uncached: computes the vocoder, and windows without caches; None: `nets`"""
        super().__init__(nets, context_tokens=context_tokens, prompt_bytes=prompt_bytes, pad_batches=True)
        self.name = name
        self._uncached = uncached or nets
        self.static = StaticBlocks(self._blocks, nets.new_positions(), context_tokens, rows=rows, tokens=tokens)

    @property
    def failed_captures(self) -> int:
        """As BufferedRuntime.failed_captures, of what computes without caches too."""
        return self.static.failed_captures + int(getattr(self._uncached, "failed_captures", 0))

    def prepare(self, graphs: Graphs) -> None:
        """Capture the usual sizes. Call it once, before anything else runs on the device."""
        self.static.capture(graphs)

    def flow(self, batch: FlowBatch) -> F32:
        """As Runtime.flow."""
        return self._uncached.flow(batch)

    def vocoder(self, batch: VocoderBatch) -> VocoderResult:
        """As Runtime.vocoder."""
        return self._uncached.vocoder(batch)

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
