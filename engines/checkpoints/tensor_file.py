"""safetensors files without a model library: reads and checks headers, and writes tensors one by one.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from engines.errors import CheckpointError

_LENGTH_BYTES = 8  # little-endian length of the JSON header that follows
_RESERVED_BYTES = 1 << 20  # for the header of a new file, whose tensors are not known in advance
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit

Shape = tuple[int, ...]

_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip

FLOATING = ("F16", "BF16", "F32", "F64")  # of weights; others are quantised, by scales that stand elsewhere

_DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "float16": "F16", "float32": "F32", "float64": "F64",
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """An entry of a header. `dtype` is the format's name, e.g. "F32"."""

    dtype: str
    shape: Shape


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Returns the file's tensors by name; reads the header only.

    Raises CheckpointError if the file does not exist, is not a safetensors file, has a header that contradicts itself,
    or does not have the size that its header implies (an incomplete download).
    """
    try:
        with path.open("rb") as file:
            header, data_start = _parse(file)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        data_bytes = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        infos = {name: _info(name, entry) for name, entry in entries.items()}
        size_bytes = path.stat().st_size
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error})") from error
    if size_bytes != data_start + data_bytes:
        raise CheckpointError(
            f"{path}: has {size_bytes} bytes, its header says {data_start + data_bytes}; download it again"
        )
    return infos


def _info(name: str, entry: dict[str, Any]) -> TensorInfo:
    """Raises ValueError if the tensor's place in the file does not have the size of its shape and dtype."""
    begin, end = map(int, entry["data_offsets"])
    info = TensorInfo(str(entry["dtype"]), tuple(map(int, entry["shape"])))
    if min(info.shape, default=0) < 0:
        raise ValueError(f"{name} has the shape {list(info.shape)}")
    needed = math.prod(info.shape) * _BYTES.get(info.dtype, 0)
    if not 0 <= begin <= end or (info.dtype in _BYTES and end - begin != needed):
        raise ValueError(f"{name} has {end - begin} bytes, {info.dtype}{list(info.shape)} needs {needed}")
    return info


def tensor_problems(path: Path, expected: Mapping[str, Shape]) -> list[str]:
    """Returns a phrase for each expected tensor that is missing, has another shape, or has axes and no floating-point
    numbers. Raises as `read_header`."""
    infos = read_header(path)
    checks = (_problem(name, shape, infos.get(name)) for name, shape in expected.items())
    return [problem for problem in checks if problem]


def _problem(name: str, shape: Shape, info: TensorInfo | None) -> str:
    if info is None:
        return f"{name} is missing, expected {shape}"
    if info.shape != shape:
        return f"{name} has shape {info.shape}, expected {shape}"
    if shape and info.dtype not in FLOATING:
        return f"{name} has dtype {info.dtype}, expected one of {', '.join(FLOATING)}"
    return ""


def _parse(file: BinaryIO) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if not 2 <= length <= _MAX_HEADER_BYTES:
        raise ValueError(f"header of {length} bytes")
    return json.loads(file.read(length)), _LENGTH_BYTES + length


def write_tensors(path: Path, tensors: Iterable[tuple[str, npt.NDArray[Any]]]) -> None:
    """Write `tensors` in their order, one in memory at a time, and flush the file to the disk.

    Space for the header is reserved at the start and padded with spaces, which the format allows. Raises ValueError
    for a duplicate name, a dtype that the format lacks, or a header larger than the reserved space.
    """
    header: dict[str, dict[str, Any]] = {}
    with path.open("wb") as file:
        file.seek(_LENGTH_BYTES + _RESERVED_BYTES)
        offset = 0
        for name, tensor in tensors:
            if name in header:
                raise ValueError(f"duplicate tensor {name}")
            header[name] = _entry(tensor, offset)
            file.write(np.ascontiguousarray(tensor).data)
            offset += tensor.nbytes
        _write_header(file, header)
        file.flush()
        os.fsync(file.fileno())


def _entry(tensor: npt.NDArray[Any], offset: int) -> dict[str, Any]:
    dtype = tensor.dtype.name if tensor.dtype.isnative else str(tensor.dtype)
    if dtype not in _DTYPES:
        raise ValueError(f"safetensors has no dtype for numpy's {dtype}")
    return {"dtype": _DTYPES[dtype], "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.nbytes]}


def _write_header(file: BinaryIO, header: dict[str, dict[str, Any]]) -> None:
    text = json.dumps(header, separators=(",", ":")).encode()
    if len(text) > _RESERVED_BYTES:
        raise ValueError(
            f"{len(header)} tensors need a header of {len(text)} bytes, but {_RESERVED_BYTES} are reserved"
        )
    file.seek(0)
    file.write(_RESERVED_BYTES.to_bytes(_LENGTH_BYTES, "little"))
    file.write(text.ljust(_RESERVED_BYTES))
