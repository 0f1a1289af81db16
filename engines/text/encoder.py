"""A segment's text to text tokens, by the tokenizer and the training of the loaded model."""

from __future__ import annotations

from functools import lru_cache

from engines.errors import quoted, unsupported
from engines.model_spec import ModelSpec
from engines.text.reading import Reading
from engines.text.speech_bound import max_speech_tokens
from engines.text.spoken import SpokenText
from engines.text.tokenizer import TextTokenizer
from engines.words.text import TokenizedText, Word, words_of

_MEASURED_WORDS = 32_768  # kept; most text consists of few words


class TextEncoder:
    """The text side of one loaded model. From any thread."""

    def __init__(self, tokenizer: TextTokenizer, spec: ModelSpec, max_chars: int) -> None:
        self._tokenizer = tokenizer
        self._spoken = SpokenText(spec.scripts, tokenizer.tags, speaks_tags=spec.speaks_tags, max_chars=max_chars)
        self.count_tokens = lru_cache(_MEASURED_WORDS)(self._count_tokens)

    slow_languages = frozenset[str]()
    missing_languages: tuple[tuple[str, str], ...] = ()

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that the model speaks."""
        return self._spoken.tags

    def __call__(self, text: str, language: str = "") -> tuple[int, ...]:
        """Returns the text tokens of a segment. Raises InvalidInput as SpokenText.prepare: also if the tokenizer has no
        token for any of its words, and for a language, which this model does not let one choose."""
        if language:
            raise unsupported("language", quoted(language), "this model", "none")
        text_tokens = self._tokenizer.encode(self._spoken.prepare(text))
        if not self._tokenizer.encodes_words(text_tokens):
            raise self._spoken.nothing_to_speak(text)
        return text_tokens

    def load_language(self, language: str) -> None:
        """Nothing: the model speaks English alone."""

    def words(self, reading: Reading, language: str = "") -> tuple[Word, ...]:
        """Returns the written words of a segment whose spoken text `__call__` accepts, with their text tokens."""
        normalized = self._spoken.prepare(reading.spoken)
        tokenized = TokenizedText(self._tokenizer.encode(normalized), self._tokenizer.offsets(normalized), normalized)
        return words_of(reading.written, tokenized, self._spoken.blanked(reading.spoken), reading.spans)

    def max_speech_tokens(self, text: str, language: str = "") -> int:
        """Returns the bound on the speech of a segment that `__call__` accepts."""
        return max_speech_tokens(self._spoken.prepare(text), self.tags)

    def _count_tokens(self, word: str) -> int:
        """Returns the text tokens of one word, with the space before it if it has one."""
        return len(self._tokenizer.encode(word))
