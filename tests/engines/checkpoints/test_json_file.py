"""JSON files that anyone may have written: read, or refused with their path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engines.checkpoints.json_file import read_json, read_object
from engines.errors import CheckpointError


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1]}')
    assert read_object(tmp_path / "a.json") == read_json(tmp_path / "a.json") == {"a": [1]}


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"{", b"\xff", b""], ids=range(5))
def test_what_is_no_json_is_refused_with_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(f"{path}: not a readable JSON file")):
        read_json(path)


def test_a_missing_file_and_a_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(CheckpointError, match="a JSON object was expected, not list"):
        read_object(tmp_path / "a.json")
