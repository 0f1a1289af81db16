"""The words of a segment's text: as written, as spoken, and the text tokens that speak them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engines.text.reading import SpokenSpan

_CHUNK = re.compile(r"\S+")
# A word's own signs stay: $5, 20%, C++, #1, @name. Brackets stay around a tag, such as [laugh].
_LEADING, _TRAILING = "\"'“”‘’«»‹›([{<*_~`.,;:!?…—–-¡¿|", "\"'“”‘’«»‹›)]}>*_~`.,;:!?…—–-|"
_MARKS = _LEADING + _TRAILING + " \n"
_JOINT = re.compile(r"(?<=\S)(?:—|…|--|\.{3})(?=\S)")  # answer—which
_ABBREVIATION = re.compile(r"(?:[^\W\d_]\.){2,}")  # p.m. keeps its last stop
_MAX_END_TOKENS = 20  # of a last word: more are a sentence of a language that writes no spaces
_TAG = re.compile(r"\[[a-z][a-z ]*\](?![(\[])", re.IGNORECASE)  # but no link


@dataclass(frozen=True)
class Word:
    """A word of a text. Its tokens are [first_token, stop_token), numbers in the segment; shares are parts of a token
    that also speaks other words.

    `last_token` is the first token of the last word in `spoken`, such as "cents" of "five cents"; None: first_token.
    """

    text: str  # as written
    start_char: int  # in the written text
    end_char: int
    spoken: str  # equal to `text` unless the text was normalised
    first_token: int
    stop_token: int
    first_share: float = 0.0
    stop_share: float = 1.0
    last_token: int | None = None

    @property
    def end_token(self) -> int:
        """The token at which the word is all but said: that of its last spoken word, or one near its end."""
        first = self.first_token if self.last_token is None else self.last_token
        return max(first, self.stop_token - _MAX_END_TOKENS)


@dataclass(frozen=True)
class TokenizedText:
    """A segment's text on its way to T3: `normalized` was tokenized; token i speaks normalized[slice(*offsets[i])]."""

    tokens: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    normalized: str


def words_of(
    written: str, tokenized: TokenizedText, spoken: str | None = None, spans: Sequence[SpokenSpan] = ()
) -> tuple[Word, ...]:
    """Returns the words that have tokens, in order. `spoken` with its `spans` is what `tokenized` was made from; None:
    the written text itself."""
    spoken = written if spoken is None else spoken
    positions = _positions(tokenized.normalized, spoken)
    found = []
    for start, stop in _written_words(written, spans):
        in_spoken = _in_spoken(start, stop, spans)
        said = spoken[slice(*in_spoken)]
        tokens = _tokens(in_spoken, positions, tokenized) if said.strip(_MARKS) else None
        if tokens is not None:
            last = _tokens((in_spoken[0] + _last_start(said), in_spoken[1]), positions, tokenized)
            last_token = None if last is None else last[0]
            found.append(Word(written[start:stop], start, stop, said, *tokens, last_token=last_token))
    return tuple(found)


def _last_start(said: str) -> int:
    """Where the last of several spoken words begins."""
    starts = [match.start() for match in _CHUNK.finditer(said) if any(char.isalnum() for char in match[0])]
    return starts[-1] if starts else 0


def _written_words(text: str, spans: Sequence[SpokenSpan]) -> list[tuple[int, int]]:
    """The words between white space and dashes, without the marks around them; what one span says is one word."""
    bounds: list[tuple[int, int]] = []
    tags = [match.span() for match in _TAG.finditer(text)]
    said = [span for span in spans if span.spoken_start < span.spoken_end]
    silent = [(span.written_start, span.written_end) for span in spans if span.spoken_start == span.spoken_end]
    for start, stop in _pieces(text, said):
        inside = next((tag for tag in tags if tag[0] < stop and start < tag[1]), None)
        start, stop = inside if inside is not None else _stripped(text, start, stop, silent)
        owners = [span for span in said if span.written_start < stop and start < span.written_end]
        if owners and start < stop:
            start, stop = min(start, owners[0].written_start), max(stop, owners[-1].written_end)
        if bounds and start < bounds[-1][1]:
            bounds[-1] = (min(bounds[-1][0], start), max(bounds[-1][1], stop))
        elif start < stop:
            bounds.append((start, stop))
    return bounds


def _pieces(text: str, said: Sequence[SpokenSpan]) -> Iterator[tuple[int, int]]:
    """The parts between white space, and between dashes and dots that join two words without any."""
    for chunk in _CHUNK.finditer(text):
        start = chunk.start()
        for joint in _JOINT.finditer(text, *chunk.span()):
            if not any(span.written_start < joint.end() and joint.start() < span.written_end for span in said):
                yield start, joint.start()
                start = joint.end()
        yield start, chunk.end()


def _stripped(text: str, start: int, stop: int, silent: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """A part without the marks around it, and without what is `silent` at its ends."""
    whole = None
    while whole != (start, stop):
        whole = start, stop
        while start < stop and text[start] in _LEADING:
            start += 1
        abbreviation = _ABBREVIATION.match(text, start, stop)
        while start < stop and text[stop - 1] in _TRAILING and (abbreviation is None or stop > abbreviation.end()):
            stop -= 1
        for first, last in silent:
            if first <= start < last:
                start = last
            if first < stop <= last:
                stop = first
    return start, stop


def _in_spoken(start: int, stop: int, spans: Sequence[SpokenSpan]) -> tuple[int, int]:
    """A part of the written text in the spoken one; it contains a span whole or not at all."""
    first, last, moved = start, stop, 0
    for span in spans:
        if span.written_end <= start:
            moved = span.spoken_end - span.written_end
            first, last = start + moved, stop + moved
        elif span.written_start < stop:
            if span.written_start >= start:
                last = span.spoken_end + stop - span.written_end
            else:
                first, last = span.spoken_start, span.spoken_end + stop - span.written_end
    return first, last


def _positions(normalized: str, spoken: str) -> list[int]:
    """For each character of `normalized` its place in `spoken`, -1 for one that normalisation put there.

    Normalisation drops and replaces marks, spaces and what is not spoken; letters and digits keep their order.
    """
    positions, at = [-1] * len(normalized), 0
    for index, char in enumerate(normalized):
        if not char.isalnum():
            if at < len(spoken) and spoken[at] == char:
                positions[index], at = at, at + 1
            continue
        found = _next(spoken, at, char)
        if found >= 0:
            positions[index], at = found, found + 1
    return positions


def _next(spoken: str, at: int, char: str) -> int:
    """The next place of a letter or its lower case; -1 if there is none."""
    places = [place for place in (spoken.find(char, at), spoken.find(char.lower(), at)) if place >= 0]
    return min(places, default=-1)


def _tokens(
    spoken: tuple[int, int], positions: Sequence[int], tokenized: TokenizedText
) -> tuple[int, int, float, float] | None:
    """The tokens of a part of the spoken text, as the last fields of a Word; None if it has none."""
    chars = [index for index, position in enumerate(positions) if spoken[0] <= position < spoken[1]]
    if not chars:
        return None
    start, stop = chars[0], chars[-1] + 1
    inside = [i for i, (first, last) in enumerate(tokenized.offsets) if first < stop and start < last]
    if not inside:
        return None
    first, last = tokenized.offsets[inside[0]], tokenized.offsets[inside[-1]]
    first_share = (start - _begin(tokenized, first)) / (first[1] - _begin(tokenized, first))
    stop_share = (stop - _begin(tokenized, last)) / (last[1] - _begin(tokenized, last))
    return inside[0], inside[-1] + 1, max(0.0, first_share), min(1.0, stop_share)


def _begin(tokenized: TokenizedText, offsets: tuple[int, int]) -> int:
    """Where a token's first character that is not a space stands."""
    text = tokenized.normalized[slice(*offsets)]
    return offsets[0] + (len(text) - len(text.lstrip()) if text.strip() else 0)
