"""Cached decoding on torch: the flow of a TorchRuntime called block by block.

Lays batches out for their device; the numbers come from cached_flow.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines.model_spec import MEL_BANDS, MEL_FRAMES_PER_TOKEN, FlowSpec
from engines.s3gen.cache.cached_flow import Blocks, BlocksDone, RowsCachedKeys
from engines.s3gen.cache.conv import ConvState
from engines.s3gen.cache.kv import KVBlock, KVCache
from engines.s3gen.noise import prompt_noise
from engines.s3gen.runtime import F32, CachedFlowBatch
from engines.s3gen.runtimes.cached import (
    DEFAULT_CONTEXT_TOKENS,
    PROMPT_SEED,
    BlockCache,
    CachedDecoding,
    default_prompt_bytes,
)
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.voice import Voice


@dataclass(frozen=True, eq=False)
class Prompt:
    """The state behind a voice's prompt, shared by its streams; never changed."""

    kv: KVBlock
    conv_state: ConvState
    speaker: Tensor  # (80,)

    @property
    def nbytes(self) -> int:
        return self.kv.nbytes + self.conv_state.nbytes + self.speaker.nbytes


class TorchFlowCache(BlockCache[KVBlock, ConvState]):
    """A FlowCache behind a voice's prompt."""

    def __init__(self, prompt: Prompt, spec: FlowSpec, context_tokens: int) -> None:
        self.prompt = prompt
        self.kv = KVCache(spec, context_tokens, prompt.speaker)
        super().__init__(self.kv, prompt.conv_state)

    @property
    def attended_tokens(self) -> int:
        """How many cached tokens the next block sees."""
        return self.prompt.kv.tokens + self.kv.tokens

    def cached(self) -> list[KVBlock]:
        """The prompt and the context, oldest first, as views."""
        return [self.prompt.kv, *self.kv.blocks()]

    def hold_row(self, row: int, new_tokens: int, done: BlocksDone) -> None:
        """Hold one row of a batch, without the tokens that the cache could not keep."""
        kept = slice(max(0, new_tokens - self.kv.capacity_tokens), new_tokens)
        self.hold(new_tokens, done.kv.row(row, kept), done.conv_states.row(row))


class TorchCachedRuntime(CachedDecoding[Prompt, TorchFlowCache, TorchRuntime]):
    """A CachedRuntime on another runtime's nets.

    On the CPU rows of different shapes are computed one after the other, on a GPU a batch is one padded call
    (`pad_batches` None).
    """

    def __init__(
        self,
        reference: TorchRuntime,
        *,
        context_tokens: int = DEFAULT_CONTEXT_TOKENS,
        prompt_bytes: int | None = None,
        pad_batches: bool | None = None,
    ) -> None:
        blocks = reference.flow_blocks()
        kept = default_prompt_bytes(blocks.spec) if prompt_bytes is None else prompt_bytes
        super().__init__(f"{reference.name}-cached", reference, context_tokens, kept)
        self.computed_tokens = 0  # that went through the nets, prompts included
        self.attended_tokens = 0  # keys that they attended to, summed over calls and rows
        self._blocks = blocks
        self._device = self._blocks.like.device
        self._pad_batches = self._device.type != "cpu" if pad_batches is None else pad_batches

    @property
    def cfm_s(self) -> float | None:
        """As Runtime.cfm_s: the nets are the reference's, and count for both."""
        return self.reference.cfm_s

    def _cache(self, prompt: Prompt) -> TorchFlowCache:
        return TorchFlowCache(prompt, self._blocks.spec, self.context_tokens)

    @torch.inference_mode()
    def _prompt(self, voice: Voice) -> Prompt:
        """The prompt is the first block: all its tokens are new, and its mel is given."""
        tokens, frames = len(voice.s3gen_prompt_tokens), len(voice.s3gen_prompt_mel)
        speaker = self._blocks.speaker(self._put(voice.x_vector[None]))
        done = self._blocks.advance(
            Blocks(
                tokens=self._put(voice.s3gen_prompt_tokens[None]),
                lengths=None,
                new=torch.tensor([tokens], device=self._device),
                prompt_mel=self._put(voice.s3gen_prompt_mel[None]),
                noise=self._put(prompt_noise(PROMPT_SEED, frames)[None]),
                speaker=speaker,
                cached=RowsCachedKeys([[]], self._blocks.spec.lanes),
                conv_states=ConvState.stacked([ConvState.zeros(self._blocks.spec, self._blocks.like)]),
            )
        )
        self.computed_tokens += tokens
        return Prompt(done.kv.only_row(), done.conv_states.row(0), speaker[0])

    @torch.inference_mode()
    def flow_cached(self, batch: CachedFlowBatch) -> F32:
        caches = [cache for cache in batch.caches if isinstance(cache, TorchFlowCache)]
        assert len(set(caches)) == len(batch.tokens), "every row has a cache of this runtime, for itself alone"
        mel = np.zeros(batch.noise.shape, np.float32)
        for rows in self._calls(batch.token_lengths, caches):
            tokens = int(batch.token_lengths[rows].max())
            frames = tokens * MEL_FRAMES_PER_TOKEN
            done = self._blocks.advance(self._layout(batch, caches, rows, tokens))
            mel[rows, :frames] = done.mel.cpu().numpy()
            for row, new_tokens in enumerate(batch.new_tokens[rows]):
                caches[rows.start + row].hold_row(row, int(new_tokens), done)
        return mel

    def _layout(self, batch: CachedFlowBatch, caches: list[TorchFlowCache], rows: slice, tokens: int) -> Blocks:
        frames = tokens * MEL_FRAMES_PER_TOKEN
        count, lengths = rows.stop - rows.start, batch.token_lengths[rows]
        self.count(lengths, caches[rows])
        return Blocks(
            tokens=self._put(batch.tokens[rows, :tokens]),
            lengths=None if (lengths == tokens).all() else self._put(lengths),
            new=self._put(batch.new_tokens[rows]),
            prompt_mel=torch.zeros(count, frames, MEL_BANDS, device=self._device),
            noise=self._put(batch.noise[rows, :frames]),
            speaker=torch.stack([cache.prompt.speaker for cache in caches[rows]]),
            cached=RowsCachedKeys([cache.cached() for cache in caches[rows]], self._blocks.spec.lanes),
            conv_states=ConvState.stacked([cache.conv_state for cache in caches[rows]]),
        )

    def count(self, lengths: npt.NDArray[np.int64], caches: Sequence[TorchFlowCache]) -> None:
        """Add a call to the totals."""
        self.computed_tokens += int(lengths.sum())
        self.attended_tokens += sum(cache.attended_tokens for cache in caches) + int(lengths.sum())

    def _calls(self, lengths: npt.NDArray[np.int64], caches: list[TorchFlowCache]) -> Iterator[slice]:
        """The rows of each call."""
        shapes = {(int(length), cache.attended_tokens) for length, cache in zip(lengths, caches, strict=True)}
        if self._pad_batches or len(shapes) == 1:
            yield slice(0, len(caches))
            return
        for row in range(len(caches)):
            yield slice(row, row + 1)

    def _put(self, array: npt.NDArray[np.float32] | npt.NDArray[np.int64]) -> Tensor:
        return torch.tensor(array, device=self._device)
