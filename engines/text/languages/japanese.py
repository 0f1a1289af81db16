"""Japanese: kanji as hiragana, by pykakasi."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

from engines.text.languages.packages import loading

_PARTICLES = ("は", "へ")  # as words of one sound they are read otherwise: a space keeps them apart


def as_hiragana(text: str) -> str:
    """Returns `text`, decomposed, with each word that has kanji in hiragana; katakana stays."""
    with loading("ja", "pykakasi", "its operator installs it again"):
        kakasi = _kakasi()
    words = (_read(word["orig"], word["hira"]) for word in kakasi.convert(text))
    return unicodedata.normalize("NFKD", "".join(words))


def _read(written: str, hiragana: str) -> str:
    if not any("\u4e00" <= char <= "\u9fff" for char in written):
        return written
    return f" {hiragana}" if hiragana.startswith(_PARTICLES) else hiragana


@cache
def _kakasi() -> Any:
    import pykakasi

    make: Callable[[], Any] = pykakasi.kakasi  # untyped
    return make()
