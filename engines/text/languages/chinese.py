"""Chinese: words parted by spaces, by spacy-pkuseg, and characters as codes of Cangjie 5, an input method."""

from __future__ import annotations

import json
import unicodedata
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from engines.text.languages.packages import loading, missing

TABLE_FILE = "Cangjie5_TC.json"  # in a checkpoint's folder


def as_cangjie(text: str, folder: Path | None) -> str:
    """Returns `text` in words, each of their characters as tokens such as "[cj_a][cj_b][cj_.]"; those without a code
    stay. `folder` is a checkpoint's, which has the table of codes.

    Raises InvalidInput with reason LANGUAGE_PACKAGE_MISSING if it has none, or without pkuseg's own net.
    """
    codes = _codes(folder)
    words: list[str] = _segmenter().cut(text)
    return "".join(_encoded(char, codes) for char in " ".join(words))


def _encoded(char: str, codes: dict[str, str]) -> str:
    if unicodedata.category(char) != "Lo" or (code := codes.get(char)) is None:
        return char
    return "".join(f"[cj_{key}]" for key in f"{code}.")


def _codes(folder: Path | None) -> dict[str, str]:
    path = None if folder is None else folder / TABLE_FILE
    if path is None or not path.is_file():
        raise missing("zh", f"the table {TABLE_FILE}", "its operator puts it into the checkpoint's folder")
    with loading("zh", f"the table {TABLE_FILE}", "its operator fetches it again"):
        return _read_codes(path)


@lru_cache(maxsize=2)
def _read_codes(path: Path) -> dict[str, str]:
    """The code of each character; of those that share one, all but the first have their number behind it."""
    codes: dict[str, str] = {}
    sharing: dict[str, list[str]] = {}
    for entry in json.loads(path.read_text(encoding="utf-8")):
        char, code = entry.split("\t")[:2]
        codes[char] = code
        sharing.setdefault(code, []).append(char)
    return {char: code + (str(place) if (place := sharing[code].index(char)) else "") for char, code in codes.items()}


@cache
def _segmenter() -> Any:
    with loading("zh", "spacy-pkuseg and its net spacy_ontonotes", "its operator unpacks the net into $PKUSEG_HOME"):
        from spacy_pkuseg import pkuseg

        return pkuseg()  # its net is fetched: errors of the network, of its archive, of its files
