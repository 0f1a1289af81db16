"""Text of standard and Multilingual: tokens, words with their places, bounds, and what no text may contain."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from engines.checkpoints.random_tokenizer import write_random_tokenizer
from engines.errors import CheckpointError, InvalidInput
from engines.model_spec import MULTILINGUAL_TINY, SPEECH_TOKENS_PER_S, STANDARD_TINY, ModelSpec
from engines.text.character_tokenizer import CharacterTokenizer
from engines.text.language_encoder import LanguageEncoder
from engines.text.reading import Reading


def encoder(folder: Path, spec: ModelSpec) -> LanguageEncoder:
    write_random_tokenizer(folder, spec)
    return LanguageEncoder(CharacterTokenizer(folder / spec.tokenizer_name, spec.t3.text_vocab), spec, 1000, folder)


@pytest.fixture(scope="module")
def standard(tmp_path_factory: pytest.TempPathFactory) -> LanguageEncoder:
    return encoder(tmp_path_factory.mktemp("standard"), STANDARD_TINY)


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> LanguageEncoder:
    return encoder(tmp_path_factory.mktemp("multilingual"), MULTILINGUAL_TINY)


def spelled(of: LanguageEncoder, text: str, language: str = "") -> list[str | None]:
    return [of._tokenizer._tokenizer.id_to_token(number) for number in of(text, language)]


def test_a_space_is_a_token_and_case_is_kept(standard: LanguageEncoder) -> None:
    assert spelled(standard, "the Sea") == ["T", "he", "[SPACE]", "S", "e", "a", "."]


def test_a_language_is_the_first_token_and_letters_are_small_and_apart(multilingual: LanguageEncoder) -> None:
    assert spelled(multilingual, "Größe", "de") == ["[de]", "g", "r", "o", "\u0308", "ß", "e", "."]
    assert spelled(multilingual, "Hi")[0] == "[en]"


@pytest.mark.parametrize("text", ["[START] a", "a [STOP]", "a[space]b", "[de] a", "a [DE]", "[cj_a] b", "[UNK]b"])
def test_no_text_may_write_a_mark(multilingual: LanguageEncoder, text: str) -> None:
    marks = [token for token in spelled(multilingual, text)[1:] if token.startswith("[") and token != "[SPACE]"]
    assert not marks


@pytest.mark.parametrize(
    "text",
    [
        "［de］ a",
        "[ｄｅ] a",
        "﹇de﹈ a",
        "[d\u00ade] a",
        "[\u200bde] a",
        "[de\U0001f600] a",
        "[d\x1b[31me] a",
        "[d\x00e] a",
    ],
)
def test_a_mark_in_disguise_is_no_mark(multilingual: LanguageEncoder, text: str) -> None:
    assert [token for token in spelled(multilingual, text) if token != "[SPACE]"] == ["[en]", "a", "."]
    assert [word.text for word in multilingual.words(Reading(text, text))] == ["a"]


def test_a_mark_of_standard_in_disguise_is_no_mark(standard: LanguageEncoder) -> None:
    for text in ("a [ST\u00adOP]", "a [STOP\U0001f600]", "a [\x1b[0mSTART]"):
        assert [token for token in spelled(standard, text) if token != "[SPACE]"] == ["A", "."]


def test_a_text_of_marks_alone_holds_nothing_to_speak(standard: LanguageEncoder) -> None:
    for text in ("[laughter]", "[START] [STOP]", "...", "日本"):
        with pytest.raises(InvalidInput):
            standard(text)


def test_a_language_that_the_model_lacks_is_refused_with_those_it_has(
    standard: LanguageEncoder, multilingual: LanguageEncoder
) -> None:
    with pytest.raises(InvalidInput, match="must be one of en") as error:
        standard("Guten Tag", "de")
    assert error.value.reason == "LANGUAGE_UNSUPPORTED"
    with pytest.raises(InvalidInput, match="must be one of ar, da, de"):
        multilingual("Hello", "xx")
    with pytest.raises(InvalidInput) as script:
        multilingual("Привет", "de")
    assert script.value.reason == "SCRIPT_UNSUPPORTED"
    assert multilingual("Καλημέρα", "el")


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Well, the \u201csea\u201d is blue..."),
        ("de", "Schöne Grüße, Öl!"),
        ("ko", "안녕하세요, 세계!"),
        ("hi", "नमस्ते, आप कैसे हैं?"),
        ("el", "ΑΘΗΝΑ είναι εδώ"),
        ("tr", "İstanbul güzel"),
    ],
)
def test_words_have_the_tokens_that_speak_them(multilingual: LanguageEncoder, language: str, text: str) -> None:
    words = multilingual.words(Reading(text, text), language)
    assert [word.text for word in words] == [chunk.strip("\u201c\u201d,.!?") for chunk in text.split()]
    tokens = spelled(multilingual, text, language)
    for word, following in zip(words, [*words[1:], None], strict=True):
        assert 0 < word.first_token < word.stop_token <= (following.first_token if following else len(tokens))
        assert tokens[word.first_token] not in ("[SPACE]", f"[{language}]")


def test_standards_words_too(standard: LanguageEncoder) -> None:
    words = standard.words(Reading("The [laughter] cat's here", "The [laughter] cat's here"))
    tokens = spelled(standard, "The [laughter] cat's here")
    assert {"The": "The", "cat's": "cat's", "here": "here"}.items() <= {
        word.text: "".join(filter(None, tokens[word.first_token : word.stop_token])) for word in words
    }.items()


def test_a_front_end_that_rewrites_its_text_has_no_words(
    multilingual: LanguageEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.text.language_encoder.prepare", lambda text, language, folder: "[zh][cj_a]b")
    assert multilingual.words(Reading("日", "日"), "zh") == ()


@pytest.mark.parametrize(
    ("language", "text", "slow_s"),
    [
        ("en", "Good morning to all of you.", 4.0),
        ("de", "Donaudampfschifffahrt, bitte.", 4.0),
        ("ko", "안녕하세요, 만나서 반갑습니다.", 5.0),
        ("hi", "नमस्ते, आप कैसे हैं?", 4.0),
        ("ar", "مرحبا، كيف حالك؟", 4.0),
        ("ru", "Привет, как дела?", 4.0),
    ],
)
def test_the_bound_on_speech_is_far_above_slow_speech(
    multilingual: LanguageEncoder, language: str, text: str, slow_s: float
) -> None:
    bound_s = multilingual.max_speech_tokens(text, language) / SPEECH_TOKENS_PER_S
    assert 1.5 * slow_s < bound_s < 40 * slow_s


def test_words_of_a_stream_are_measured_in_tokens(multilingual: LanguageEncoder) -> None:
    assert multilingual.count_tokens(" the") == 2
    assert multilingual.count_tokens("世界") >= 10


@settings(deadline=None)
@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40), st.sampled_from(["", " "])
)
def test_ascii_text_has_no_more_tokens_than_characters(
    standard: LanguageEncoder, multilingual: LanguageEncoder, word: str, before: str
) -> None:
    for each in (standard, multilingual):
        assert each.count_tokens(before + word) <= len(before + word)


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    write_random_tokenizer(tmp_path, STANDARD_TINY)
    path = tmp_path / "tokenizer.json"
    with pytest.raises(CheckpointError, match=r"beyond T3's text vocabulary of 300"):
        CharacterTokenizer(path, 300)
    tokenizer = Tokenizer.from_file(str(path)).to_str().replace("[START]", "[BEGIN]")
    path.write_text(tokenizer)
    with pytest.raises(CheckpointError, match=r"lacks \[START\]"):
        CharacterTokenizer(path, 704)
    path.write_text("{")
    with pytest.raises(CheckpointError, match="not a readable tokenizer"):
        CharacterTokenizer(path, 704)
