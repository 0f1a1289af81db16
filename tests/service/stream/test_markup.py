"""Markup in text: what is removed, decoded, refused and left as it is, however the text was fragmented."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import InvalidInput
from service.stream.markup import MarkupFilter
from service.stream.settings import Markup, TextSettings

STRIP = TextSettings(Markup.STRIP)
LITERAL = TextSettings(Markup.LITERAL)
DROP_THINKING = TextSettings(drop_thinking=True)

PLAIN = (
    "if a < b and c > d", "a<b", "x <y> z", "1 < 2 > 0", "AT&T and R&D", "Q&A", "&", "<", "a & b;", "I <3 you", "<>",
    "</>", "a <b and c", "p < q", "&nosuch; thing", "List<String>", "<John> said", "a <- b", "<<", "<!", "&#;",
    "1 <a 2", "mail <me@example.com>", "std::vector<int> v",
)  # fmt: skip
PIECES = (
    "<", ">", "&", ";", "/", "b", "i", "=", '"', "'", "think", "speak", "<b>", "</b>", "<think>", "</think>", "&amp;",
    "&lt", "&#3", "<!--", "-->", "a", " ", "x",
)  # fmt: skip
STRIPPED = (
    ("<b>Bold</b> and <i>thin</i>", "Bold and thin"),
    ("one<br>two<br/>three", "one\ntwo\nthree"),
    ("<p>One</p><p>Two</p>", "\n\nOne\n\n\n\nTwo\n\n"),
    ("<h1>Title</h1>Text", "\n\nTitle\n\nText"),
    ('<a href="https://x.y/?a=1&b=2">link</a>', "link"),
    ("<font color=red>red</font>", "red"),
    ("<SPAN class='x'>s</SPAN>", "s"),
    ("fish &amp; chips &lt;b&gt; &#39;x&#39; &#x27; &quot;q&quot; a&nbsp;b", "fish & chips <b> 'x' ' \"q\" a\u00a0b"),
    ("a<!-- not this -->b", "ab"),
    ("<!DOCTYPE html>hi", "hi"),
    ("<script>let a = '<b>';</script>on", "on"),
    ("H<sub>2</sub>O <mark>new</mark>", "H2O new"),
    ("<think>hm</think> yes", "hm yes"),
)
SSML = (
    ("<speak>Hello <break time='1s'/>there.</speak>", "\n\nHello  there.\n\n"),
    ('<?xml version="1.0"?><speak>a</speak>', "\n\na\n\n"),
    ('<prosody rate="slow">a</prosody>', "a"),
    ('<say-as interpret-as="date">1</say-as>', "1"),
    ('<emphasis level="strong">a</emphasis>', "a"),
    ('<sub alias="World Wide Web">WWW</sub>', "WWW"),
    ('<mark name="here"/>a', "a"),
    ('<amazon:effect name="whispered">a</amazon:effect>', "a"),
    ('<mstts:express-as style="sad">a</mstts:express-as>', "a"),
    ('<phoneme alphabet="ipa" ph="x">a</phoneme>', "a"),
    ("<voice name='x'>a</voice>", "a"),
)


def filtered(text: str, chosen: TextSettings = STRIP, size: int = 10**6) -> str:
    markup = MarkupFilter(chosen)
    return "".join(markup.feed(text[i : i + size]) for i in range(0, len(text), size)) + markup.flush()


@pytest.mark.parametrize("text", PLAIN)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_plain_text_stays(text: str, size: int) -> None:
    for chosen in (TextSettings(), STRIP, LITERAL, DROP_THINKING):
        assert filtered(text, chosen, size) == text


@pytest.mark.parametrize(("text", "plain"), STRIPPED)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_html_is_removed_and_entities_are_decoded(text: str, plain: str, size: int) -> None:
    assert filtered(text, TextSettings(), size) == filtered(text, STRIP, size) == plain
    assert filtered(text, LITERAL, size) == text


@pytest.mark.parametrize(("text", "plain"), SSML)
@pytest.mark.parametrize("size", [1, 1000])
def test_ssml_is_refused_by_name_or_removed(text: str, plain: str, size: int) -> None:
    assert filtered(text, STRIP, size) == plain
    assert filtered(text, LITERAL, size) == text
    with pytest.raises(InvalidInput, match="has the SSML element <") as caught:
        filtered(text, TextSettings(), size)
    assert (caught.value.reason, caught.value.field) == ("MARKUP_UNSUPPORTED", "text.content")


@pytest.mark.parametrize("name", ["think", "thinking", "thought", "reasoning", "THINK"])
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_thinking_is_dropped_by_option(name: str, size: int) -> None:
    text = f"<{name}>a < b </thin> &amp; </{name}>Yes. <{name}>\nno</{name} > Good."
    for markup in Markup:
        assert filtered(text, TextSettings(markup, drop_thinking=True), size) == "Yes.  Good."


def test_a_flush_does_not_end_thinking_and_a_cancel_does() -> None:
    markup = MarkupFilter(DROP_THINKING)
    assert markup.feed("Hi. <think>let") == "Hi. "
    assert markup.flush() == ""
    assert markup.feed(" me</th") == ""
    assert markup.flush() == ""
    assert markup.feed("ink>Done <thi") == "Done "
    assert markup.pending_chars == 4
    assert markup.flush() == "<thi"
    assert markup.feed("<think>more") == ""
    markup.reset()
    assert markup.feed("new") == "new"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES)).map("".join),
    st.sampled_from([STRIP, LITERAL, TextSettings(Markup.STRIP, drop_thinking=True)]),
    st.randoms(use_true_random=False),
)
def test_the_result_does_not_depend_on_the_fragments(text: str, chosen: TextSettings, shuffled: random.Random) -> None:
    whole = filtered(text, chosen)
    assert filtered(text, chosen, 1) == whole
    assert filtered(text, chosen, shuffled.randint(2, 9)) == whole
    assert len(whole) <= len(text)


@pytest.mark.parametrize("unit", ["<", "&", "<b", "<b ", "&amp", "<think>", "<!-- ", "<a b=c ", "</", "<?", "word "])
def test_what_is_held_back_is_bounded(unit: str) -> None:
    for chosen in (STRIP, TextSettings(Markup.STRIP, drop_thinking=True)):
        markup = MarkupFilter(chosen)
        for _ in range(20):
            markup.feed(unit * 500)
            assert markup.pending_chars <= 1024
        for char in unit * 500:
            markup.feed(char)
        assert markup.pending_chars <= 1024
