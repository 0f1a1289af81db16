"""GPT-2's blocks for the rows of T3's step on gpt2_blocks.c, in one call. The structures must agree with it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np

from engines.kernels.attention import AttentionCall, StepAttention
from engines.kernels.dense import ADD, GELU, PLAIN, DenseCall, DenseLayer
from engines.kernels.library import F32, library, thread_pool
from engines.kernels.norm import Norm, NormCall


class _Block(ctypes.Structure):
    _fields_ = (
        *((name, NormCall) for name in ("norm_1", "norm_2")),
        *((name, DenseCall) for name in ("qkv", "out_proj", "widen", "narrow")),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        ("blocks", ctypes.POINTER(_Block)),
        ("attention", ctypes.POINTER(AttentionCall)),
        *(
            (name, ctypes.c_void_p)
            for name in ("attention_work", "dense_work", "x", "between", "normal", "attended", "qkv", "hidden")
        ),
        *((name, ctypes.c_int64) for name in ("count", "rows", "qkv_floats")),
        *((name, ctypes.c_int32) for name in ("dense_width", "norm_width", "attention_width", "vnni")),
    )


@dataclass(frozen=True)
class Block:
    """x + out_proj(attention of qkv(norm_1 x)), then x + narrow(GELU(widen(norm_2 x))), GELU in the tanh form."""

    norm_1: Norm
    qkv: DenseLayer
    out_proj: DenseLayer
    norm_2: Norm
    widen: DenseLayer
    narrow: DenseLayer

    @property
    def layers(self) -> tuple[DenseLayer, ...]:
        return self.qkv, self.out_proj, self.widen, self.narrow


def computable(blocks: Sequence[Block]) -> bool:
    """Whether there are such blocks, all of one size: dense layers without unused columns, of one pool and instruction
    set."""
    layers = [layer for block in blocks for layer in block.layers]
    kinds = {(layer.simd_width, layer.vnni, layer.threads, layer.pool) for layer in layers}
    norms = {norm.simd_width for block in blocks for norm in (block.norm_1, block.norm_2)}
    sizes = {tuple((layer.depth, layer.width) for layer in block.layers) for block in blocks}
    return len(kinds) == len(norms) == len(sizes) == 1 and all(layer.width == layer.outputs for layer in layers)


class Gpt2Blocks:
    """All blocks of a net. They must be `computable`."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        assert computable(blocks)
        self._kept = blocks  # what the structures point to
        self._blocks = (_Block * len(blocks))(
            *(
                _Block(
                    block.norm_1.call(),
                    block.norm_2.call(),
                    block.qkv.call(PLAIN),
                    block.out_proj.call(ADD),
                    block.widen.call(GELU),
                    block.narrow.call(ADD),
                )
                for block in blocks
            )
        )

    def fit(self, attention: StepAttention) -> bool:
        """Whether they run with this attention, on as many threads."""
        return attention.threads == self._kept[0].qkv.threads

    def run(self, x: F32, attention: StepAttention, *, keep_qkv: bool) -> F32:
        """x (rows, width), which the result replaces -> queries, keys and values, (layers, rows, 3, heads, dim) if they
        are kept, else those of the last layer alone (1, rows, 3, heads, dim)."""
        first, (rows, width), layers = self._kept[0], x.shape, len(self._kept)
        qkv = np.empty((layers if keep_qkv else 1, rows, 3, attention.heads, attention.dim), np.float32)
        between, normal, attended = np.empty((3, rows, width), np.float32)
        hidden = np.empty((rows, first.widen.width), np.float32)
        work = np.empty(max(layer.work_floats(rows) for layer in first.layers), np.float32)
        call = attention.call()
        arrays = (array.ctypes.data for array in (work, x, between, normal, attended, qkv, hidden))
        step = _Step(
            self._blocks, ctypes.pointer(call), attention.work, *arrays,
            layers, rows, qkv[0].size if keep_qkv else 0,
            first.qkv.simd_width, first.norm_1.simd_width, attention.simd_width, first.qkv.vnni,
        )  # fmt: skip
        _function()(thread_pool(first.qkv.threads, first.qkv.pool), ctypes.byref(step))
        return qkv


@cache
def _function() -> Callable[..., None]:
    """mynah_gpt2_blocks."""
    functions = library()
    assert functions is not None
    run = functions.mynah_gpt2_blocks
    run.restype, run.argtypes = None, [ctypes.c_void_p, ctypes.POINTER(_Step)]
    return cast(Callable[..., None], run)
