"""The text front end: what is spoken of a segment, and of which part of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from engines.text import emoji, markdown
from engines.text.dictionary import EMPTY, Dictionary
from engines.text.english import RULES
from engines.text.english.rule import Rule, signs_of
from engines.text.languages import ENGLISH
from engines.text.normalize import control_sequences
from engines.text.reading import Claim, Reading, replaced

_KEPT = "\0kept"  # a claim that takes a part and leaves it as it is
_NEEDED = frozenset().union(*(each.needs for each in RULES))
_SETS_OF_SIGNS = 1024  # whose rules are kept; most sentences have few of the signs


class FrontEnd:
    """Reads the segments of a stream. A pure function of a segment: the way its text arrived changes nothing.

    normalize   leave out Markdown; read numbers, dates, abbreviations and so on as English words where `language` is
                English
    name_emoji  speak the names of emoji
    dictionary  respellings of words; they come first
    """

    def __init__(
        self,
        *,
        normalize: bool = True,
        name_emoji: bool = False,
        dictionary: Dictionary = EMPTY,
        language: str = ENGLISH,
    ) -> None:
        self._is_english = language == ENGLISH
        self._normalize, self._name_emoji = normalize, name_emoji
        self._dictionary = dictionary

    @property
    def changes_nothing(self) -> bool:
        return not (self._normalize or self._name_emoji or self._dictionary)

    def read(self, written: str, fixed: Iterable[Claim] = ()) -> Reading:
        """Returns what is spoken. `fixed` are parts whose spoken form is given; no rule reads them."""
        first = [*fixed, *self._dictionary.claims(written)]
        if self._name_emoji:
            first += emoji.claims(written)
        if not self._normalize:
            return replaced(written, _first_of(written, first))
        first += [Claim(start, end, "") for start, end in control_sequences(written)]
        marks = _first_of(written, [*first, *markdown.claims(written)])
        plain = replaced(written, marks)
        if not self._is_english:
            return plain
        words = read_english(plain.spoken, _spoken_parts(plain, set(first)))
        return plain.then(words) if marks else words


def read_english(text: str, kept: Iterable[tuple[int, int]] = ()) -> Reading:
    """Returns the reading of plain English text; the parts `kept` stay as they are."""
    return replaced(text, [claim for claim in _first_of(text, _matches(text, kept)) if claim.spoken is not _KEPT])


def _matches(text: str, kept: Iterable[tuple[int, int]]) -> Iterator[Claim]:
    for start, end in kept:
        yield Claim(start, end, _KEPT)
    for each in _rules_for(signs_of(text) & _NEEDED):
        yield from _claims(each, text)


@lru_cache(_SETS_OF_SIGNS)
def _rules_for(signs: frozenset[str]) -> tuple[Rule, ...]:
    """Returns the rules that may have a match in a text with these signs."""
    return tuple(each for each in RULES if each.may_match(signs))


def _claims(each: Rule, text: str) -> Iterator[Claim]:
    group: int | str = "claim" if "claim" in each.pattern.groupindex else 0
    for match in each.pattern.finditer(text):
        spoken = each.speak(match)
        if spoken is not None:
            yield Claim(*match.span(group), spoken)


def _first_of(text: str, claims: Iterable[Claim]) -> list[Claim]:
    """Returns the claims that no earlier one overlaps."""
    taken = bytearray(len(text) + 1)
    won = []
    for claim in claims:
        start, end, _ = claim
        if start == end or any(taken[start:end]):
            continue
        taken[start:end] = b"\1" * (end - start)
        won.append(claim)
    return won


def _spoken_parts(reading: Reading, claims: set[Claim]) -> Iterator[tuple[int, int]]:
    """Where the claims' spoken forms stand."""
    starts = {claim.start for claim in claims}
    for span in reading.spans:
        if span.written_start in starts and span.spoken_end > span.spoken_start:
            yield span.spoken_start, span.spoken_end
