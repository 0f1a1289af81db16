"""The text form of a dictionary, as `mynah say --dictionary` and the page read it."""

from __future__ import annotations

import pytest

import mynah
from engines.text.dictionary import parse
from mynah.client.dictionary import parse_dictionary

CONTENT = '\ufeff# names\nnginx = engine ex\n\n"US" = you ess\n New York=noo york \na = b = c\n'


def test_the_client_and_the_server_read_a_file_alike():
    entries = parse_dictionary(CONTENT)
    assert entries[:2] == (
        mynah.DictionaryEntry("nginx", "engine ex"),
        mynah.DictionaryEntry("US", "you ess", case_sensitive=True),
    )
    ours = [(each.word, each.respelling, each.case_sensitive) for each in parse(CONTENT)]
    assert [(each.word, each.respelling, each.case_sensitive) for each in entries] == ours


@pytest.mark.parametrize("line", ["nginx", "= x", "x ="])
def test_a_bad_line_is_named(line: str):
    with pytest.raises(mynah.InvalidArgument, match=r"words\.dict, line 2 is") as caught:
        parse_dictionary(f"a = b\n{line}", "words.dict")
    assert (caught.value.reason, caught.value.field) == ("DICTIONARY_ENTRY_INVALID", "text.dictionary")
