"""Tokenizer folders, whole and broken; tests/reference compares with upstream."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from engines.checkpoints.checkpoint import EMBEDDED
from engines.errors import CheckpointError
from engines.model_spec import TINY
from engines.text.tokenizer import TextTokenizer

BYTES = sorted(ByteLevel.alphabet())
VOCAB = {symbol: i for i, symbol in enumerate([*BYTES, "<|endoftext|>"])}


def write(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        suffix = ".txt" if name == "merges" else ".json"
        (folder / f"{name}{suffix}").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_a_vocabulary_of_bytes_encodes_and_decodes_any_text(tmp_path: Path) -> None:
    folder = write(tmp_path, vocab=VOCAB, merges="#version: 0.2\n", added_tokens={"[laugh]": 257})
    tokenizer = TextTokenizer(folder, 258)
    text = "naïve [laugh] 日本 😀"
    tokens = tokenizer.encode(text)
    assert tokens.count(257) == 1
    assert len(tokens) == len(text.replace("[laugh]", "").encode()) + 1
    assert tokenizer.decode(tokens) == text


@pytest.mark.parametrize("word", ["a" * 61, "ab" * 200, "x" * 1000])
def test_a_word_of_any_length_is_encoded(word: str) -> None:
    """A WordPiece model takes words of at most 60 characters, and replaces longer ones by one token."""
    tokenizer = TextTokenizer(EMBEDDED, TINY.t3.text_vocab)
    tokens = tokenizer.encode(f"see {word} here")
    assert tokenizer.encodes_words(tokens[1:-1])
    assert len(tokens) > len(word) / 4
    assert "<unk>" not in tokenizer.decode(tokens)
    assert tokenizer.encode("a" * 60) == tokenizer.encode("a" * 61)[:-1]


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


def test_marks_and_unknown_characters_are_no_words(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(
        write(tmp_path, vocab=VOCAB, merges="#version: 0.2\n", added_tokens={"[laugh]": 257}), 258
    )
    words = {text: tokenizer.encodes_words(tokenizer.encode(text)) for text in ("a.", "7", "[laugh]", "?!", ".", "")}
    assert words == {"a.": True, "7": True, "[laugh]": True, "?!": False, ".": False, "": False}


def test_importing_text_loads_no_model_library() -> None:
    probe = "import sys, engines.text.tokenizer; print(sorted({'torch', 'transformers'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
