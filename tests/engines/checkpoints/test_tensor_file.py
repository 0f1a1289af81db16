"""Tests of safetensors files: the library reads what we write, and broken files are refused."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from engines.checkpoints.tensor_file import TensorInfo, read_header, write_tensors
from engines.errors import CheckpointError

Named = tuple[str, npt.NDArray[Any]]


def some_tensors() -> list[Named]:
    draw = np.random.default_rng(0)
    return [
        ("b.weight", draw.standard_normal((3, 5), np.float32)),
        ("a.half", draw.standard_normal(7).astype(np.float16)),
        ("scalar", np.array(4, np.int64)),
        ("empty", np.zeros((0, 3), np.float32)),
        ("turned", np.arange(6, dtype=np.int32).reshape(2, 3).T),
        ("flags", np.array([True, False])),
    ]


def test_the_library_reads_our_files(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x.safetensors", some_tensors())
    loaded = load_file(tmp_path / "x.safetensors")
    assert loaded.keys() == {name for name, _ in some_tensors()}
    for name, tensor in some_tensors():
        assert loaded[name].dtype == tensor.dtype
        np.testing.assert_array_equal(loaded[name], tensor)


def test_headers_are_read_from_our_files_and_the_librarys(tmp_path: Path) -> None:
    write_tensors(tmp_path / "ours.safetensors", some_tensors())
    save_file(dict(some_tensors()), tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    ours, theirs = read_header(tmp_path / "ours.safetensors"), read_header(tmp_path / "theirs.safetensors")
    assert ours == theirs
    assert ours["b.weight"] == TensorInfo("F32", (3, 5))
    assert ours["scalar"] == TensorInfo("I64", ())


def test_writing_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    def stream() -> Iterator[Named]:
        for i in range(20):
            yield f"t{i}", np.zeros(1_000_000, np.float32)  # 4 MB each

    tracemalloc.start()
    write_tensors(tmp_path / "x.safetensors", stream())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12_000_000
    assert len(read_header(tmp_path / "x.safetensors")) == 20


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([("a", np.zeros(1)), ("a", np.zeros(1))], "duplicate tensor a"),
        ([("a", np.zeros(1, np.complex64))], "complex64"),
        ([("a" * 2**20, np.zeros(1))], "1048576 are reserved"),
    ],
)
def test_tensors_that_the_format_cannot_hold_are_refused(tmp_path: Path, tensors: list[Named], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_tensors(tmp_path / "x.safetensors", tensors)


def test_a_truncated_file_is_refused_with_both_sizes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, some_tensors())
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=f"has {len(whole) - 1} bytes, its header says {len(whole)}"):
        read_header(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 7, b"\xff" * 64, (9).to_bytes(8, "little") + b"not json!", (2).to_bytes(8, "little") + b"[]"],
)
def test_other_files_are_refused_with_their_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a safetensors file") as caught:
        read_header(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.safetensors: cannot be read \(No such file"):
        read_header(tmp_path / "gone.safetensors")


@pytest.mark.parametrize(
    ("whole", "damaged"),
    [("[3,5]", "[5,5]"), ("F32", "F16"), ("[0,60]", "[8,60]")],
)
def test_a_header_that_contradicts_itself_is_refused(tmp_path: Path, whole: str, damaged: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"b.weight": np.zeros((3, 5), np.float32)}, path)
    data = path.read_bytes()
    assert whole.encode() in data
    path.write_bytes(data.replace(whole.encode(), damaged.encode()))
    with pytest.raises(CheckpointError, match=r"b\.weight has \d+ bytes"):
        read_header(path)


@pytest.mark.parametrize(
    "header",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,Infinity]}}',
        '{"a":{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}}',
    ],
    ids=("array", "object", "shape", "place", "negative"),
)
def test_a_header_that_means_nothing_is_refused(tmp_path: Path, header: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(4))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_header(path)
