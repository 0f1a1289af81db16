"""Loads tensors from safetensors files, with one error for all missing and misshapen tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from engines.checkpoints.tensor_file import Shape, tensor_problems
from engines.errors import CheckpointError

if TYPE_CHECKING:
    import torch


def load_tensors(path: Path, expected: Mapping[str, Shape], *, prefix: str = "") -> dict[str, torch.Tensor]:
    """Returns the tensors `prefix + name` of the file by name, for each name in `expected`.

    They are views of the memory-mapped file, on the CPU: a tensor is read when it is used, other tensors are never
    read, and the mapping lives as long as its tensors. Floating-point tensors of other types are copied to float32.
    Raises CheckpointError if the file cannot be read, or naming every tensor that is missing, has another shape or
    holds no floating-point numbers; counts, which have no axes, may be integers.
    """
    check_tensors(path, expected, prefix=prefix)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: _as_float32(file.get_tensor(prefix + name)) for name in expected}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def check_tensors(path: Path, expected: Mapping[str, Shape], *, prefix: str = "") -> None:
    """Raises CheckpointError as `load_tensors`; reads the file's header only."""
    problems = tensor_problems(path, {prefix + name: shape for name, shape in expected.items()})
    if problems:
        raise CheckpointError(f"{path}: {len(problems)} of {len(expected)} tensors are wrong: " + "; ".join(problems))


def check_finite(path: Path) -> None:
    """Raises CheckpointError if a weight of the file is NaN or infinite. Reads all of it: for small files."""
    try:
        with safe_open(path, framework="pt") as file:  # numpy has no bfloat16
            names = [name for name in file.keys() if not file.get_tensor(name).isfinite().all()]  # noqa: SIM118
    except (OSError, SafetensorError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
    if names:
        raise CheckpointError(f"{path}: damaged, there is NaN or infinity in {', '.join(names)}; download it again")


def _as_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
