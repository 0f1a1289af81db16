"""Tests of loading tensors: exactly the expected ones, or one error that names every problem."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from engines.checkpoints.weights import check_finite, check_tensors, load_tensors
from engines.errors import CheckpointError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tensors = {
        "net.a": torch.arange(6, dtype=torch.float32).view(2, 3),
        "net.half": torch.tensor([0.5, 1.5], dtype=torch.bfloat16),
        "net.count": torch.tensor(7),
        "other": torch.zeros(1),
    }
    save_file(tensors, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_tensors_are_named_without_the_prefix(path: Path) -> None:
    tensors = load_tensors(path, {"a": (2, 3), "count": ()}, prefix="net.")
    assert set(tensors) == {"a", "count"}
    assert tensors["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensors["count"].item() == 7
    assert not tensors["count"].is_floating_point()


def test_floating_point_is_converted_to_float32(path: Path) -> None:
    half = load_tensors(path, {"net.half": (2,)})["net.half"]
    assert half.dtype == torch.float32
    assert half.tolist() == [0.5, 1.5]


@pytest.mark.parametrize("read", [load_tensors, check_tensors])
def test_one_error_names_every_missing_and_misshapen_tensor(path: Path, read: object) -> None:
    expected = {"a": (3, 2), "b": (1,), "c": (4,), "half": (2,)}
    with pytest.raises(CheckpointError) as raised:
        read(path, expected, prefix="net.")  # type: ignore[operator]
    message = str(raised.value)
    assert str(path) in message
    assert "net.a has shape (2, 3), expected (3, 2)" in message
    assert "net.b is missing" in message
    assert "net.c is missing" in message
    assert "half" not in message


def test_other_files_are_a_checkpoint_error(tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"not a tensor file at all")
    for path in (bad, tmp_path / "absent.safetensors"):
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            load_tensors(path, {"a": (1,)})


def test_other_tensors_are_never_read(tmp_path: Path) -> None:
    path = tmp_path / "big.safetensors"
    save_file({"large": torch.ones(16 << 20), "small": torch.ones(1000)}, path)
    small = load_tensors(path, {"small": (1000,)})["small"]
    assert small.sum() == 1000
    assert resident_bytes_of_mapping(path) < 1 << 20
    small += 1  # the mapping is private: changes of a tensor do not reach the file
    assert np.memmap(path, dtype=np.float32)[-1] == 1


def resident_bytes_of_mapping(path: Path) -> int:
    """The resident part of a mapped file in this process, from /proc/self/smaps."""
    regions = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    mapped = [region for region in regions if str(path) in region.split("\n", 1)[0]]
    assert mapped, "the file is not mapped at all"
    return sum(int(re.search(r"^Rss:\s+(\d+) kB", region, re.MULTILINE)[1]) * 1024 for region in mapped)  # type: ignore[index]


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float8_e4m3fn, torch.complex64])
def test_weights_that_are_no_floating_point_numbers_are_named(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"a": torch.ones(2).to(dtype), "b": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"a has dtype \w+, expected one of F16, BF16, F32, F64") as raised:
        load_tensors(tmp_path / "x.safetensors", {"a": (2,), "b": (2,)})
    assert "b has" not in str(raised.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_damage_is_found_in_weights_of_every_type(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(2, dtype=dtype), "count": torch.tensor(7)}, path)
    check_finite(path)
    save_file({"a": torch.tensor([1, float("nan")], dtype=dtype)}, path)
    with pytest.raises(CheckpointError, match="NaN or infinity in a;"):
        check_finite(path)
