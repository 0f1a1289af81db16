"""Tests of refused texts and broken tokenizer folders; tests/reference compares with upstream."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel

from engines.errors import CheckpointError, InvalidInput
from engines.text import TextTokenizer, normalize

BYTES = sorted(ByteLevel.alphabet())
VOCAB = {symbol: i for i, symbol in enumerate([*BYTES, "<|endoftext|>"])}


def write(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        suffix = ".txt" if name == "merges" else ".json"
        (folder / f"{name}{suffix}").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.mark.parametrize("text", ["", " ", "\n\t  \u00a0\u3000"])
def test_blank_text_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        normalize(text)
    assert (caught.value.field, caught.value.reason) == ("text", "TEXT_EMPTY")


def test_the_error_for_too_long_text_has_the_limit_and_the_length() -> None:
    assert normalize("a" * 100, 100).endswith("a.")
    with pytest.raises(InvalidInput, match=r"has 101 characters; a segment must have at most 100") as caught:
        normalize("a" * 101, 100)
    assert (caught.value.field, caught.value.reason) == ("text", "TEXT_TOO_LONG")


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        normalize("hi \ud83d")
    assert caught.value.reason == "TEXT_NOT_UNICODE"


@given(st.text(min_size=1, max_size=80).filter(str.strip))
def test_normal_text_is_one_line_and_ends_in_punctuation(text: str) -> None:
    normal = normalize(text)
    assert normal.endswith((".", "!", "?", "-", ","))
    assert not set(normal) & set("\n\t…—–“”‘’:")


def test_a_vocabulary_of_bytes_encodes_and_decodes_any_text(tmp_path: Path) -> None:
    folder = write(tmp_path, vocab=VOCAB, merges="#version: 0.2\n", added_tokens={"[laugh]": 257})
    tokenizer = TextTokenizer(folder, 258)
    text = "naïve [laugh] 日本 😀"
    tokens = tokenizer.encode(text)
    assert tokens.count(257) == 1
    assert len(tokens) == len(text.replace("[laugh]", "").encode()) + 1
    assert tokenizer.decode(tokens) == text


def test_an_id_beyond_t3s_vocabulary_is_refused_by_name(tmp_path: Path) -> None:
    folder = write(tmp_path, vocab=VOCAB, merges="#version: 0.2\n", added_tokens={"[laugh]": 257})
    with pytest.raises(CheckpointError, match=r"beyond T3's text vocabulary of 257: '\[laugh\]' = 257"):
        TextTokenizer(folder, 257)


def test_a_tag_that_cannot_get_its_declared_id_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, vocab=VOCAB, merges="#version: 0.2\n", added_tokens={"[laugh]": 300})
    with pytest.raises(CheckpointError, match=r"'\[laugh\]' = 300, got 257"):
        TextTokenizer(folder, 400)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "vocab.json and merges.txt missing"),
        ({"vocab": VOCAB}, "merges.txt missing"),
        ({"vocab": "{", "merges": "#version: 0.2\n"}, "vocab.json: not a readable JSON file"),
        ({"vocab": [1], "merges": "#version: 0.2\n"}, "vocab.json: a JSON object was expected, not list"),
        ({"vocab": VOCAB, "merges": "#version: 0.2\nno pe\n"}, "cannot be read"),
        ({"tokenizer": {"nonsense": 1}}, "cannot be read"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, files: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        TextTokenizer(write(tmp_path, **files), 1000)
    assert str(tmp_path) in str(caught.value)


def test_importing_text_loads_no_model_library() -> None:
    probe = "import sys, engines.text; print(sorted({'torch', 'transformers'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
