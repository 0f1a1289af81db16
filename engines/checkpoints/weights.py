"""Reads named tensors out of a safetensors file and says everything that is wrong with it at once.

Knows the file format through safetensors alone; knows no net, and where the file came from is checkpoint.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from engines.errors import CheckpointError

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]


def load_tensors(path: Path, expected: Mapping[str, Shape], *, prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors `prefix + name` of the file for every name in `expected`, under their names without the prefix.

    They are views of the memory-mapped file, on the CPU: nothing is read before it is used, other tensors of the
    file are never touched, and one mapping lives until the last of its tensors is gone. Floating-point tensors that
    are not stored as float32 come as float32 copies.
    Raises CheckpointError when the file cannot be read, or naming every tensor that is missing or has another shape.
    """
    with _opened(path) as file:
        _check(path, file, expected, prefix)
        return {name: _as_float32(file.get_tensor(prefix + name)) for name in expected}


def check_tensors(path: Path, expected: Mapping[str, Shape], *, prefix: str = "") -> None:
    """Raises what `load_tensors` would raise, from the file's header alone."""
    with _opened(path) as file:
        _check(path, file, expected, prefix)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def _check(path: Path, file: Any, expected: Mapping[str, Shape], prefix: str) -> None:
    present = set(file.keys())
    problems = [
        problem
        for name, shape in expected.items()
        if (problem := _problem(file, present, prefix + name, shape)) is not None
    ]
    if problems:
        raise CheckpointError(f"{path}: {len(problems)} of {len(expected)} tensors are wrong: " + "; ".join(problems))


def _problem(file: Any, present: set[str], name: str, shape: Shape) -> str | None:
    if name not in present:
        return f"{name} is missing (shape {shape})"
    found = tuple(file.get_slice(name).get_shape())
    return None if found == shape else f"{name} has shape {found}, not {shape}"


def _as_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
