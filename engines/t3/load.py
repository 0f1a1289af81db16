"""Loads T3's net in torch, of either family, with the adapters that are merged into it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from engines.checkpoints.checkpoint import Checkpoint
from engines.checkpoints.tensor_file import Shape
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
    if not spec.is_llama:
        if loras:
            raise unsupported("lora", str(loras[0]), spec.name, "no adapter")
        return T3Net.load(path, spec, device, weights=weights, dtype=dtype, layers=layers)
    adapters = [Lora(folder) for folder in loras]
    return LlamaNet.load(path, spec, device, weights=weights, dtype=dtype, layers=layers, loras=adapters)
