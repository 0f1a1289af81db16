"""Tokenizer files for checkpoints of random weights, in the layouts of the published ones."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Whitespace

from engines.model_spec import ModelSpec

# The published tokenizer's added tokens, ids 50257 to 50275.
TAGS = (
    "[angry]", "[fear]", "[surprised]", "[whispering]", "[advertisement]", "[dramatic]", "[narration]", "[crying]",
    "[happy]", "[sarcastic]", "[clear throat]", "[sigh]", "[shush]", "[cough]", "[groan]", "[sniff]", "[gasp]",
    "[chuckle]", "[laugh]",
)  # fmt: skip
_END_OF_TEXT = "<|endoftext|>"
_CHARACTER_TAGS = ("[laughter]", "[sigh]", "[cough]")
_STOP, _UNKNOWN, _SPACE, _START = "[STOP]", "[UNK]", "[SPACE]", "[START]"
_START_ID = 255
_MERGES = (("t", "h"), ("h", "e"), ("i", "n"), ("e", "r"), ("a", "n"), ("th", "e"), ("o", "u"))
# Of Multilingual: combining marks, Greek, Cyrillic, Hebrew, Arabic, Devanagari, Jamo, CJK punctuation, kana, and
# full-width punctuation, which NFKD does not leave but which costs nothing.
_BLOCKS = (
    (0xC0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x45F), (0x591, 0x5F4), (0x600, 0x6FF), (0x900, 0x97F),
    (0x1100, 0x1112), (0x1161, 0x1175), (0x11A8, 0x11C2), (0x3001, 0x30FF),
)  # fmt: skip
_CANGJIE = "abcdefghijklmnopqrstuvwxyz.0123456789"


def write_random_tokenizer(folder: Path, spec: ModelSpec) -> None:
    """Write the tokenizer files of this model, with as many ids as T3 has rows for text tokens."""
    if spec.tokenizer_name:
        _write_characters(folder / spec.tokenizer_name, spec)
    else:
        write_tokenizer(folder, spec.t3.text_vocab)


def _write_characters(path: Path, spec: ModelSpec) -> None:
    """A BPE over characters with a few merges; a space is a token of its own, and so is a language's code."""
    characters = [chr(code) for code in range(0x21, 0x7F)]
    if spec.languages:
        codes = (code for first, last in _BLOCKS for code in range(first, last + 1))
        characters += [char for char in map(chr, codes) if _occurs(char)]
    merged = [first + second for first, second in _MERGES]
    added = [f"[{code}]" for code in spec.languages]
    added += [f"[cj_{char}]" for char in _CANGJIE] if spec.languages else list(_CHARACTER_TAGS)
    vocab = {_STOP: 0, _UNKNOWN: 1, _SPACE: 2, _START: _START_ID}
    free = (number for number in range(3, spec.t3.text_vocab) if number != _START_ID)
    vocab |= {token: next(free) for token in (*characters, *merged, *added)}
    vocab |= {f"<filler {number}>": number for number in free}
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=list(_MERGES), unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens([AddedToken(token) for token in (_STOP, _UNKNOWN, _SPACE, _START)])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in added])
    tokenizer.save(str(path))


def _occurs(char: str) -> bool:
    """Whether normalised text has this character."""
    is_named = unicodedata.category(char)[0] in "LMNP"
    return is_named and unicodedata.normalize("NFKD", char) == char and char.lower() == char


def write_tokenizer(folder: Path, text_vocab: int) -> None:
    """Write GPT-2 tokenizer files for `text_vocab` ids: 256 byte symbols, fillers, end of text, and the tags.

    Without merges, every byte of a text is one token; every tag is one token.
    """
    first_tag = text_vocab - len(TAGS)
    vocab = {symbol: i for i, symbol in enumerate(sorted(ByteLevel.alphabet()))}
    vocab |= {f"<filler {i}>": i for i in range(len(vocab), first_tag - 1)}
    vocab[_END_OF_TEXT] = first_tag - 1
    tags = {tag: first_tag + i for i, tag in enumerate(TAGS)}
    roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), _END_OF_TEXT)
    decoder = {str(i): _added(tag, special=False) for tag, i in tags.items()}
    decoder = {str(first_tag - 1): _added(_END_OF_TEXT, special=True)} | decoder
    config = {"added_tokens_decoder": decoder, "add_prefix_space": False, "tokenizer_class": "GPT2Tokenizer", **roles}
    _write_json(folder / "vocab.json", vocab)
    (folder / "merges.txt").write_text("#version: 0.2\n")
    _write_json(folder / "added_tokens.json", tags)
    _write_json(folder / "special_tokens_map.json", roles)
    _write_json(folder / "tokenizer_config.json", config)


def _added(content: str, *, special: bool) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False, "special": special}
    return {"content": content, **flags}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
