"""The loading of the vocoder's weights: upstream's weight norms and constant factors are multiplied out once.

The file has torch's weight-norm parametrization. The factors of a Snake activation go to the layers around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from engines.checkpoints.weights import load_tensors
from engines.model_spec import ModelSpec
from engines.s3gen.nets.vocoder import ResBlock, Vocoder

PREFIX = "mel2wav."  # of its tensors in S3Gen's file
GAIN, DIRECTION = "parametrizations.weight.original0", "parametrizations.weight.original1"
_BLOCKS_PER_STAGE = 3
# 1 / a must be finite; a Snake of a smaller factor differs from one of this factor by less than 1e-6 x^2.
_MIN_ALPHA = 1e-6
Shape = tuple[int, ...]


def expected_tensors(spec: ModelSpec) -> dict[str, Shape]:
    """Every tensor under `PREFIX` and its shape."""
    with torch.device("meta"):
        vocoder = Vocoder(spec.vocoder)
    normed = {f"{name}.weight" for name, _ in _weight_normed(vocoder)}
    shapes: dict[str, Shape] = {}
    for name, tensor in vocoder.state_dict().items():
        shape = tuple(tensor.shape)
        if name in normed:
            stem = name.removesuffix("weight")
            shapes |= {stem + GAIN: (shape[0], 1, 1), stem + DIRECTION: shape}
        else:
            shapes[name] = shape
        if ".activations1." in name:
            shapes[name.replace(".activations1.", ".activations2.")] = shape
    return shapes


def load_vocoder(path: Path, spec: ModelSpec) -> Vocoder:
    """The vocoder with the weights of upstream's file. Raises CheckpointError as `load_tensors`."""
    tensors = load_tensors(path, expected_tensors(spec), prefix=PREFIX)
    with torch.device("meta"):
        vocoder = Vocoder(spec.vocoder)
    for name, _ in _weight_normed(vocoder):
        tensors[f"{name}.weight"] = _weight(tensors.pop(f"{name}.{GAIN}"), tensors.pop(f"{name}.{DIRECTION}"))
    _fold(vocoder, tensors)
    for name in tensors:
        tensors[name] = tensors[name].clone()  # a tensor that was not folded would keep the whole file mapped
    vocoder.load_state_dict(tensors, assign=True)
    return vocoder.eval().requires_grad_(False)


def _weight_normed(vocoder: Vocoder) -> Iterator[tuple[str, nn.Module]]:
    for name, module in vocoder.named_modules():
        plain = name.startswith("source_downs.")
        if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and not plain:
            yield name, module


def _weight(gain: Tensor, direction: Tensor) -> Tensor:
    """Weight norm over all dimensions but the first (https://arxiv.org/abs/1602.07868)."""
    norm: Tensor = torch.linalg.vector_norm(direction, dim=(1, 2), keepdim=True)
    return gain * (direction / norm)


def _fold(vocoder: Vocoder, tensors: dict[str, Tensor]) -> None:
    for name, module in vocoder.named_modules():
        if isinstance(module, ResBlock):
            for i in range(len(module.convs1)):
                _fold_pair(tensors, name, i)
    for name in (*(f"ups.{i}" for i in range(1, len(vocoder.ups))), "conv_post"):
        # the mean of the three residual blocks before it; the leaky ReLU between them commutes with a positive factor
        tensors[f"{name}.weight"] = tensors[f"{name}.weight"] / _BLOCKS_PER_STAGE


def _fold_pair(tensors: dict[str, Tensor], block: str, i: int) -> None:
    """x + sin^2(a x) / a = (w + sin^2(w)) / a with w = a x: 1 / a goes to the convolution behind each Snake, and the
    second Snake's a to the convolution before it.
    """
    first, second = f"{block}.convs1.{i}", f"{block}.convs2.{i}"
    alpha1 = _away_from_zero(tensors[f"{block}.activations1.{i}.alpha"])
    alpha2 = _away_from_zero(tensors.pop(f"{block}.activations2.{i}.alpha"))
    tensors[f"{block}.activations1.{i}.alpha"] = alpha1
    tensors[f"{first}.weight"] = tensors[f"{first}.weight"] * (alpha2[:, None, None] / alpha1[None, :, None])
    tensors[f"{first}.bias"] = tensors[f"{first}.bias"] * alpha2
    tensors[f"{second}.weight"] = tensors[f"{second}.weight"] / alpha2[None, :, None]


def _away_from_zero(alpha: Tensor) -> Tensor:
    sign = torch.where(alpha < 0, -1.0, 1.0)
    return torch.where(alpha.abs() < _MIN_ALPHA, sign * _MIN_ALPHA, alpha)
