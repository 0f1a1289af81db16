"""Text and tokens against upstream: its `punc_norm`, and transformers' AutoTokenizer for the same files."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import pydoc_data.topics
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer

from engines.checkpoints.random_tokenizer import write_tokenizer
from engines.text.normalize import normalize
from engines.text.tokenizer import TextTokenizer

TAGS = ("[laugh]", "[clear throat]", "[sigh]", "[cough]")

TEXTS = (
    "Hello there.",
    "hello there",
    "  leading and   inner\twhite\nspace \u00a0 and  trailing  ",
    "[laugh]",
    "Well[laugh]ing out[sigh] loud, [clear throat]he[cough]said.",
    "[laugh][laugh] [sigh]",
    "[laug] [laugh [LAUGH] [ laugh ] [[laugh]]",
    "It's 5:30 — “quoted” ‘text’ … and – more…",
    "Wait: what? He said: \u201cno\u201d.",
    "a , b ,c ... : d",
    "naïve café, Zürich, ß, ŉ, İstanbul, ǆ",
    "日本語のテキスト。中文，标点！",
    "emoji 😀👩‍👩‍👧‍👦🇩🇪 and e\u0301 combining",
    "<|endoftext|> in the middle <|endoftext|>",
    "I'll they've we're don't DON'T o'clock 's 't",
    "1,000.50 3.14 0x1f 2024-01-02",
    "\x00\x01\x7f control \u200b zero width \ufeff",
    "word" * 50,
    "e.g. U.S. Mr. Smith's http://example.com/a?b=c#d",
    "ends with dash -",
    "ends with comma,",
    "ends with colon:",
    'ends with quote."',
    "ǆ starts with a digraph",
)


def upstream_punc_norm() -> Callable[[str], str]:
    """The published function without its module, which imports half a dozen audio libraries."""
    path = importlib.metadata.distribution("chatterbox-tts").locate_file("chatterbox/tts_turbo.py")
    module = ast.parse(Path(str(path)).read_text(encoding="utf-8"))
    function = next(node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "punc_norm")
    scope: dict[str, Any] = {}
    exec(compile(ast.Module([function], []), str(path), "exec"), scope)
    return scope["punc_norm"]


def expected(text: str) -> str:
    """Upstream's result, except that a colon between two digits stays."""
    return upstream_punc_norm()(re.sub(r"(?<=\d):(?=\d)", "\ue000", text)).replace("\ue000", ":")


@pytest.mark.parametrize("text", TEXTS)
def test_normalisation_equals_upstreams(text: str) -> None:
    assert normalize(text) == expected(text)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(" \t\nabZß.,:;!?-…—–“”‘’'\"[]1日😀"), min_size=1, max_size=40).filter(str.strip))
def test_normalisation_equals_upstreams_for_random_text(text: str) -> None:
    assert normalize(text) == expected(text)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vocab.json and merges.txt of a byte-level BPE, trained on English, with GPT-2's special token."""
    folder = tmp_path_factory.mktemp("trained")
    bpe = ByteLevelBPETokenizer()
    topics = list(pydoc_data.topics.topics.values())
    bpe.train_from_iterator(topics, vocab_size=1500, special_tokens=[], show_progress=False)
    bpe.save_model(str(folder))
    vocab = json.loads((folder / "vocab.json").read_text())
    vocab["<|endoftext|>"] = len(vocab)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    return folder


Files = dict[str, Any]


def added(content: str, **flags: bool) -> Files:
    fields = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False, "special": False}
    return {"content": content, **(fields | flags)}


def as_published(first: int) -> dict[str, Files]:
    """The layout of the hub's files: every added token in tokenizer_config.json, the tags not special."""
    decoder = {str(first - 1): added("<|endoftext|>", special=True)}
    decoder |= {str(first + i): added(tag) for i, tag in enumerate(TAGS)}
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    config = {
        "added_tokens_decoder": decoder,
        "tokenizer_class": "GPT2Tokenizer",
        "model_max_length": 100000,
        **special,
    }
    return {
        "tokenizer_config.json": config,
        "added_tokens.json": {tag: first + i for i, tag in enumerate(TAGS)},
        "special_tokens_map.json": special,
    }


def with_pad(first: int) -> dict[str, Files]:
    files = as_published(first)
    files["tokenizer_config.json"]["pad_token"] = "[PAD]"
    return files


def with_flags(first: int) -> dict[str, Files]:
    files = as_published(first)
    decoder = files["tokenizer_config.json"]["added_tokens_decoder"]
    decoder[str(first)] = added(TAGS[0], lstrip=True, special=True, normalized=False)
    decoder[str(first + 2)] = added(TAGS[2], rstrip=True, single_word=True)
    return files


def with_prefix_space(first: int) -> dict[str, Files]:
    files = as_published(first)
    files["tokenizer_config.json"]["add_prefix_space"] = True
    return files


def with_bos(first: int) -> dict[str, Files]:
    files = as_published(first)
    files["tokenizer_config.json"]["add_bos_token"] = True
    return files


def older(first: int) -> dict[str, Files]:
    """The layout before transformers 4.34: the tokens in added_tokens.json and special_tokens_map.json only."""
    special = {"content": "<|endoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    roles = {"bos_token": special, "eos_token": special, "unk_token": special}
    return {
        "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"},
        "added_tokens.json": {tag: first + i for i, tag in enumerate(TAGS)},
        "special_tokens_map.json": {**roles, "additional_special_tokens": [TAGS[3]]},
    }


def bare(first: int) -> dict[str, Files]:
    return {"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"}}


LAYOUTS = (as_published, with_pad, with_flags, with_prefix_space, with_bos, older, bare)


def lay_out(trained: Path, folder: Path, layout: Callable[[int], dict[str, Files]]) -> int:
    """Write a checkpoint's tokenizer files into `folder`; returns the size of the base vocabulary."""
    vocab = json.loads((trained / "vocab.json").read_text())
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_text((trained / name).read_text())
    for name, content in layout(len(vocab)).items():
        (folder / name).write_text(json.dumps(content))
    return len(vocab)


def assert_equal(folder: Path, base: int) -> None:
    ours, theirs = TextTokenizer(folder, base + len(TAGS) + 1), AutoTokenizer.from_pretrained(folder)
    for text in TEXTS + tuple(normalize(text) for text in TEXTS):
        assert ours.encode(text) == tuple(theirs(text, truncation=True).input_ids), text


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ids_equal_autotokenizers_on_vocab_and_merges(trained: Path, tmp_path: Path, layout: Any) -> None:
    assert_equal(tmp_path, lay_out(trained, tmp_path, layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ids_equal_autotokenizers_on_tokenizer_json(trained: Path, tmp_path: Path, layout: Any) -> None:
    base = lay_out(trained, tmp_path, layout)
    AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    assert_equal(tmp_path, base)
    for name in ("vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json"):
        (tmp_path / name).unlink(missing_ok=True)
    assert_equal(tmp_path, base)


def test_a_tag_is_one_token_at_any_position(trained: Path, tmp_path: Path) -> None:
    base = lay_out(trained, tmp_path, as_published)
    tokenizer = TextTokenizer(tmp_path, base + len(TAGS))
    assert base in tokenizer.encode("Well[laugh]ing")
    assert tokenizer.tags == TAGS


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_ids_equal_autotokenizers_on_any_text(tokenizers: tuple[TextTokenizer, Any], text: str) -> None:
    ours, theirs = tokenizers
    assert ours.encode(text) == tuple(theirs(text).input_ids)


@pytest.fixture(scope="module")
def tokenizers(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TextTokenizer, Any]:
    folder = tmp_path_factory.mktemp("published")
    base = lay_out(trained, folder, as_published)
    return TextTokenizer(folder, base + len(TAGS)), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("text_vocab", [320, 50276])
def test_transformers_reads_a_random_checkpoints_tokenizer(tmp_path: Path, text_vocab: int) -> None:
    write_tokenizer(tmp_path, text_vocab)
    ours, theirs = TextTokenizer(tmp_path, text_vocab), AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == text_vocab
    for text in TEXTS:
        assert ours.encode(text) == tuple(theirs(text).input_ids), text
