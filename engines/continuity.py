"""Continuity: a segment's speech goes on from that of the segment before, whose last speech tokens are its context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engines.model_spec import SILENCE_SPEECH_TOKEN


@dataclass(frozen=True)
class Continuity:
    """How many speech tokens of the segment before an engine's parts get, at most; 0: none.

    t3_tokens     in place of the voice's last prompt tokens, so that the keys and values of the others stay shared
    s3gen_tokens  before the segment's first, as left context
    """

    t3_tokens: int = 25
    s3gen_tokens: int = 0

    def t3_context(self, speech_tokens: Sequence[int], prompt_tokens: int) -> tuple[int, ...]:
        """The context of T3 behind a segment with these speech tokens; at most half of the voice's prompt."""
        return _last(spoken(speech_tokens), min(self.t3_tokens, prompt_tokens // 2))

    def s3gen_context(self, speech_tokens: Sequence[int]) -> tuple[int, ...]:
        """The context of S3Gen behind a segment with these speech tokens."""
        return _last(tuple(speech_tokens), self.s3gen_tokens)


def spoken(speech_tokens: Sequence[int]) -> tuple[int, ...]:
    """The speech tokens without the silence at their end."""
    tokens = tuple(speech_tokens)
    while tokens and tokens[-1] == SILENCE_SPEECH_TOKEN:
        tokens = tokens[:-1]
    return tokens


def _last(tokens: tuple[int, ...], count: int) -> tuple[int, ...]:
    return tokens[-count:] if count else ()
