"""The limits of what is spoken in one segment: a short text such as a number can be long when it is spoken."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from engines.text.reading import Reading
from service.stream.segmenter import clause_end
from service.stream.sentences.english import ENGLISH
from service.stream.sentences.rules import SentenceRules
from service.stream.token_meter import TokenMeter


class SpokenLimits:
    """Cuts a reading at the ends of clauses into parts that the model speaks well."""

    def __init__(
        self, max_chars: int, max_tokens: int, count_tokens: Callable[[str], int], rules: SentenceRules = ENGLISH
    ) -> None:
        self._rules = rules
        self._max_chars, self._max_tokens, self._count_tokens = max_chars, max_tokens, count_tokens

    def parts(self, reading: Reading) -> Iterator[Reading]:
        """Yields the parts, whose spoken forms have no white space around them."""
        spoken = reading.spoken
        start = 0
        while (length := self._next_length(spoken, start)) < len(spoken) - start:
            part = _stripped(reading, start, start + length)
            if part is not None:
                yield part
            start += length
        rest = reading if not start else _stripped(reading, start, len(spoken))
        if rest is not None:
            yield rest

    def _next_length(self, spoken: str, start: int) -> int:
        rest = len(spoken) - start
        if not rest:
            return 0
        max_chars = TokenMeter(self._count_tokens, self._max_tokens).fit_chars(spoken, start, self._max_chars, True)
        return rest if rest <= max_chars else clause_end(spoken[start : start + max_chars + 1], max_chars, self._rules)


def _stripped(reading: Reading, start: int, end: int) -> Reading | None:
    """The part without white space around it, or None if nothing else is in it."""
    part = reading.spoken[start:end]
    end -= len(part) - len(part.rstrip())
    start += len(part) - len(part.lstrip())
    return reading.part(start, end) if start < end else None
