"""A vocoder's residual blocks on compiled kernels.

Every compiled block is compared with the one that it replaces first, as any runtime is before it serves.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from engines.kernels.library import MISSING, disagreement, simd_widths
from engines.kernels.resblocks import Block, Convolution, computable
from engines.s3gen.nets.vocoder import DILATIONS, KERNELS, ResBlock, Vocoder

_TRIAL_FRAMES = 53  # several tiles of every kind and dilation, and an end within one


def compile_residual_blocks(vocoder: Vocoder) -> str | None:
    """Replace the residual blocks of a float32 vocoder on the CPU by compiled ones.

    If they are not installed, do not fit or compute something else, nothing changes and the reason is returned.
    """
    made: list[list[Block]] = []
    for stage in range(len(vocoder.ups)):
        made.append([])
        for block in _blocks(vocoder, stage):
            replacement = _replacement(block)
            if isinstance(replacement, str):
                return replacement
            made[-1].append(replacement)
    vocoder.compiled_impl = TiledStages(made)
    vocoder.source_resblocks, vocoder.resblocks = nn.ModuleList(), nn.ModuleList()
    return None


class TiledStages:
    """The vocoder.StageBlocks of all stages: for each the source's block and those of the sum."""

    def __init__(self, stages: list[list[Block]]) -> None:
        self._stages = stages

    def __call__(self, stage: int, x: Tensor, excited: Tensor, mask: Tensor | None) -> Tensor:
        """As vocoder.StageBlocks. Rows are computed one by one, each to its own end; the pad is zero."""
        lengths = [x.shape[2]] * len(x) if mask is None else mask.sum((1, 2)).long().tolist()
        out = torch.zeros_like(x)
        for row, length in enumerate(lengths):
            out[row, :, :length] = self._row(stage, x[row, :, :length], excited[row, :, :length])
        return out

    def _row(self, stage: int, x: Tensor, excited: Tensor) -> Tensor:
        source, *blocks = self._stages[stage]
        x = x.T.clone(memory_format=torch.contiguous_format)  # (T, C), to be added to
        work = x.new_empty(max(block.work_floats(len(x)) for block in (source, *blocks)))
        _add(source, excited.T.contiguous(), x, work)
        total = torch.zeros_like(x)
        for block in blocks:
            _add(block, x, total, work)
        return total.T


def _add(block: Block, x: Tensor, total: Tensor, work: Tensor) -> None:
    block.add(x.data_ptr(), total.data_ptr(), work.data_ptr(), len(x))


def _blocks(vocoder: Vocoder, stage: int) -> list[ResBlock]:
    """The source's, then those of the sum."""
    of_sum = vocoder.resblocks[stage * len(KERNELS) : (stage + 1) * len(KERNELS)]
    return [cast(ResBlock, block) for block in (vocoder.source_resblocks[stage], *of_sum.children())]


def _replacement(block: ResBlock) -> Block | str:
    """The compiled block, or why there is none."""
    channels, _, taps = cast(nn.Conv1d, block.convs1[0]).weight.shape
    if not simd_widths():
        return MISSING
    if not computable(channels, taps):
        return f"there are no compiled residual blocks of {channels} channels and {taps} taps"
    made = compiled(block, torch.get_num_threads())
    return disagreement("residual blocks", _error(made, block, channels)) or made


def compiled(block: ResBlock, threads: int, simd_width: int | None = None) -> Block:
    """Raises ValueError as Block does."""
    arrays = {name: tensor.numpy() for name, tensor in block.state_dict().items()}
    layers = []
    for i, dilation in enumerate(DILATIONS):
        alpha = arrays[f"activations1.{i}.alpha"]
        for convs, reach, factor in (("convs1", dilation, alpha), ("convs2", 1, None)):
            layers.append(Convolution(arrays[f"{convs}.{i}.weight"], arrays[f"{convs}.{i}.bias"], reach, factor))
    return Block(layers, threads, simd_width)


def _error(made: Block, block: ResBlock, channels: int) -> float:
    x = torch.randn(_TRIAL_FRAMES, channels, generator=torch.Generator().manual_seed(0))
    expected = block(x.T[None].contiguous(), None)[0].T
    got = torch.zeros_like(x)
    _add(made, x, got, x.new_empty(made.work_floats(len(x))))
    return float((got - expected).abs().max() / expected.std())
