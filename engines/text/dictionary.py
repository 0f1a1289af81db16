"""A pronunciation dictionary: words and the respellings that are spoken instead."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engines.errors import InvalidInput
from engines.text.reading import Claim

MAX_WORD_CHARS = 100
MAX_RESPELLING_CHARS = 200
MAX_ENTRIES = 1000  # of a request
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # kana, Chinese characters: each is a word of its own
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")
_Token = tuple[str, int, int]  # its text, start and end
_GREEK = re.compile(r"[\u0370-\u03b7\u03b9-\u03ff]")  # without θ, which is a phoneme of English, too
_IPA = re.compile(r"[\u0250-\u02af\u02c8\u02cc\u02d0\u02d1θðŋ]")
_SLASHED = re.compile(r"/[^/]*/|\[[^\]]*[^a-z \]][^\]]*\]")


@dataclass(frozen=True)
class Entry:
    """A word, or several, and its respelling. An entry that regards case wins over one that does not.

    ```python
    Entry("nginx", "engine ex")
    Entry("US", "you ess", case_sensitive=True)  # not "us"
    ```
    """

    word: str
    respelling: str
    case_sensitive: bool = False


class Dictionary:
    """Entries, and a dictionary behind them for words that they lack. Where several entries match, the longest wins,
    then the one that regards case, then the last one given."""

    def __init__(self, entries: Iterable[Entry] = (), behind: Dictionary | None = None) -> None:
        """Raises InvalidInput for an entry that cannot be spoken."""
        self.entries = tuple(entries)
        self._behind = behind
        self._by_token: dict[str, list[_Compiled]] = {}
        for number, entry in enumerate(self.entries):
            check(entry)
            compiled = _Compiled(entry, number)
            self._by_token.setdefault(compiled.folded[0], []).append(compiled)
        for compiled_entries in self._by_token.values():
            compiled_entries.sort(key=lambda each: each.rank, reverse=True)

    def __bool__(self) -> bool:
        return bool(self.entries) or bool(self._behind)

    @property
    def entry_count(self) -> int:
        """The entries, with those of the dictionaries behind."""
        return len(self.entries) + (self._behind.entry_count if self._behind is not None else 0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dictionary) and (self.entries, self._behind) == (other.entries, other._behind)

    def __hash__(self) -> int:
        return hash((self.entries, self._behind))

    def claims(self, text: str) -> Iterator[Claim]:
        """The whole words of `text` that are respelled, from left to right."""
        if not self:
            return
        tokens = [(match[0], match.start(), match.end()) for match in _TOKEN.finditer(text)]
        at = 0
        while at < len(tokens):
            found = self._find(tokens, at)
            if found is None:
                at += 1
                continue
            last = at + len(found.tokens) - 1
            yield Claim(tokens[at][1], tokens[last][2], found.entry.respelling)
            at = last + 1

    def _find(self, tokens: list[_Token], at: int) -> _Compiled | None:
        """The entry for the words that begin with this token."""
        candidates = self._by_token.get(tokens[at][0].casefold(), ())
        found = next((each for each in candidates if each.matches(tokens, at)), None)
        if found is None and self._behind is not None:
            return self._behind._find(tokens, at)
        return found


EMPTY = Dictionary()


class _Compiled:
    """An entry's tokens, each with whether white space precedes it."""

    def __init__(self, entry: Entry, number: int) -> None:
        self.entry = entry
        self.tokens = [
            (match[0], match.start() > 0 and entry.word[match.start() - 1].isspace())
            for match in _TOKEN.finditer(entry.word)
        ]
        self.folded = [token.casefold() for token, _ in self.tokens]
        self.rank = (len(self.tokens), entry.case_sensitive, number)

    def matches(self, tokens: list[_Token], at: int) -> bool:
        if at + len(self.tokens) > len(tokens):
            return False
        for offset, (token, spaced) in enumerate(self.tokens):
            word, start, _ = tokens[at + offset]
            if offset and spaced != (start > tokens[at + offset - 1][2]):
                return False
            if (word != token) if self.entry.case_sensitive else (word.casefold() != self.folded[offset]):
                return False
        return True


def check(entry: Entry) -> None:
    """Raises InvalidInput with reason DICTIONARY_IPA_UNSUPPORTED for phonemes, DICTIONARY_ENTRY_INVALID otherwise."""
    word, respelling = entry.word, entry.respelling
    if not 0 < len(word) <= MAX_WORD_CHARS or not _has_words(word) or word != word.strip():
        raise _invalid(f"the word {word[:40]!r}", f"1 to {MAX_WORD_CHARS} characters with a letter or a digit")
    read = respelling.replace("θ", "") if _GREEK.search(respelling) else respelling
    if _IPA.search(read) or _SLASHED.fullmatch(respelling.strip()):
        allowed = "a respelling in ordinary letters, such as 'engine ex'"
        message = f"The pronunciation of {word!r} is {respelling[:40]!r}, which is phonetic; it must be {allowed}."
        raise InvalidInput(
            "text.dictionary", message, "DICTIONARY_IPA_UNSUPPORTED", value=repr(respelling[:80]), allowed=allowed
        )
    if len(respelling) > MAX_RESPELLING_CHARS or not _has_words(respelling):
        allowed = f"at most {MAX_RESPELLING_CHARS} characters with a letter or a digit"
        raise _invalid(f"the respelling {respelling[:40]!r} of {word!r}", allowed)


def check_count(count: int, max_entries: int = MAX_ENTRIES) -> None:
    """Raises InvalidInput with reason DICTIONARY_TOO_LONG for more than `max_entries` entries."""
    if count > max_entries:
        allowed = f"at most {max_entries} entries"
        message = f"The dictionary has {count} entries; it may have {allowed}."
        raise InvalidInput("text.dictionary", message, "DICTIONARY_TOO_LONG", value=count, allowed=allowed)


def parse(content: str, where: str = "the dictionary") -> tuple[Entry, ...]:
    """Returns the entries of a file: one `word = respelling` in each line; a word in double quotes regards case.

    Empty lines and those that begin with "#" are left out. Raises InvalidInput, which names the line.
    """
    entries = []
    for number, line in enumerate(content.splitlines(), 1):
        stripped = line.strip().removeprefix("\ufeff")
        if not stripped or stripped.startswith("#"):
            continue
        word, equals, respelling = (part.strip() for part in stripped.partition("="))
        quoted = len(word) > 2 and word[0] == word[-1] == '"'
        entry = Entry(word[1:-1] if quoted else word, respelling, quoted)
        try:
            if not equals:
                raise _invalid(f"the line {stripped[:60]!r}", "word = respelling")
            check(entry)
        except InvalidInput as error:
            message = f"{where}, line {number}: {error}"
            raise InvalidInput(
                "text.dictionary", message, error.reason, value=stripped[:80], allowed=error.allowed
            ) from None
        entries.append(entry)
    return tuple(entries)


def _has_words(text: str) -> bool:
    if any(unicodedata.category(char) in ("Cc", "Cs", "Co") for char in text):
        return False
    return any(char.isalnum() for char in text)


def _invalid(what: str, allowed: str) -> InvalidInput:
    message = f"The dictionary has {what}; it must be {allowed}."
    return InvalidInput("text.dictionary", message, "DICTIONARY_ENTRY_INVALID", value=what, allowed=allowed)
