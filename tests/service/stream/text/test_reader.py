"""A stream's text as segments, pauses and marks: the same however it was fragmented."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import InvalidInput
from engines.text.dictionary import Dictionary, Entry
from service.stream.segmenter import Segmenter
from service.stream.settings import Emoji, Markup, TextSettings
from service.stream.text.code_blocks import CodeBlocks
from service.stream.text.items import MAX_PAUSE_S, Anchors, Mark, Pause, Rate
from service.stream.text.reader import Item, TextReader, Utterance
from service.stream.text.spoken_limits import SpokenLimits
from service.stream.text.ssml import SsmlReader

ON = TextSettings(Markup.STRIP, normalize=True)
SSML = TextSettings(Markup.SSML, normalize=True)
LENIENT = TextSettings(Markup.SSML_LENIENT, normalize=True, paragraph_pause_s=0.5, emoji=Emoji.NAME)
PIECES = (
    "It costs $5.", " The FBI came", ". ", "\n\n", "\n", "```", "```py\n", "~~~\n", "[pause:0.5s]", "[pause:", "500ms]",
    "[", "]", "`a`", " 5 p.m. ", "e.g. ", "5", "km", " ", "<break time='1s'/>", "<break", "/>", "<sub alias='x y'>",
    "</sub>", "<s>", "</s>", "<p>", "</p>", "<mark name='m'/>", "<speak>", "</speak>", "</say-as>", "&amp;", "<",
    "<say-as interpret-as='digits'>", "a < b", "🎉", "<emphasis>", "<b>", "word ", "One. Two.", "\U000f0001",
    "\U000f8001", "~~~~~~\n", "~~", "> ", ">", "- ", "1. ",
)  # fmt: skip
FENCE_PIECES = (
    "```", "`", "~~~", "~", "~~~~", ">", "> ", "- ", "1. ", "\r", "\n", "\n", " ", "\t", "    ", "x", "\xa0", "\f",
)  # fmt: skip


def reader(chosen: TextSettings, max_chars: int = 250, max_tokens: int = 1000) -> TextReader:
    bounds = max_chars, max_tokens, len
    return TextReader(Segmenter(*bounds), chosen, SpokenLimits(*bounds))


def read(text: str, chosen: TextSettings = ON, size: int = 10**6, **limits: int) -> list[Item]:
    of = reader(chosen, **limits)
    items = [item for i in range(0, len(text), size) for item in of.feed(text[i : i + size])]
    return [*items, *of.end()]


def shown(items: list[Item]) -> list[Any]:
    """What is spoken, pauses as seconds, marks as names in brackets."""
    return [
        item.reading.spoken
        if isinstance(item, Utterance)
        else item.duration_s
        if isinstance(item, Pause)
        else f"[{item.name}]"
        for item in items
    ]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.sampled_from([ON, LENIENT, TextSettings(Markup.LITERAL, paragraph_pause_s=1.0)]),
    st.randoms(use_true_random=False),
)
def test_the_items_do_not_depend_on_the_fragments(text: str, chosen: TextSettings, shuffled: random.Random) -> None:
    whole = read(text, chosen)
    assert read(text, chosen, 1) == whole
    assert read(text, chosen, shuffled.randint(2, 9)) == whole


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_ssml_is_refused_or_read_alike(text: str) -> None:
    def outcome(size: int) -> Any:
        try:
            return read(text, SSML, size)
        except InvalidInput as error:
            return error.reason, str(error)

    assert outcome(1) == outcome(3) == outcome(10**6)


def test_without_the_front_end_text_stays_as_it_is() -> None:
    text = "It costs $5 [pause:1s] **now**.\n\n```\ncode\n```\n🎉"
    items = read(text, TextSettings())
    assert " ".join(shown(items)).split() == text.split()
    assert all(isinstance(item, Utterance) and not item.reading.spans for item in items)


def test_a_segment_has_what_was_written_beside_what_is_spoken() -> None:
    (first, second) = read("It costs $5. At 5 p.m. it opens.", ON, 3)
    assert isinstance(first, Utterance)
    assert (first.reading.written, first.reading.spoken) == ("It costs $5.", "It costs five dollars.")
    assert isinstance(second, Utterance)
    assert second.reading.spoken == "At five P M it opens."


def test_a_sentence_is_read_at_the_character_that_ends_it() -> None:
    of = reader(ON)
    assert of.feed("It costs $1,234.56") == []
    assert of.feed(".") == []
    assert of.feed(" ") == []
    (item,) = of.feed("N")
    assert isinstance(item, Utterance)
    assert item.reading.spoken == "It costs one thousand two hundred thirty four dollars and fifty six cents."


def test_what_is_long_when_spoken_is_cut_again() -> None:
    text = "Call 1234567890123456789012, 1234567890123456789012 and 1234567890123456789012."
    items = read(text, ON, max_chars=100, max_tokens=100)
    assert len(items) > 2
    assert all(isinstance(item, Utterance) and len(item.reading.spoken) <= 100 for item in items)
    assert "".join(item.reading.written for item in items if isinstance(item, Utterance)).replace(" ", "") == (
        text.replace(" ", "")
    )
    spoken = " ".join(shown(items))
    assert spoken.count("nine") == 6


def test_code_in_fences_is_not_spoken() -> None:
    text = "Run this:\n```python\nprint('hello. world')\n```\nThen go on. Use ```x``` too."
    assert shown(read(text, ON, 4)) == ["Run this:", "Then go on.", "Use x too."]
    assert shown(read("Before.\n```\ncode", ON, 2)) == ["Before."]


@pytest.mark.parametrize("size", [1, 3, 10**6])
def test_code_between_tildes_is_not_spoken(size: int) -> None:
    text = "Run this:\n~~~python title=`x`\na = ~b\n~~\n```\nprint('hello. world')\n~~~~\nThen ~~never~~ go on."
    assert shown(read(text, ON, size)) == ["Run this:", "Then never go on."]
    assert shown(read("Before.\n~~~\ncode\n```\nmore", ON, size)) == ["Before."]
    assert shown(read("~~~~\n~~~\n~~~~\nAbout ~5 of them.", ON, size)) == ["About five of them."]


@pytest.mark.parametrize("size", [1, 3, 10**6])
@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Look:\n> ```py\n> code. Here\n> ```\n> After it.", ["Look:", "After it."]),
        ("> > ```\n> > code\n> left it.", ["left it."]),
        ("> ```\n> code\nleft it.", ["left it."]),
        ("```\n> ```\nstill code\n```\nAfter it.", ["After it."]),
        ("- a\n- ```\n  code\n  ```\n- b", ["a", "b"]),
        ("1. ~~~\ncode\n~~~\n2. Then.", ["two, Then."]),
        ("- > ```\n  > code\n  > ```\n  > said.", ["said."]),
        ("12 apples\n> 5 pears", ["twelve apples\nfive pears"]),
    ],
)
def test_code_in_quotes_and_lists_is_not_spoken(text: str, spoken: list[str], size: int) -> None:
    assert [each.strip() for each in shown(read(text, ON, size))] == [each.strip() for each in spoken]


def test_what_is_kept_beside_code_does_not_depend_on_fragments() -> None:
    draw = random.Random(1)
    for _ in range(5000):
        text = "".join(draw.choices(FENCE_PIECES, k=draw.randint(1, 12)))
        assert len({_beside_code(text, size) for size in (1, 2, 3, 10**6)}) == 1, text


def _beside_code(text: str, size: int) -> str:
    blocks = CodeBlocks()
    return "".join(blocks.feed(text[at : at + size]) for at in range(0, len(text), size)) + blocks.flush()


@pytest.mark.parametrize("size", [1, 3, 10**6])
def test_code_in_lines_that_end_with_carriage_returns_is_not_spoken(size: int) -> None:
    assert shown(read("Run:\r\n```py\r\ncode\r\n```\r\nGo on.", ON, size)) == ["Run:", "Go on."]


def test_items_of_a_list_in_a_quote_are_segments() -> None:
    assert shown(read("> - One thing\n> - Another\n> 1. third\n> > # Head\n> and\n> more", ON, 2)) == [
        "One thing",
        "Another",
        "one, third",
        "Head",
        "and\nmore",
    ]


def test_a_line_of_tildes_takes_nothing_with_it() -> None:
    assert shown(read("Title\n~~~~~~\nBody text.", ON, 3))[-1].endswith("Body text.")


def test_pauses_are_written_in_brackets() -> None:
    assert shown(read("One [pause:0.5s] two.[pause: 250 ms]Three. [pause] [pause:x]", ON, 2)) == [
        "One",
        0.5,
        "two.",
        0.25,
        "Three.",
        "[pause] [pause:x]",
    ]
    assert shown(read("a[pause:99s]b[pause:0s]c", ON)) == ["a", MAX_PAUSE_S, "bc"]


def test_paragraphs_are_parted_by_a_pause() -> None:
    chosen = TextSettings(normalize=True, paragraph_pause_s=0.7)
    text = "\n\nOne.\n\nTwo.\nThree.\n \n\n\nFour. [pause:1s]\n\nFive.\n\n"
    for size in (1, 2, 100):
        assert shown(read(text, chosen, size)) == ["One.", 0.7, "Two.", "Three.", 0.7, "Four.", 1.0, "Five."]
    with pytest.raises(InvalidInput, match=r"text.paragraph_pause_s is 11; it must be from 0 to 10"):
        TextSettings(paragraph_pause_s=11)


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("<speak>Hello <break time='1s'/>there.</speak>", ["Hello", 1.0, "there."]),
        ("<?xml version='1.0'?><speak version='1.1'><p>One.</p><p>Two.</p></speak>", ["One.", "Two."]),
        ("<s>One</s><s>Two</s>", ["One", "Two"]),
        ("Go<break strength='weak'/>on<break/>now", ["Go", 0.2, "on", 0.4, "now"]),
        ("The <sub alias='World Wide Web Consortium'>W3C</sub> met.", ["The World Wide Web Consortium met."]),
        ("<say-as interpret-as='characters'>SSML</say-as> it", ["S S M L it"]),
        ("<say-as interpret-as='digits'>123</say-as> is", ["one two three is"]),
        ("<say-as interpret-as='ordinal'>5</say-as> is", ["fifth is"]),
        ("<say-as interpret-as='date' format='dmy'>5/12/2024</say-as>", ["December fifth, twenty twenty four"]),
        ("<say-as interpret-as='telephone'>+1 555 0199</say-as>", ["plus one, five five five, zero one nine nine"]),
        ("<say-as interpret-as='currency'>$5</say-as>", ["five dollars"]),
        ("a <phoneme alphabet='x-respelling' ph='toe MAY toe'>tomato</phoneme>.", ["a toe MAY toe."]),
        ("One <mark name='here'/>two.", ["One", "[here]", "two."]),
        ("if a < b &amp; c", ["if a is less than b and c"]),
        ("<b>Bold</b> <sub>2</sub>", ["Bold two"]),
        ("x <y> z", ["x <y> z"]),
        ("<sub alias='Doctor'>Dr.</sub> Who. Then", ["Doctor Who.", "Then"]),
    ],
)
def test_ssml_is_obeyed(text: str, items: list[Any], size: int) -> None:
    assert shown(read(text, SSML, size)) == items


def test_a_substitution_is_written_as_the_text_had_it() -> None:
    (item,) = read("The <sub alias='World Wide Web'>WWW</sub> won.", SSML)
    assert isinstance(item, Utterance)
    reading = item.reading
    assert reading.written == "The WWW won."
    at = reading.spoken.index("Wide")
    assert reading.written[slice(*reading.written_span(at, at + 4))] == "WWW"


@pytest.mark.parametrize(
    ("text", "reason", "part"),
    [
        ("<emphasis>a</emphasis>", "SSML_UNSUPPORTED", "<emphasis>"),
        ("<voice name='x'>a</voice>", "SSML_UNSUPPORTED", "<voice>"),
        ("<amazon:effect name='x'>a", "SSML_UNSUPPORTED", "<amazon:effect>"),
        ("<prosody pitch='high'>a</prosody>", "SSML_UNSUPPORTED", "prosody"),
        ("<phoneme alphabet='ipa' ph='x'>a</phoneme>", "SSML_UNSUPPORTED", 'alphabet="ipa"'),
        ("<say-as interpret-as='expletive'>a</say-as>", "SSML_UNSUPPORTED", "expletive"),
        ("<say-as interpret-as='ordinal'>a</say-as>", "SSML_UNSUPPORTED", "ordinal"),
        ("<break time='11s'/>", "SSML_INVALID", "at most 10 s"),
        ("<break time='soon'/>", "SSML_INVALID", "soon"),
        ("<s>a</p>", "SSML_INVALID", "</p>"),
        ("<sub alias='a'>b", "SSML_INVALID", "<sub> is not closed"),
        ("<speak>a", "SSML_INVALID", "<speak> is not closed; expected is </speak> before the text ends"),
        ("<speak>a <prosody rate='slow'>b", "SSML_INVALID", "<prosody> is not closed"),
        ("<p>a", "SSML_INVALID", "<p> is not closed"),
        ("<s>a. b.", "SSML_INVALID", "<s> is not closed"),
        ("<sub alias='a'>b<break/></sub>", "SSML_INVALID", "stands inside"),
        ("<sub alias='a'>" + "b" * 501 + "</sub>", "SSML_INVALID", "more than 500"),
        ("<s>" * 33, "SSML_INVALID", "nested"),
        ("<mark name=''/>", "SSML_INVALID", "mark"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_name_or_ignored(text: str, reason: str, part: str) -> None:
    with pytest.raises(InvalidInput, match=r"text\.content") as caught:
        read(text, SSML, 3)
    assert caught.value.reason == reason
    assert part in str(caught.value)
    read(text, TextSettings(Markup.SSML_LENIENT))


def test_what_a_lenient_stream_ignores_leaves_its_text() -> None:
    lenient = TextSettings(Markup.SSML_LENIENT, normalize=True)
    text = "<speak><emphasis>Big</emphasis> <voice name='x'>news</voice> <prosody pitch='high'>today</prosody>.</speak>"
    assert shown(read(text, lenient)) == ["Big news today."]
    assert shown(read("a<break time='60s'/>b", lenient)) == ["a", 10.0, "b"]
    assert shown(read("<sub alias='x'>y", lenient)) == ["x"]


@pytest.mark.parametrize(
    ("rate", "speed"), [("slow", 0.75), ("x-fast", 1.75), ("80%", 0.8), ("+20%", 1.2), ("-25%", 0.75), ("200%", 2.0)]
)
def test_the_rate_of_prosody_is_the_speed_of_its_segments(rate: str, speed: float) -> None:
    anchors = Anchors()
    ssml = SsmlReader(anchors)
    opened = ssml.tag("prosody", f' rate="{rate}"', is_end=False, is_empty=False)
    assert anchors.take_boundary(opened) == Rate(pytest.approx(speed))
    closed = ssml.tag("prosody", "", is_end=True, is_empty=False)
    assert anchors.take_boundary(closed) == Rate(1.0)


def test_a_rate_that_cannot_be_obeyed_is_refused() -> None:
    for rate in ("10%", "300%", "soon", "1.2"):
        with pytest.raises(InvalidInput) as caught:
            SsmlReader(Anchors()).tag("prosody", f' rate="{rate}"', is_end=False, is_empty=False)
        assert caught.value.reason == "SSML_INVALID"
    with pytest.raises(InvalidInput) as caught:
        SsmlReader(Anchors(), can_change_speed=False).tag("prosody", " rate='slow'", is_end=False, is_empty=False)
    assert caught.value.reason == "SSML_UNSUPPORTED"


def test_a_stream_obeys_the_rate_of_prosody() -> None:
    text = "One. <prosody rate='slow'>Two.</prosody> Three."
    speeds = [item.speed for item in read(text, SSML) if isinstance(item, Utterance)]
    assert speeds == [1.0, 0.75, 1.0]


def test_a_flush_leaves_elements_open() -> None:
    of = reader(SSML)
    first = [*of.feed("<speak><prosody rate='slow'>One"), *of.flush()]
    second = [*of.feed(" two</prosody></speak>"), *of.end()]
    assert [(item.reading.spoken, item.speed) for item in (*first, *second) if isinstance(item, Utterance)] == [
        ("One", 0.75),
        ("two", 0.75),
    ]


def test_a_reset_text_has_no_open_element() -> None:
    of = reader(SSML)
    of.feed("<speak>One")
    of.reset()
    assert shown([*of.feed("two"), *of.end()]) == ["two"]


def test_private_characters_of_a_client_are_dropped() -> None:
    assert shown(read("a\U000f0000b\U000f8000c", SSML)) == ["abc"]


def test_a_cancel_forgets_what_was_open() -> None:
    of = reader(SSML)
    of.feed("<sub alias='x'>y")
    of.feed("[pau")
    assert of.pending_chars > 0
    of.reset()
    assert of.pending_chars == 0
    assert shown(of.feed("new ") + of.flush()) == ["new"]


def test_the_dictionary_is_read_without_normalisation_too() -> None:
    chosen = TextSettings(dictionary=Dictionary([Entry("nginx", "engine ex")]))
    assert shown(read("nginx costs $5.", chosen, 2)) == ["engine ex costs $5."]


def test_marks_and_pauses_have_the_fields_that_were_given() -> None:
    assert read("<mark name='a'/><break time='250ms'/>", SSML) == [Mark("a"), Pause(0.25)]
