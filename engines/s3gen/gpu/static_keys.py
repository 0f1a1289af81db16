"""The cached keys and values that a captured call of cached decoding reads: fixed memory for some rows.

The encoder's have positions: a row's cached tokens end where its block begins, as in RowsKVView, and are copied in
order. The CFM's, nearly all of the memory, have none: the prompt and the ring of later tokens have places of their own,
each masked behind its end, and the ring stays in the order in which it was written.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engines.device import send, staging_memory
from engines.model_spec import MEL_FRAMES_PER_TOKEN, FlowSpec
from engines.s3gen.cache.attention import KVView
from engines.s3gen.cache.kv import KVBlock, KVCache
from engines.s3gen.nets.layers import MASKED_SCORE


class StaticKeys:
    """Memory for the cached keys and values of `rows` rows."""

    def __init__(self, spec: FlowSpec, rows: int, prompt_tokens: int, context_tokens: int, like: Tensor) -> None:
        assert spec.lanes == 1, "the rows of two lanes do not lie together"
        self._prompt_tokens, self._context_tokens = prompt_tokens, context_tokens
        self.tokens = prompt_tokens + context_tokens
        self.store = KVBlock.empty(spec, self.tokens, like, rows)
        for part in (self.store.lower, self.store.upper, self.store.steps):
            part.zero_()  # what is masked must be finite
        self._prompts: list[KVBlock | None] = [None] * rows  # those in `store.steps`
        self._staged_lengths = staging_memory((rows, 2), torch.int64, like.device)
        self.lengths = torch.zeros((rows, 2), dtype=torch.int64, device=like.device)  # tokens of prompt and of context
        self.prompts_copied = 0

    @property
    def nbytes(self) -> int:
        """Of the memory."""
        return self.store.nbytes

    def put(self, row: int, prompt: KVBlock, context: KVCache) -> None:
        """Copy a stream's keys and values into a row."""
        stop = self.tokens
        for part in [prompt, *context.blocks()][::-1]:  # the encoder's, in order, up to the end
            start = stop - part.tokens
            frames = slice(start * MEL_FRAMES_PER_TOKEN, stop * MEL_FRAMES_PER_TOKEN)
            self.store.lower[:, row, start:stop].copy_(part.lower)
            self.store.upper[:, row, frames].copy_(part.upper)
            stop = start
        if self._prompts[row] is not prompt:
            self.store.lanes(row)[..., : prompt.tokens * MEL_FRAMES_PER_TOKEN, :].copy_(prompt.steps)
            self._prompts[row] = prompt  # held, so that its identity stays its own
            self.prompts_copied += 1
        first = self._prompt_tokens * MEL_FRAMES_PER_TOKEN
        held = context.unordered()
        self.store.lanes(row)[..., first : first + held.shape[-2], :].copy_(held)
        self._staged_lengths.numpy()[row] = prompt.tokens, context.tokens

    def set_lengths(self) -> None:
        """Send the rows' lengths to the device."""
        send(self.lengths, self._staged_lengths)

    def rows(self, count: int) -> StaticRows:
        """The first rows, as cached_flow.CachedKeys."""
        return StaticRows(self, count)

    def visible_in_order(self, count: int, factor: int) -> Tensor:
        """(count, factor x tokens) bool: the encoder's keys, of which a row's last ones are its own."""
        places = torch.arange(self.tokens * factor, device=self.lengths.device)
        hidden = (self.tokens - self.lengths[:count].sum(1, keepdim=True)) * factor
        return places >= hidden

    def visible_by_place(self, count: int) -> Tensor:
        """(count, frames) bool: the CFM's keys, prompt and context from the beginning of their places."""
        device, lengths = self.lengths.device, self.lengths[:count] * MEL_FRAMES_PER_TOKEN
        prompt = torch.arange(self._prompt_tokens * MEL_FRAMES_PER_TOKEN, device=device) < lengths[:, :1]
        context = torch.arange(self._context_tokens * MEL_FRAMES_PER_TOKEN, device=device) < lengths[:, 1:]
        return torch.cat([prompt, context], dim=1)


class StaticRows:
    """The first `count` rows of a StaticKeys, as cached_flow.CachedKeys."""

    def __init__(self, keys: StaticKeys, count: int) -> None:
        self._keys, self._count = keys, count

    def lower(self, block: Tensor) -> KVView:
        """As CachedKeys.lower."""
        visible = self._keys.visible_in_order(self._count, 1)
        return StaticKVView(self._keys.store.lower[:, : self._count], block, visible)

    def upper(self, block: Tensor) -> KVView:
        """As CachedKeys.upper."""
        visible = self._keys.visible_in_order(self._count, MEL_FRAMES_PER_TOKEN)
        return StaticKVView(self._keys.store.upper[:, : self._count], block, visible)

    def step(self, index: int, block: Tensor) -> KVView:
        """As CachedKeys.step."""
        visible = self._keys.visible_by_place(self._count)
        return StaticKVView(self._keys.store.steps[index, :, : self._count], block, visible)


class StaticKVView:
    """A KVView over fixed memory: as many cached keys in every row, those that it does not have masked."""

    def __init__(self, cached: Tensor, block: Tensor, visible: Tensor) -> None:
        """`cached` (layers, B, t, 2w), `block` (layers, B, M, 2w), `visible` (B, t)."""
        self.longest = cached.shape[2]
        self._cached, self._block, self._visible = cached, block, visible
        self._layer = 0

    def extend(self, keys: Tensor, values: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """As KVView.extend."""
        cached, block = self._cached[self._layer], self._block[self._layer]
        self._layer += 1
        block.copy_(torch.cat([keys, values], -1))
        both = torch.cat([cached, block], dim=1).view(block.shape[0], self.longest + block.shape[1], 2 * heads, -1)
        keys, values = both.transpose(1, 2).chunk(2, dim=1)
        return keys, values

    def bias(self, block_lengths: Tensor | None, frames: int, dtype: torch.dtype) -> Tensor | None:
        """As KVView.bias."""
        assert block_lengths is not None, "rows of a captured call have lengths"
        own = torch.arange(frames, device=block_lengths.device) < block_lengths.unsqueeze(1)
        hidden = torch.cat([self._visible, own], dim=1).logical_not()
        return hidden.to(dtype).unsqueeze(1).unsqueeze(1) * MASKED_SCORE
