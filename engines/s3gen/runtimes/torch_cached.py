"""Cached decoding on torch: the flow of a TorchRuntime called block by block.

Knows what is remembered for whom, and how to lay a batch out for its device; the numbers come from cached_flow.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines.model_spec import MEL_BANDS, MEL_FRAMES_PER_TOKEN, FlowSpec
from engines.s3gen.cache.cached_flow import Blocks, BlocksDone
from engines.s3gen.cache.kv import KeysValues, Tails
from engines.s3gen.cache.ring import ContextRing
from engines.s3gen.noise import prompt_noise
from engines.s3gen.runtime import F32, CachedFlowBatch
from engines.s3gen.runtimes.cached import DEFAULT_CONTEXT_TOKENS, DEFAULT_PROMPT_BYTES, PROMPT_SEED, CachedDecoding
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.voice import Voice


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a voice's prompt leaves for every stream of the voice; never changed."""

    keys_values: KeysValues
    tails: Tails
    speaker: Tensor  # (80,)

    @property
    def nbytes(self) -> int:
        return self.keys_values.nbytes + self.tails.nbytes + self.speaker.nbytes


class TorchFlowCache:
    """Fulfils `FlowCache`: a voice's prompt, a ring of finished tokens, and what waits to be committed."""

    def __init__(self, prompt: Prompt, spec: FlowSpec, context_tokens: int) -> None:
        self.prompt = prompt
        self._ring = ContextRing(context_tokens)
        self._store = KeysValues.empty(spec, context_tokens, prompt.speaker)
        self._tails = prompt.tails
        self._waiting: tuple[int, KeysValues, Tails] | None = None

    @property
    def nbytes(self) -> int:
        own = self._store.nbytes + (0 if self._tails is self.prompt.tails else self._tails.nbytes)
        return own + (0 if self._waiting is None else self._waiting[1].nbytes + self._waiting[2].nbytes)

    @property
    def tails(self) -> Tails:
        return self._tails

    @property
    def attended_tokens(self) -> int:
        """How many remembered tokens the next block sees."""
        return self.prompt.keys_values.tokens + self._ring.held_tokens

    def history(self) -> list[KeysValues]:
        """The prompt and the context, oldest first, as views."""
        return [self.prompt.keys_values, *(self._store.cut(place) for place in self._ring.held())]

    def hold(self, row: int, new_tokens: int, done: BlocksDone) -> None:
        """Keep what `commit` will need of the row; a block decoded again replaces it."""
        kept = slice(max(0, new_tokens - self._ring.capacity_tokens), new_tokens)
        self._waiting = (new_tokens, done.keys_values.row(row, kept), done.tails[row])

    @torch.inference_mode()
    def commit(self, new_tokens: int) -> None:
        assert self._waiting is not None, "nothing was decoded since the last commit"
        decoded, rows, self._tails = self._waiting
        assert decoded == new_tokens, f"{decoded} new tokens were decoded, not {new_tokens}"
        self._waiting = None
        for source, place in self._ring.append(rows.tokens):
            self._store.put(place, rows.cut(source))

    def reset(self) -> None:
        self._ring.clear()
        self._tails = self.prompt.tails
        self._waiting = None


class TorchCachedRuntime(CachedDecoding[Prompt, TorchFlowCache, TorchRuntime]):
    """Fulfils `CachedRuntime` on another runtime's nets.

    On the CPU rows of different shapes are computed one after the other, on a GPU a batch is one padded call
    (`pad_batches` None).
    """

    def __init__(
        self,
        reference: TorchRuntime,
        *,
        context_tokens: int = DEFAULT_CONTEXT_TOKENS,
        prompt_bytes: int = DEFAULT_PROMPT_BYTES,
        pad_batches: bool | None = None,
    ) -> None:
        super().__init__(f"{reference.name}-cached", reference, context_tokens, prompt_bytes)
        self.computed_tokens = 0  # rows that went through the nets, prompts included
        self.attended_tokens = 0  # keys that they looked at, summed over calls and rows
        self._blocks = reference.flow_blocks()
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
        """The prompt is a block like any other: the first, all of it new, and with mel to hold on to."""
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
                history=[[]],
                tails=[Tails.empty(self._blocks.spec, self._blocks.like)],
            )
        )
        self.computed_tokens += tokens
        return Prompt(done.keys_values.row(0, slice(0, tokens)), done.tails[0], speaker[0])

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
                caches[rows.start + row].hold(row, int(new_tokens), done)
        return mel

    def _layout(self, batch: CachedFlowBatch, caches: list[TorchFlowCache], rows: slice, tokens: int) -> Blocks:
        frames = tokens * MEL_FRAMES_PER_TOKEN
        count, lengths = rows.stop - rows.start, batch.token_lengths[rows]
        self.computed_tokens += int(lengths.sum())
        self.attended_tokens += sum(cache.attended_tokens for cache in caches[rows]) + int(lengths.sum())
        return Blocks(
            tokens=self._put(batch.tokens[rows, :tokens]),
            lengths=None if (lengths == tokens).all() else self._put(lengths),
            new=self._put(batch.new_tokens[rows]),
            prompt_mel=torch.zeros(count, frames, MEL_BANDS, device=self._device),
            noise=self._put(batch.noise[rows, :frames]),
            speaker=torch.stack([cache.prompt.speaker for cache in caches[rows]]),
            history=[cache.history() for cache in caches[rows]],
            tails=[cache.tails for cache in caches[rows]],
        )

    def _calls(self, lengths: npt.NDArray[np.int64], caches: list[TorchFlowCache]) -> Iterator[slice]:
        """Rows that go through the nets together."""
        shapes = {(int(length), cache.attended_tokens) for length, cache in zip(lengths, caches, strict=True)}
        if self._pad_batches or len(shapes) == 1:
            yield slice(0, len(caches))
            return
        for row in range(len(caches)):
            yield slice(row, row + 1)

    def _put(self, array: npt.NDArray[np.float32] | npt.NDArray[np.int64]) -> Tensor:
        return torch.tensor(array, device=self._device)
