"""safetensors files without a model library: headers read alone, tensors written one after the other.

Knows the format (https://github.com/huggingface/safetensors#format) and nothing of what is in the tensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from engines.errors import CheckpointError

_LENGTH_BYTES = 8  # little-endian length of the JSON header that follows
_RESERVED_BYTES = 1 << 20  # for the header of a file whose tensors are not known before they are written
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit

_DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "float16": "F16", "float32": "F32", "float64": "F64",
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """One entry of a header; `dtype` in the format's words, e.g. "F32"."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: Path) -> dict[str, TensorInfo]:
    """What tensors the file holds; reads its first bytes only.

    Raises CheckpointError when the file is not there, is not a safetensors file, or is shorter or longer than its
    header says (a broken-off download).
    """
    try:
        with path.open("rb") as file:
            header, data_start = _parse(file)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        data_bytes = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        infos = {name: TensorInfo(entry["dtype"], tuple(entry["shape"])) for name, entry in entries.items()}
        found = path.stat().st_size
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CheckpointError(f"{path}: not a safetensors file ({error})") from error
    if found != data_start + data_bytes:
        raise CheckpointError(
            f"{path}: has {found} bytes, its header says {data_start + data_bytes}; download it again"
        )
    return infos


def _parse(file: BinaryIO) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if not 2 <= length <= _MAX_HEADER_BYTES:
        raise ValueError(f"header of {length} bytes")
    return json.loads(file.read(length)), _LENGTH_BYTES + length


def write_tensors(path: Path, tensors: Iterable[tuple[str, npt.NDArray[Any]]]) -> None:
    """Write `tensors` in their order, holding one at a time; the file is on the disk when this returns.

    The header's place is kept free at the start and filled in at the end, padded with spaces as the format allows.
    Raises ValueError for a name given twice, a dtype the format lacks, or more names than the header has room for.
    """
    header: dict[str, dict[str, Any]] = {}
    with path.open("wb") as file:
        file.seek(_LENGTH_BYTES + _RESERVED_BYTES)
        offset = 0
        for name, tensor in tensors:
            if name in header:
                raise ValueError(f"tensor {name} was given twice")
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
            f"{len(header)} tensors need a header of {len(text)} bytes, there is room for {_RESERVED_BYTES}"
        )
    file.seek(0)
    file.write(_RESERVED_BYTES.to_bytes(_LENGTH_BYTES, "little"))
    file.write(text.ljust(_RESERVED_BYTES))
