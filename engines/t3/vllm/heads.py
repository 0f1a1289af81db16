"""Attention heads of sizes that vLLM's kernels do not have: filled up with zeros to the next size that they have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

# vLLM 0.9.2's FlashAttention on GPUs and its paged attention on CPUs both have these
_KERNEL_HEAD_SIZES = (32, 64, 96, 128, 192, 256)


def kernel_head_size(head_size: int) -> int:
    """Returns the head size that the kernels run. Raises ValueError for a head of more than 256 channels."""
    for size in _KERNEL_HEAD_SIZES:
        if size >= head_size:
            return size
    raise ValueError(f"vLLM's attention has no heads of {head_size} channels; at most {_KERNEL_HEAD_SIZES[-1]}.")


@contextmanager
def padded_heads(head_size: int) -> Iterator[None]:
    """Within it, vLLM's GPT-2 makes attention that pads its heads, if `head_size` is not one of the kernels'."""
    from vllm.model_executor.models import gpt2

    original = gpt2.Attention
    if kernel_head_size(head_size) != head_size:
        gpt2.Attention = _PaddedAttention
    try:
        yield
    finally:
        gpt2.Attention = original


class _PaddedAttention(nn.Module):
    """vLLM's attention on padded heads. Zeros change neither scores nor the values that are kept."""

    def __init__(self, num_heads: int, head_size: int, scale: float, **options: Any) -> None:
        from vllm.attention import Attention

        super().__init__()
        self._head_size, self._padded_size = head_size, kernel_head_size(head_size)
        self.padded = Attention(num_heads, self._padded_size, scale=scale, **options)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(n, heads x head size) each -> the same."""
        out: Tensor = self.padded(self._pad(query), self._pad(key), self._pad(value))
        kept = out.view(*out.shape[:-1], -1, self._padded_size)[..., : self._head_size]
        return kept.flatten(-2)

    def _pad(self, heads: Tensor) -> Tensor:
        spare = self._padded_size - self._head_size
        return F.pad(heads.reshape(*heads.shape[:-1], -1, self._head_size), (0, spare)).flatten(-2)
