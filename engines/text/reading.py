"""What is spoken of a written text, and which part of the one comes from which part of the other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Claim(NamedTuple):
    """A part of a text, written[start:end], and what is spoken instead."""

    start: int
    end: int
    spoken: str


@dataclass(frozen=True)
class SpokenSpan:
    """spoken[spoken_start:spoken_end] is said for written[written_start:written_end]; either may be empty."""

    spoken_start: int
    spoken_end: int
    written_start: int
    written_end: int


@dataclass(frozen=True)
class Reading:
    """A written text and its spoken form. Outside of `spans`, which are in order, both have the same characters.

    ```python
    reading = replaced("It costs $5.", [Claim(9, 11, "five dollars")])
    assert reading.spoken == "It costs five dollars."
    assert reading.written_span(14, 21) == (9, 11)  # "dollars" is said for "$5"
    ```
    """

    written: str
    spoken: str
    spans: tuple[SpokenSpan, ...] = ()

    def written_span(self, start: int, end: int) -> tuple[int, int]:
        """Returns the part of `written` that spoken[start:end] is said for: whole spans, else the same characters."""
        return self._written_at(start, is_end=False), self._written_at(max(start, end), is_end=True)

    def _written_at(self, at: int, *, is_end: bool) -> int:
        shift = 0  # from a spoken index to a written one
        for span in self.spans:
            if at < span.spoken_start or (is_end and at == span.spoken_start):
                break
            if at < span.spoken_end or (is_end and at == span.spoken_end):
                return span.written_end if is_end else span.written_start
            shift = span.written_end - span.spoken_end
        return at + shift

    def then(self, later: Reading) -> Reading:
        """Returns the reading of `self.written` whose spoken form is that of `later`, a reading of `self.spoken`."""
        assert later.written == self.spoken
        if not self.spans or not later.spans:
            return Reading(self.written, later.spoken, self.spans or later.spans)
        origins = _composed(self, later)
        return Reading(self.written, later.spoken, tuple(_spans(self.written, later.spoken, origins)))

    def part(self, start: int, end: int) -> Reading:
        """Returns the reading of spoken[start:end], not empty. A span that is cut is written where it begins."""
        assert start < end
        first, last = self._cut(start), self._cut(end)
        spans = []
        for span in self.spans:
            spoken = max(span.spoken_start, start), min(span.spoken_end, end)
            written = max(span.written_start, first), min(span.written_end, last)
            is_silent = span.spoken_start == span.spoken_end and spoken[0] == spoken[1]
            if spoken[0] < spoken[1] or (is_silent and written[0] < written[1]):
                spans.append(SpokenSpan(spoken[0] - start, spoken[1] - start, written[0] - first, max(written) - first))
        return Reading(self.written[first:last], self.spoken[start:end], tuple(spans))

    def _cut(self, at: int) -> int:
        """Where `written` is cut if `spoken` is cut at this index."""
        if at in (0, len(self.spoken)):
            return len(self.written) if at else 0
        shift = 0
        for span in self.spans:
            if span.spoken_start < at < span.spoken_end:
                return span.written_end
            if span.spoken_end > at:
                break
            shift = span.written_end - span.spoken_end
        return at + shift


def replaced(written: str, claims: Iterable[Claim]) -> Reading:
    """Returns the reading in which each claim is spoken instead of its part. Claims do not overlap."""
    parts: list[str] = []
    spans: list[SpokenSpan] = []
    at = spoken_chars = 0
    for claim in sorted(claims):
        kept = written[at : claim.start]
        start = spoken_chars + len(kept)
        spoken_chars = start + len(claim.spoken)
        parts += (kept, claim.spoken)
        spans.append(SpokenSpan(start, spoken_chars, claim.start, claim.end))
        at = claim.end
    return Reading(written, "".join([*parts, written[at:]]), tuple(spans))


Origin = tuple[int, int]  # of a spoken character: the written part that it is said for


def _origins(reading: Reading) -> list[Origin]:
    """The origin of each spoken character."""
    origins: list[Origin] = []
    shift = 0
    for span in reading.spans:
        origins += [(at + shift, at + shift + 1) for at in range(len(origins), span.spoken_start)]
        origins += [(span.written_start, span.written_end)] * (span.spoken_end - span.spoken_start)
        shift = span.written_end - span.spoken_end
    return origins + [(at + shift, at + shift + 1) for at in range(len(origins), len(reading.spoken))]


def _composed(first: Reading, later: Reading) -> list[Origin]:
    inner = _origins(first)
    return [
        (inner[start][0], inner[end - 1][1])
        if end > start
        else (inner[start][0],) * 2
        if start < len(inner)
        else (len(first.written),) * 2
        for start, end in _origins(later)
    ]


def _spans(written: str, spoken: str, origins: list[Origin]) -> list[SpokenSpan]:
    """The parts where the two differ, from the origin of each spoken character."""
    spans: list[SpokenSpan] = []
    at = done = 0  # spoken, written
    while at < len(origins):
        start, end = origins[at]
        if (start, end) == (done, done + 1) and written[done] == spoken[at]:
            at, done = at + 1, end
            continue
        if start > done:  # written characters that are not spoken
            spans.append(SpokenSpan(at, at, done, start))
            done = start
            continue
        stop = at
        while stop < len(origins) and origins[stop] == (start, end):
            stop += 1
        while stop < len(origins) and origins[stop][0] < end:  # spans that overlap become one
            end = max(end, origins[stop][1])
            stop += 1
        spans.append(SpokenSpan(at, stop, min(start, done), max(end, done)))
        at, done = stop, max(end, done)
    if done < len(written):
        spans.append(SpokenSpan(at, at, done, len(written)))
    return spans
