"""How English text is read aloud: the table of cases, and the spans between what is written and what is spoken."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engines.text.dictionary import Dictionary, Entry
from engines.text.english import RULES
from engines.text.english.rule import signs_of
from engines.text.front_end import _NEEDED, FrontEnd, _claims, _rules_for
from engines.text.normalize import clean
from engines.text.reading import Claim, Reading, replaced
from tests.engines.text.front_end_cases import CASES, folded

FRONT_END = FrontEnd()
PIECES = (
    "$5", "1,234.56", "10:30", " p.m.", "5", "-", "/", "May ", "2024", " ", ". ", "**", "_", "`", "[a](b.com/c)",
    "NASA", "FBI", "e.g.", "%", "km", "3/4", "🎉", "VIII", "Henry ", "\n- ", "# ", "|", "a@b.com", "https://x.org/y",
    "x²", "#", "(", ")", "Dr. ", "word", "'s", "½", "\n\n", "+1 555 123 4567", "<", "&", "1st", "’90s", "[1]", "~~",
    "\\*",
)  # fmt: skip


def test_the_table_has_at_least_300_cases() -> None:
    assert len(CASES) >= 300


@pytest.mark.parametrize("written", CASES)
def test_a_text_is_read_as_the_table_says(written: str) -> None:
    assert folded(clean(FRONT_END.read(written).spoken)) == folded(CASES[written])


@pytest.mark.parametrize("written", CASES)
def test_a_rule_that_a_text_does_not_need_reads_nothing_of_it(written: str) -> None:
    not_needed = set(RULES).difference(_rules_for(signs_of(written) & _NEEDED))
    assert not [each.pattern for each in not_needed if list(_claims(each, written))]


def check_spans(reading: Reading) -> None:
    """Spans are in order, and what stands between them is the same in both texts."""
    spoken = written = 0
    for span in reading.spans:
        assert spoken <= span.spoken_start <= span.spoken_end <= len(reading.spoken)
        assert written <= span.written_start <= span.written_end <= len(reading.written)
        assert reading.spoken[spoken : span.spoken_start] == reading.written[written : span.written_start]
        spoken, written = span.spoken_end, span.written_end
    assert reading.spoken[spoken:] == reading.written[written:]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_spans_join_what_is_written_and_what_is_spoken(text: str) -> None:
    reading = FrontEnd(name_emoji=True, dictionary=Dictionary([Entry("word", "wurd")])).read(text)
    check_spans(reading)
    assert reading.written == text
    assert not any(char.isdigit() for char in reading.spoken if char in "0123456789"), "every digit is read"
    before = 0
    for at in range(len(reading.spoken)):
        start, end = reading.written_span(at, at + 1)
        assert before <= start <= end <= len(text)
        before = start


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="aB1 .,$-/:*_[]()#|<>&%°²½é🎉\n'\"@+", max_size=60))
def test_any_text_is_read(text: str) -> None:
    check_spans(FRONT_END.read(text))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join), st.data())
def test_parts_of_a_reading_join_to_the_whole(text: str, data: st.DataObject) -> None:
    reading = FRONT_END.read(text)
    assume(len(reading.spoken) > 1)
    cut = data.draw(st.integers(1, len(reading.spoken) - 1))
    first, second = reading.part(0, cut), reading.part(cut, len(reading.spoken))
    assert first.spoken + second.spoken == reading.spoken
    assert first.written + second.written == text
    check_spans(first)
    check_spans(second)


def test_a_spoken_word_leads_to_what_is_written() -> None:
    reading = FRONT_END.read("**It** costs $5 at 10:30.")
    assert reading.spoken == "It costs five dollars at ten thirty."
    words = {word: reading.spoken.index(word) for word in ("It", "five", "dollars", "at", "thirty")}
    shown = {
        word: reading.written[slice(*reading.written_span(start, start + len(word)))] for word, start in words.items()
    }
    assert shown == {"It": "It", "five": "$5", "dollars": "$5", "at": "at", "thirty": "10:30"}


def test_two_readings_in_a_row_are_one() -> None:
    first = replaced("a **5** b", [Claim(2, 4, ""), Claim(5, 7, "")])
    both = first.then(replaced("a 5 b", [Claim(2, 3, "five")]))
    assert both.spoken == "a five b"
    check_spans(both)
    assert both.written[slice(*both.written_span(2, 6))] == "5"


def test_without_normalisation_nothing_changes() -> None:
    plain = FrontEnd(normalize=False)
    assert plain.changes_nothing
    assert all(plain.read(text) == Reading(text, text) for text in CASES)


def test_emoji_are_named_by_option() -> None:
    named = FrontEnd(name_emoji=True)
    assert named.read("Great 🎉!").spoken == "Great party popper!"
    assert named.read("I ❤️ you").spoken == "I black heart you"
    assert named.read("👩‍👩‍👧 ok").spoken == "woman ok"
    assert named.read("👍🏽 ℹ️").spoken == "thumbs up sign information source"
    assert named.read("Press 3️⃣ or *️⃣").spoken == "Press keycap three or keycap star"
    assert clean(FRONT_END.read("Great 🎉!").spoken) == "Great!"


@pytest.mark.parametrize(
    ("flag", "spoken"),
    {
        "🇬🇧": "flag of the United Kingdom",
        "🇯🇵🇧🇷": "flag of Japan flag of Brazil",
        "🇪🇺": "flag of the European Union",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f": "flag of England",
        "🏳️‍🌈": "rainbow flag",
        "🏴‍☠️": "pirate flag",
    }.items(),
)
def test_flags_are_named_by_option(flag: str, spoken: str) -> None:
    assert " ".join(FrontEnd(name_emoji=True).read(flag).spoken.split()) == spoken
    assert clean(flag) == ""


def test_two_letters_that_are_no_flag_are_not_spoken() -> None:
    assert clean(FrontEnd(name_emoji=True).read("Go 🇽🇽 on").spoken).split() == ["Go", "on"]


def test_a_terminals_control_sequences_are_not_read() -> None:
    assert FrontEnd().read("It is \x1b[31mred\x1b[0m, 5 m long.").spoken == "It is red, five meters long."
