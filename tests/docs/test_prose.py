"""English that reads once: none of the words of prose.py in documents, docstrings, messages, the page, the contract."""

from __future__ import annotations

import pytest

from tests.docs.prose import (
    exceptions,
    hits,
    javascript_prose,
    markdown_prose,
    proto_comments,
    python_prose,
    words_in,
)

ROOMS = ("bench", "clients", "engines", "protos", "service", "ui", "documents")


@pytest.mark.parametrize("room", ROOMS)
def test_no_word_to_avoid_without_a_stated_exception(room: str):
    allowed = exceptions()
    left = [
        str(hit)
        for hit in hits()
        if room == ("documents" if hit.path.endswith(".md") else hit.path.split("/")[0])
        and not any(one.covers(hit) for one in allowed)
    ]
    assert not left, "\n" + "\n".join(left)


def test_every_exception_is_needed_and_has_a_reason():
    for one in exceptions():
        assert any(one.covers(hit) for hit in hits()), one
        assert one.reason, one


@pytest.mark.parametrize(
    ("reader", "source", "line", "word"),
    [
        (python_prose, 'x = 1\ndef f():\n    """First.\n\n    Whoever calls.\n    """\n', 5, "whoever"),
        (python_prose, 'raise ValueError(f"{x} was told to leave")', 1, "told"),
        (python_prose, 'help = "what is no number"', 1, "what is no"),
        (markdown_prose, "One.\n\nThere is no path that leads here.", 3, "is no X that"),
        (javascript_prose, 'const a = 1;\nsay("nobody answers");', 2, "nobody"),
        (javascript_prose, "say(`${name} was told`);", 1, "told"),
        (proto_comments, "// So many streams.\nint32 n = 1;", 1, "so many"),
    ],
)
def test_a_word_to_avoid_is_found_on_its_line(reader, source: str, line: int, word: str):
    (hit,) = words_in("a file", reader(source))
    assert (hit.line, hit.word) == (line, word)


def test_code_is_not_prose():
    assert list(words_in("a", python_prose("told = 1\nnobody = {'told': told}  # whoever"))) == []
    assert list(words_in("a", python_prose('def f(told):\n    """Log what `told` says."""'))) == []
    assert list(words_in("a", markdown_prose("```python\ntold = 1\n```\n"))) == []
