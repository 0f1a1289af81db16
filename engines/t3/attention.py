"""How the rows of a step attend to their sequences: the compiled kernel for single rows on a CPU, else torch.

Each row attends to exactly its own sequence's positions: there is no padding, and no row sees another sequence's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from engines.kernels.attention import CachedSequence, StepAttention, attention_width
from engines.kernels.library import T3
from engines.t3.kv_cache import KvSlot
from engines.t3.net import Slot, Span


class CacheSlot(Slot, Protocol):
    """A slot that a net on torch writes keys and values to; see KvSlot."""

    def write(self, layer: int, start: int, rows: Tensor) -> tuple[Tensor, Tensor]: ...


# (layer, qkv (R, 3, heads, dim)) -> the attention's results (n, width) in parts; rows of padding get none
Attend = Callable[[int, Tensor], Sequence[Tensor]]


def attention_of(spans: Sequence[Span[Any]], device: torch.device, dtype: torch.dtype) -> Attend:
    """The attention of one step's spans. Those of one row come first, as in every step."""
    single = next((i for i, span in enumerate(spans) if span.rows > 1), len(spans))
    step = step_attention(spans[:single], dtype)
    if step is None:
        return _attend_to_spans(spans, [causal_mask(span, device, dtype) for span in spans])
    return _attend_to_rows(spans[:single], step, attention_of(spans[single:], device, dtype))


def step_attention(spans: Sequence[Span[Any]], dtype: torch.dtype) -> StepAttention | None:
    """The compiled attention of spans of one row of `dtype` each; None if it cannot be used."""
    slots = [span.slot for span in spans if isinstance(span.slot, KvSlot) and span.rows == 1]
    width = _simd_width(slots[0].memory, dtype) if slots and len(slots) == len(spans) else None
    if width is None or any(span.tap is not None and span.tap.constrains for span in spans):
        return None
    memory = slots[0].memory
    sequences = [_cached_sequence(slot, span.start) for slot, span in zip(slots, spans, strict=True)]
    half, threads = memory.dtype == torch.float16, torch.get_num_threads()
    return StepAttention(sequences, memory.shape[2], memory.shape[4], threads, T3, width, half=half)


def _simd_width(memory: Tensor, dtype: torch.dtype) -> int | None:
    """That of the kernel for this cache and rows of `dtype`; None if it cannot be used."""
    if memory.device.type != "cpu" or dtype != torch.float32 or memory.dtype not in (torch.float32, torch.float16):
        return None
    return attention_width(memory.shape[4], half=memory.dtype == torch.float16)


def take_queries(spans: Sequence[Span[Any]], layer: int, qkv: Tensor) -> None:
    """Give the taps of spans of one row each the queries among qkv (rows, 3, heads, dim) of a layer."""
    for i, span in enumerate(spans):
        if span.tap is not None:
            span.tap.take(layer, qkv[i : i + 1, 0], span.start + 1)


def _attend_to_rows(spans: Sequence[Span[Any]], step: StepAttention, others: Attend) -> Attend:
    """One row each, on the compiled kernel; `others` is that of the rows behind them."""

    def attend(layer: int, qkv: Tensor) -> list[Tensor]:
        rows = qkv[: len(spans)].contiguous()
        take_queries(spans, layer, rows)
        out = rows.new_empty((len(spans), step.heads * step.dim))
        step.run(layer, rows.data_ptr(), out.data_ptr())
        return [out, *others(layer, qkv[len(spans) :])]

    return attend


def _cached_sequence(slot: KvSlot, positions: int) -> CachedSequence:
    slot.forget_prefix_from(positions)
    address, prefix = slot.memory.data_ptr(), slot.prefix
    if prefix is None:
        return CachedSequence(address, slot.capacity, positions)
    return CachedSequence(address, slot.capacity, positions, prefix.data_ptr(), prefix.shape[3])


def _attend_to_spans(spans: Sequence[Span[CacheSlot]], masks: Sequence[Tensor | None]) -> Attend:
    def attend(layer: int, qkv: Tensor) -> list[Tensor]:
        outputs = []
        first = 0
        for span, mask in zip(spans, masks, strict=True):
            rows = qkv[first : first + span.rows]
            keys, values = span.slot.write(layer, span.start, rows[:, 1:])
            constraint = None if span.tap is None else span.tap.take(layer, rows[:, 0], span.start + span.rows)
            query = rows[:, 0].transpose(0, 1).unsqueeze(0)  # (1, heads, n, dim)
            added = mask if constraint is None else constraint
            mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=added)
            outputs.append(mixed.transpose(1, 2).reshape(span.rows, -1))
            first += span.rows
        return outputs

    return attend


def causal_mask(span: Span[CacheSlot], device: torch.device, dtype: torch.dtype) -> Tensor | None:
    """The mask that SDPA adds to the scores, (rows, start + rows): row i sees positions up to start + i. None: all."""
    if span.rows == 1:
        return None
    hidden = torch.full((span.rows, span.start + span.rows), float("-inf"), device=device, dtype=dtype)
    return hidden.triu_(span.start + 1)
