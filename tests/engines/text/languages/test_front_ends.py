"""Text of each language as the multilingual tokenizer reads it. tests/reference compares with upstream's functions."""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import InvalidInput
from engines.text.languages import (
    NAMES,
    check_packages,
    chinese,
    hebrew,
    japanese,
    load,
    missing_things,
    packages,
    prepare,
    primary_code,
    russian,
    scripts_of,
)
from engines.text.languages.korean import as_jamo

PLAIN = sorted(NAMES.keys() - {"he", "ja", "ko", "ru", "zh"})


@given(st.text(), st.sampled_from(PLAIN))
def test_most_languages_are_in_lower_case_and_decomposed(text: str, language: str):
    assert prepare(text, language) == f"[{language}]{unicodedata.normalize('NFKD', text.lower())}"


@given(st.text(alphabet=st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)))
def test_jamo_are_those_of_unicode(text: str):
    assert as_jamo(text) == unicodedata.normalize("NFD", text)


def test_korean_loses_the_white_space_around_it():
    assert prepare(" 안녕 ", "ko") == "[ko]" + unicodedata.normalize("NFD", "안녕")


@pytest.mark.parametrize("language", sorted(packages.PACKAGES))
def test_a_missing_package_is_named_and_nothing_is_spoken(language: str, monkeypatch: pytest.MonkeyPatch):
    package = packages.PACKAGES[language]
    monkeypatch.setattr(packages, "find_spec", lambda _: None)
    for call in (lambda: check_packages(language), lambda: prepare("text", language)):
        with pytest.raises(InvalidInput, match=package.name) as raised:
            call()
        assert raised.value.reason == "LANGUAGE_PACKAGE_MISSING"
        assert package.source in str(raised.value)
        assert language not in raised.value.allowed.split(", ")
    check_packages("en")


class Words:
    """A segmenter that finds a word in every two characters."""

    def cut(self, text: str) -> list[str]:
        return [text[at : at + 2] for at in range(0, len(text), 2)]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    entries = ["日\ta\t1", "曰\ta\t2", "月\tb\t1", "明\tab\t1"]
    (tmp_path / chinese.TABLE_FILE).write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    monkeypatch.setattr(chinese, "_segmenter", Words)
    return tmp_path


def test_chinese_characters_are_codes_and_the_others_stay(table: Path):
    assert chinese.as_cangjie("日曰", table) == "[cj_a][cj_.][cj_a][cj_1][cj_.]"
    assert chinese.as_cangjie("明。x", table) == "[cj_a][cj_b][cj_.]。 x"
    assert chinese.as_cangjie("あ", table) == "あ"


def test_chinese_without_the_checkpoints_table_is_refused(tmp_path: Path):
    for folder in (None, tmp_path):
        with pytest.raises(InvalidInput, match=chinese.TABLE_FILE) as raised:
            chinese.as_cangjie("日", folder)
        assert raised.value.reason == "LANGUAGE_PACKAGE_MISSING"


def test_hebrew_without_its_net_is_refused(tmp_path: Path):
    for folder in (None, tmp_path):
        with pytest.raises(InvalidInput, match=hebrew.NET_FILE) as raised:
            hebrew.with_diacritics("שלום", folder)
        assert raised.value.reason == "LANGUAGE_PACKAGE_MISSING"


@pytest.mark.parametrize("language", sorted(NAMES))
def test_codes_are_their_own_primary_codes(language: str):
    assert primary_code(language) == primary_code(f"{language.upper()}_XX") == language
    assert "LATIN" in scripts_of(language)


@pytest.mark.parametrize("content", ["[", "[" * 100_000, '["日"]', "{}x", '[["日"]]'], ids=range(5))
def test_a_damaged_table_of_chinese_is_named(table: Path, content: str):
    (table / chinese.TABLE_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInput, match=rf"{chinese.TABLE_FILE}.*it cannot be loaded") as raised:
        chinese.as_cangjie("日", table)
    assert raised.value.reason == "LANGUAGE_PACKAGE_MISSING"


@pytest.mark.parametrize(
    ("language", "module", "name"),
    [
        ("he", "dicta_onnx", "dicta-onnx"),
        ("ja", "pykakasi", "pykakasi"),
        ("ru", "russian_text_stresser.text_stresser", "russian-text-stresser"),
        ("zh", "spacy_pkuseg", "spacy-pkuseg"),
    ],
)
def test_a_package_that_cannot_be_loaded_is_named(
    language: str, module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As one that lacks another one, or whose class is of another version."""
    (tmp_path / chinese.TABLE_FILE).write_text("[]")
    (tmp_path / hebrew.NET_FILE).write_bytes(b"")
    monkeypatch.setattr(packages, "find_spec", lambda _: True)
    for clear in (japanese._kakasi, russian._stresser, hebrew._dicta, chinese._segmenter):
        clear.cache_clear()
    for broken in (None, ModuleType(module)):  # ImportError; a module without its class
        monkeypatch.setitem(sys.modules, module, broken)
        with pytest.raises(InvalidInput, match=rf"{name}.*it cannot be loaded") as raised:
            load(language, tmp_path)
        assert raised.value.reason == "LANGUAGE_PACKAGE_MISSING"


def test_what_is_missing_is_named_by_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packages, "find_spec", lambda module: None if module == "pykakasi" else object())
    files = {"he": hebrew.NET_FILE, "zh": chinese.TABLE_FILE}
    assert missing_things(None) == missing_things(tmp_path) == {"ja": "pykakasi", **files}
    for name in files.values():
        (tmp_path / name).touch()
    assert missing_things(tmp_path) == {"ja": "pykakasi"}
    monkeypatch.setattr(packages, "find_spec", lambda module: None)
    assert missing_things(None).keys() == {"he", "ja", "ru", "zh"}
    assert missing_things(None)["he"] == "dicta-onnx"
