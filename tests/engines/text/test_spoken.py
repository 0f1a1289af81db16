"""What is spoken of a text and what is refused, by rule and by the shipped model's tokenizer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.checkpoints.checkpoint import EMBEDDED
from engines.errors import InvalidInput
from engines.model_spec import TINY
from engines.text.encoder import TextEncoder
from engines.text.normalize import clean
from engines.text.spoken import SpokenText
from engines.text.tokenizer import TextTokenizer

TAGS = ("[clear throat]", "[laugh]")
NOTHING = (
    "", " ", "\n\t \u00a0\u3000", ".", "...", "…", "?!", "!!!", "*", "**", "---", '"', "“”", "()", "#", "```", "$",
    "\x00", "\u200b", "\ufeff", "\u00ad", "🎉", "❤️", "👩\u200d👩\u200d👧\u200d👦", "🇩🇪", "👍🏽", "☎", "→", "✓", "™",
)  # fmt: skip
FOREIGN = ("Привет", "日本語のテキスト。", "你好", "مرحبا", "שלום", "नमस्ते", "안녕", "Γειά σου", "π", "สวัสดี")


def reason_of(rule: object, text: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        rule(text)  # type: ignore[operator]
    assert caught.value.field == "text"
    return caught.value.reason


@pytest.fixture(scope="module")
def tiny() -> TextEncoder:
    return TextEncoder(TextTokenizer(EMBEDDED, TINY.t3.text_vocab), TINY, 1000)


@pytest.mark.parametrize("text", NOTHING)
def test_text_without_a_word_is_empty_for_every_model(tiny: TextEncoder, text: str) -> None:
    assert reason_of(SpokenText(tags=TAGS).prepare, text) == reason_of(tiny, text) == "TEXT_EMPTY"


@pytest.mark.parametrize("text", FOREIGN)
def test_letters_of_other_scripts_are_refused_by_name(tiny: TextEncoder, text: str) -> None:
    assert reason_of(SpokenText(tags=TAGS).prepare, text) == reason_of(tiny, text) == "SCRIPT_UNSUPPORTED"


@pytest.mark.parametrize("text", ["a", "7", "½", "①", "É", "ﬁ", "Ａ", "5️⃣", "2 π", "Привет, John", "100%"])
def test_a_letter_or_a_number_of_its_script_is_enough(tiny: TextEncoder, text: str) -> None:
    assert SpokenText().prepare(text)
    assert tiny(text)


def test_a_tag_alone_is_spoken_by_a_model_that_was_trained_on_tags() -> None:
    assert SpokenText(tags=TAGS).prepare("[laugh]") == "[laugh]."
    untrained = SpokenText(tags=TAGS, speaks_tags=False)
    assert reason_of(untrained.prepare, "[laugh] [clear throat]!") == "TEXT_EMPTY"
    assert untrained.prepare("Well [laugh] done.") == "Well done."
    assert untrained.tags == ()


def test_a_text_whose_letters_have_no_token_is_not_spoken(tiny: TextEncoder) -> None:
    assert reason_of(tiny, "ø") == "SCRIPT_UNSUPPORTED"


def test_the_shipped_model_leaves_its_untrained_tags_out(tiny: TextEncoder) -> None:
    assert tiny("[laugh] Hello there.") == tiny("Hello there.")
    assert tiny.tags == ()


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Great job! 🎉", "Great job!"),
        ("🎉 great job", "Great job."),
        ("I ❤️ you", "I you."),
        ("Nice😀work", "Nice work."),
        ("Hi 😀, how 😀.", "Hi, how."),
        ("(ok 👍🏽)", "(ok)."),
        ("A 👩\u200d👩\u200d👧 family", "A family."),
        ("soft\u00adhyphen\u00ads", "Softhyphens."),
        ("\ufeffHello zero\u200b\u200cwidth\u2060s", "Hello zerowidths."),
        ("\u202ehi\u202c \u2066there\u2069", "Hi there."),
        ("10:30", "10:30."),
        ("It is 10:30: go", "It is 10:30, go."),
        ("16:9, 3:16, 12:00:01", "16:9, 3:16, 12:00:01."),
        ("Note: this", "Note, this."),
        ("a:1 1:a", "A,1 1,a."),
        ("bell\x07 and\x00 null", "Bell and null."),
        ("\x1b[1;31mred\x1b[0m and \x9b32mgreen\x1b[K", "Red and green."),
        ("a \x1b]8;;http://a.example\x1b\\link\x1b]8;;\x07 [31m", "A link [31m."),
    ],
)
def test_what_is_spoken(text: str, spoken: str) -> None:
    assert SpokenText().prepare(text) == spoken


@given(st.text(max_size=80))
def test_what_is_spoken_is_one_line_of_visible_text(text: str) -> None:
    try:
        spoken = SpokenText().prepare(text)
    except InvalidInput:
        return
    assert spoken.endswith((".", "!", "?", "-", ","))
    assert not set(spoken) & set("\n\t…—–“”‘’\u00ad\u200b\ufeff🎉")
    assert clean(spoken) == spoken


@given(
    st.text(
        st.characters(min_codepoint=0x20, max_codepoint=0x17F, exclude_characters="\xad\x7f", exclude_categories=["Cc"])
    )
)
def test_latin_text_is_not_changed_by_cleaning(text: str) -> None:
    assert clean(text) == text


def test_too_long_text_and_half_a_surrogate_pair_are_refused() -> None:
    rule = SpokenText(max_chars=100)
    assert rule.prepare("a" * 100).endswith("a.")
    with pytest.raises(InvalidInput, match=r"has 101 characters; a segment must have at most 100"):
        rule.prepare("a" * 101)
    assert reason_of(rule.prepare, "a" * 101) == "TEXT_TOO_LONG"
    assert reason_of(rule.prepare, "hi \ud83d") == "TEXT_NOT_UNICODE"


@given(st.lists(st.sampled_from([" hello", " world", " 1,000", " naïve", " U.S.", " Zürich", "!"])))
def test_the_counts_of_words_add_up(tiny: TextEncoder, words: list[str]) -> None:
    text = "".join(words)
    assert sum(map(tiny.count_tokens, words)) >= tiny.count_tokens(text)


@settings(deadline=None)
@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40), st.sampled_from(["", " "])
)
def test_ascii_text_has_no_more_tokens_than_characters(tiny: TextEncoder, word: str, before: str) -> None:
    assert tiny.count_tokens(before + word) <= len(before + word)
