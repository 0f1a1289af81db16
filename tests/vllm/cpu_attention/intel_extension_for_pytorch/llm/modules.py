"""Paged attention in plain torch: what vLLM 0.9.2's V1 engine calls on a CPU. Exact, and slow for all the copying.

Caches are (blocks, heads, block size, head dim); a block table lists a sequence's blocks in order.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor


class PagedAttention:
    """The three functions that vLLM calls, with its signatures."""

    @staticmethod
    def reshape_and_cache(
        key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slot_mapping: Tensor
    ) -> None:
        """Write rows (n, heads, dim) to their slots; slot s is place s % block size of block s // block size."""
        block_size = key_cache.shape[2]
        block, place = slot_mapping // block_size, slot_mapping % block_size
        key_cache[block, :, place] = key
        value_cache[block, :, place] = value

    @staticmethod
    def single_query_cached_kv_attention(
        output: Tensor, query: Tensor, key_cache: Tensor, value_cache: Tensor, head_mapping: Tensor, scale: float,
        block_tables: Tensor, context_lens: Tensor, block_size: int, max_context_len: int, alibi_slopes: None,
    ) -> None:  # fmt: skip
        """Decode: row i of query (n, heads, dim) sees the context_lens[i] positions of its sequence."""
        rows = query.shape[0]
        longest = int(context_lens[:rows].max())
        keys, values = (_gather(cache, block_tables[:rows], longest) for cache in (key_cache, value_cache))
        visible = torch.arange(longest) < context_lens[:rows, None]  # (n, longest)
        mixed = F.scaled_dot_product_attention(
            query.unsqueeze(2), keys, values, attn_mask=visible[:, None, None], scale=scale
        )
        output.copy_(mixed[:, :, 0])

    @staticmethod
    def flash_attn_varlen_func(
        output: Tensor, query: Tensor, key_cache: Tensor, value_cache: Tensor, query_starts: Tensor, kv_starts: Tensor,
        max_query_len: int, max_kv_len: int, scale: float, causal: bool, block_tables: Tensor, alibi_slopes: None,
    ) -> None:  # fmt: skip
        """Prefill: the rows of sequence i are the last ones of its kv_starts[i + 1] - kv_starts[i] positions."""
        assert causal
        bounds = query_starts.tolist()
        lengths = kv_starts.diff().tolist()
        for sequence, (first, last) in enumerate(pairwise(bounds)):
            positions = lengths[sequence]
            table = block_tables[sequence : sequence + 1]
            keys, values = (_gather(cache, table, positions) for cache in (key_cache, value_cache))
            visible = torch.ones(last - first, positions, dtype=torch.bool).tril(positions - (last - first))
            rows = query[None, first:last].transpose(1, 2)
            mixed = F.scaled_dot_product_attention(rows, keys, values, attn_mask=visible, scale=scale)
            output[first:last] = mixed[0].transpose(0, 1)


def _gather(cache: Tensor, block_tables: Tensor, positions: int) -> Tensor:
    """The first `positions` of each sequence, (n, heads, positions, dim); anything where a sequence has ended."""
    _, heads, block_size, dim = cache.shape
    tables = block_tables[:, : -(-positions // block_size)]
    blocks = cache.index_select(0, tables.flatten())  # (n x blocks, heads, block size, dim)
    spread = blocks.view(len(tables), -1, heads, block_size, dim).transpose(1, 2)
    return spread.reshape(len(tables), heads, -1, dim)[:, :, :positions]
