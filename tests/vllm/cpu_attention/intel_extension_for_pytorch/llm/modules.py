"""Paged attention for vLLM 0.9.2's V1 engine on a CPU: vLLM's own kernels write and decode, prefill is plain torch.

vLLM hands its raw cache over in this package's shape, (blocks, heads, block size, head dim). Its own kernels, which it
leaves aside when this package is there, lay the same memory out differently; here it is always seen in their way:
keys (blocks, heads, head dim / x, block size, x) with x values to 16 bytes,
values (blocks, heads, head dim, block size).
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

_UNIT = torch.ones(1)  # scale of a cache that is not quantized


class PagedAttention:
    """The three functions that vLLM calls, with its signatures."""

    @staticmethod
    def reshape_and_cache(
        key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slot_mapping: Tensor
    ) -> None:
        """Write rows (n, heads, dim) to their slots; slot s is place s % block size of block s // block size."""
        caches = _keys(key_cache), _values(value_cache)
        torch.ops._C_cache_ops.reshape_and_cache(key, value, *caches, slot_mapping.long(), "auto", _UNIT, _UNIT)

    @staticmethod
    def single_query_cached_kv_attention(
        output: Tensor, query: Tensor, key_cache: Tensor, value_cache: Tensor, head_mapping: Tensor, scale: float,
        block_tables: Tensor, context_lens: Tensor, block_size: int, max_context_len: int, alibi_slopes: None,
    ) -> None:  # fmt: skip
        """Decode: row i of query (n, heads, dim) sees the context_lens[i] positions of its sequence."""
        torch.ops._C.paged_attention_v1(
            output, query, _keys(key_cache), _values(value_cache), query.shape[1], scale, block_tables, context_lens,
            block_size, max_context_len, alibi_slopes, "auto", _UNIT, _UNIT, 0, 0, 0, 64, 0,
        )  # fmt: skip

    @staticmethod
    def flash_attn_varlen_func(
        output: Tensor, query: Tensor, key_cache: Tensor, value_cache: Tensor, query_starts: Tensor, kv_starts: Tensor,
        max_query_len: int, max_kv_len: int, scale: float, causal: bool, block_tables: Tensor, alibi_slopes: None,
    ) -> None:  # fmt: skip
        """Prefill: the rows of sequence i are the last ones of its kv_starts[i + 1] - kv_starts[i] positions."""
        assert causal
        keys, values = _keys(key_cache), _values(value_cache)
        lengths = kv_starts.diff().tolist()
        for sequence, (first, last) in enumerate(pairwise(query_starts.tolist())):
            positions = lengths[sequence]
            blocks = block_tables[sequence, : -(-positions // key_cache.shape[2])].long()
            read = keys[blocks].permute(1, 0, 3, 2, 4).flatten(3).flatten(1, 2)[:, :positions]  # (heads, n, dim)
            mixed_in = values[blocks].permute(1, 0, 3, 2).flatten(1, 2)[:, :positions]
            visible = torch.ones(last - first, positions, dtype=torch.bool).tril(positions - (last - first))
            rows = query[first:last].transpose(0, 1)
            mixed = F.scaled_dot_product_attention(rows, read, mixed_in, attn_mask=visible, scale=scale)
            output[first:last] = mixed.transpose(0, 1)


def _keys(cache: Tensor) -> Tensor:
    blocks, heads, block_size, dim = cache.shape
    x = 16 // cache.element_size()
    return cache.view(blocks, heads, dim // x, block_size, x)


def _values(cache: Tensor) -> Tensor:
    blocks, heads, block_size, dim = cache.shape
    return cache.view(blocks, heads, dim, block_size)
