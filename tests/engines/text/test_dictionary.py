"""The pronunciation dictionary: which words are respelled, and what an entry may be."""

from __future__ import annotations

import pytest

from engines.errors import InvalidInput
from engines.text.dictionary import MAX_ENTRIES, Dictionary, Entry, check_count, parse
from engines.text.front_end import FrontEnd


def spoken(text: str, *entries: Entry, normalize: bool = False) -> str:
    return FrontEnd(normalize=normalize, dictionary=Dictionary(entries)).read(text).spoken


def test_whole_words_are_respelled_in_any_case() -> None:
    nginx = Entry("nginx", "engine ex")
    assert spoken("Run nginx, NGINX and Nginx's.", nginx) == "Run engine ex, engine ex and engine ex's."
    assert spoken("nginxes and my_nginx", nginx) == "nginxes and my_nginx"


def test_an_entry_that_regards_case_wins() -> None:
    entries = (Entry("US", "you ess", case_sensitive=True), Entry("us", "uss"))
    assert spoken("US and us and Us", *entries) == "you ess and uss and uss"
    assert spoken("US and us", entries[0]) == "you ess and us"


def test_the_longest_entry_wins_then_the_last() -> None:
    entries = (Entry("New York", "noo york"), Entry("new", "knew"), Entry("new", "gnu"))
    assert spoken("New York is new", *entries) == "noo york is gnu"
    assert spoken("New  York, New\nYork", entries[0]) == "noo york, noo york"
    assert spoken("NewYork", entries[0]) == "NewYork"


def test_words_may_have_marks_in_them() -> None:
    assert (
        spoken("C++ and .NET", Entry("C++", "see plus plus"), Entry(".net", "dot net")) == "see plus plus and dot net"
    )
    assert spoken("O'Brien", Entry("O'Brien", "oh brian")) == "oh brian"


def test_the_dictionary_comes_before_every_rule() -> None:
    assert spoken("The API costs $5.", Entry("API", "appy"), normalize=True) == "The appy costs five dollars."
    assert spoken("**API**", Entry("API", "F B 1 I"), normalize=True) == "F B 1 I", "a respelling is not read again"


def test_phonemes_are_refused_by_name() -> None:
    for respelling in ("təˈmeɪtoʊ", "/tomato/", "ˈa"):
        with pytest.raises(InvalidInput, match="phonetic") as caught:
            Dictionary([Entry("tomato", respelling)])
        assert caught.value.reason == "DICTIONARY_IPA_UNSUPPORTED"


@pytest.mark.parametrize(
    ("word", "respelling"),
    [("", "a"), ("a", ""), ("-", "a"), ("a", "..."), ("a" * 101, "a"), ("a", "a" * 201), (" a", "a"), ("a\x01", "a")],
)
def test_an_entry_that_cannot_be_spoken_is_refused(word: str, respelling: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Dictionary([Entry(word, respelling)])
    assert caught.value.reason == "DICTIONARY_ENTRY_INVALID"


def test_a_dictionary_has_a_limit() -> None:
    check_count(MAX_ENTRIES)
    with pytest.raises(InvalidInput) as caught:
        check_count(MAX_ENTRIES + 1)
    assert caught.value.reason == "DICTIONARY_TOO_LONG"


def test_a_file_is_read_by_lines() -> None:
    content = '\ufeff# names\nnginx = engine ex\n\n"US" = you ess\n New York=noo york \n'
    assert parse(content) == (
        Entry("nginx", "engine ex"),
        Entry("US", "you ess", case_sensitive=True),
        Entry("New York", "noo york"),
    )
    for broken, reason in (("nginx engine", "DICTIONARY_ENTRY_INVALID"), ("a = ˈa", "DICTIONARY_IPA_UNSUPPORTED")):
        with pytest.raises(InvalidInput, match=r"words.dict, line 2: ") as caught:
            parse("a = b\n" + broken, "words.dict")
        assert caught.value.reason == reason
