"""A segment's text to text tokens for standard and Multilingual: punctuation, then the language's own way."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache, partial
from pathlib import Path

from engines.errors import InvalidInput, quoted
from engines.model_spec import ModelSpec
from engines.text.character_tokenizer import CharacterTokenizer
from engines.text.languages import ENGLISH, SLOW, load, missing_things, prepare, scripts_of
from engines.text.normalize import clean, control_sequences, normalize_punctuation
from engines.text.reading import Reading
from engines.text.speech_bound import max_speech_tokens
from engines.text.spoken import SpokenText
from engines.words.text import TokenizedText, Word, words_of

_MEASURED_WORDS = 32_768  # kept; most text consists of few words
_HAN_TOKENS = 5  # of one Chinese character, in its codes


class LanguageEncoder:
    """The text side of one loaded model, as TextEncoder. From any thread."""

    def __init__(
        self, tokenizer: CharacterTokenizer, spec: ModelSpec, max_chars: int, folder: Path | None = None
    ) -> None:
        """`folder`: the checkpoint's, for languages whose front end reads a file of it."""
        self._tokenizer, self._languages, self._folder = tokenizer, spec.languages, folder
        reserved = "|".join(re.escape(token) for token in tokenizer.reserved)
        self._reserved = re.compile(reserved, re.IGNORECASE)
        punctuate = partial(normalize_punctuation, wide_endings=bool(spec.languages))
        self._spoken = {
            language: SpokenText(scripts_of(language), max_chars=max_chars, normalize=punctuate)
            for language in spec.languages or (ENGLISH,)
        }
        self.count_tokens = lru_cache(_MEASURED_WORDS)(self._count_tokens)

    @property
    def slow_languages(self) -> frozenset[str]:
        """The languages whose front end takes long, and which `__call__` and `words` read in a thread of their own."""
        return SLOW & self._spoken.keys()

    @property
    def missing_languages(self) -> tuple[tuple[str, str], ...]:
        """The languages that cannot be spoken here, each with the package or the file that is missing."""
        missing = missing_things(self._folder)
        return tuple((code, missing[code]) for code in self._languages if code in missing)

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that the model speaks: none that upstream documents."""
        return ()

    def __call__(self, text: str, language: str = "") -> tuple[int, ...]:
        """Returns the text tokens of a segment, without the marks around it.

        Raises InvalidInput as SpokenText.prepare, with reason LANGUAGE_UNSUPPORTED if the model does not speak
        `language`, and as the language's front end. An empty language is English, where there is a choice.
        """
        text_tokens = self._tokenizer.encode(self._prepared(self._punctuated(text, language), language))
        if not self._tokenizer.encodes_words(text_tokens):
            raise self._rule(language).nothing_to_speak(text)
        return text_tokens

    def load_language(self, language: str) -> None:
        """Load what a language's front end needs. Slow, for a thread. Raises InvalidInput as `__call__`."""
        self._rule(language)
        if self._languages:
            load(language or ENGLISH, self._folder)

    def words(self, reading: Reading, language: str = "") -> tuple[Word, ...]:
        """Returns the written words of a segment that `__call__` accepts, with their text tokens.

        Empty if the language's front end rewrites the text, so that its letters are not those that were written.
        """
        punctuated = self._punctuated(reading.spoken, language)
        prepared = self._prepared(punctuated, language)
        plain = _plain(punctuated) if self._languages else punctuated
        if not prepared.endswith(plain):
            return ()
        # a character may become several, é an e and an accent: offsets are those of the written one
        units = [len(_plain(char)) if self._languages else 1 for char in punctuated]
        places = [index for index, length in enumerate(units) for _ in range(length)]
        if len(places) != len(plain):
            return ()
        code = len(prepared) - len(plain)  # of the language, before the text
        offsets = [
            (0, 0) if stop <= code else (places[max(start - code, 0)], places[stop - code - 1] + 1)
            for start, stop in self._tokenizer.offsets(prepared)
        ]
        tokenized = TokenizedText(self._tokenizer.encode(prepared), tuple(offsets), punctuated)
        return words_of(reading.written, tokenized, self._without_reserved(reading.spoken, keep=True), reading.spans)

    def max_speech_tokens(self, text: str, language: str = "") -> int:
        """Returns the bound on the speech of a segment that `__call__` accepts."""
        return max_speech_tokens(self._punctuated(text, language))

    def _rule(self, language: str) -> SpokenText:
        """Raises InvalidInput if the model does not speak the language."""
        rule = self._spoken.get(language or ENGLISH)
        if rule is None:
            allowed = ", ".join(self._spoken)
            message = f"language is {quoted(language)}, which this model does not speak; it must be one of {allowed}."
            raise InvalidInput("language", message, "LANGUAGE_UNSUPPORTED", value=quoted(language), allowed=allowed)
        return rule

    def _punctuated(self, text: str, language: str) -> str:
        return self._rule(language).prepare(self._without_reserved(text))

    def _prepared(self, text: str, language: str) -> str:
        return prepare(text, language or ENGLISH, self._folder) if self._languages else text

    def _without_reserved(self, text: str, *, keep: bool = False) -> str:
        """Returns `text` with a space in place of each mark of the tokenizer.

        `keep`: with a space for each of its characters, so that all others keep their places
        """
        kept, at = [], 0
        for start, stop in self._marks(text):
            kept += [text[at:start], " " * (stop - start) if keep else " "]
            at = stop
        return "".join(kept) + text[at:]

    def _marks(self, text: str) -> list[tuple[int, int]]:
        """Returns where `text` writes a mark: also in wide letters, or with what is not spoken between its letters."""
        if text.isascii() and "[" not in text:
            return []
        hidden = {index for start, stop in control_sequences(text) for index in range(start, stop)}
        read = [
            (index, part)
            for index, char in enumerate(text)
            if index not in hidden
            for part in (_plain_char(char) if self._languages else _spoken_char(char))
        ]
        found = self._reserved.finditer("".join(part for _, part in read))
        return [(read[match.start()][0], read[match.end() - 1][0] + 1) for match in found]

    def _count_tokens(self, word: str) -> int:
        """Returns the text tokens of one word, with the space before it if it has one. In Chinese it is an
        estimate."""
        text = _plain(word) if self._languages else word
        han = sum(unicodedata.name(char, "").startswith("CJK UNIFIED") for char in text) if self._languages else 0
        return len(self._tokenizer.encode(text)) + han * _HAN_TOKENS


@lru_cache(4096)
def _spoken_char(char: str) -> str:
    """The character, or an empty string if it is not spoken."""
    return clean(char)


@lru_cache(4096)
def _plain_char(char: str) -> str:
    """What Multilingual makes of one character."""
    return _plain(_spoken_char(char))


def _plain(text: str) -> str:
    """What Multilingual makes of text in every language: lower case, and letters apart from their accents."""
    return unicodedata.normalize("NFKD", text.lower())
