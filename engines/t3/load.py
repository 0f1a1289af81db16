"""Loads T3's net in torch, of either family, with the adapters that are merged into it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from engines.checkpoints.checkpoint import Checkpoint
from engines.checkpoints.tensor_file import Shape
from engines.checkpoints.weights import check_tensors
from engines.errors import unsupported
from engines.kernels.dense import WeightFormat
from engines.model_spec import ModelSpec
from engines.t3 import model
from engines.t3.llama import weights as llama_weights
from engines.t3.llama.lora import Lora
from engines.t3.llama.net import LlamaNet
from engines.t3.model import T3Net

TorchNet = T3Net | LlamaNet


def expected_tensors(spec: ModelSpec) -> dict[str, Shape]:
    """Names and shapes of the tensors that inference needs from T3's file."""
    return llama_weights.expected_tensors(spec) if spec.is_llama else model.expected_tensors(spec)


def net_without_weights(spec: ModelSpec) -> TorchNet:
    """As T3Net.without_weights, of either family."""
    return LlamaNet.without_weights(spec) if spec.is_llama else T3Net.without_weights(spec)


def check_weights(checkpoint: Checkpoint, loras: Sequence[Path] = ()) -> None:
    """Check T3's file, and adapters that will be merged, without loading them. Raises as `load_net`."""
    expected = expected_tensors(checkpoint.spec)
    check_tensors(checkpoint.t3_path, expected)
    for adapter in _adapters(checkpoint, loras):
        adapter.check(expected)


def load_net(
    checkpoint: Checkpoint,
    device: torch.device | str,
    *,
    weights: WeightFormat = "float32",
    dtype: torch.dtype = torch.float32,
    layers: int | None = None,
    loras: Sequence[Path] = (),
) -> TorchNet:
    """T3 of a checkpoint; see T3Net.load. `loras` are folders of adapters.

    Raises CheckpointError naming every tensor that is missing or misshapen, of an adapter too, and InvalidInput for
    adapters of a model that takes none.
    """
    path, spec = checkpoint.t3_path, checkpoint.spec
    adapters = _adapters(checkpoint, loras)
    if not spec.is_llama:
        return T3Net.load(path, spec, device, weights=weights, dtype=dtype, layers=layers)
    return LlamaNet.load(path, spec, device, weights=weights, dtype=dtype, layers=layers, loras=adapters)


def _adapters(checkpoint: Checkpoint, loras: Sequence[Path]) -> list[Lora]:
    if loras and not checkpoint.spec.is_llama:
        raise unsupported("lora", str(loras[0]), checkpoint.spec.name, "no adapter")
    return [Lora(folder) for folder in loras]
