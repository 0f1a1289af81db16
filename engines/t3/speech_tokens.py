"""The speech tokens of one segment: where it ends, and which drawn tokens are part of the speech.

The rules are those of upstream's `inference_turbo`, `inference` and `generate`.
"""

from __future__ import annotations

from dataclasses import dataclass

from engines.model_spec import SILENCE_SPEECH_TOKEN, SILENCE_TAIL_TOKENS, SPEECH_CODES, STOP_SPEECH_TOKEN


@dataclass(frozen=True)
class EndRules:
    """A family's rules.

    silence_tokens   that close every segment
    first_stop_ends  whether a stop that is drawn first ends the segment
    uncounted_draws  beyond `max_speech_tokens`: upstream's `inference_turbo` does not count the first
    """

    silence_tokens: int = SILENCE_TAIL_TOKENS
    first_stop_ends: bool = False
    uncounted_draws: int = 1


class SpeechTokens:
    """Accepts drawn tokens one by one until it is `finished`.

    `raw` holds every token as drawn, marks included: what is fed back to the net and what parity is measured on.
    Marks and ids without a meaning are not part of the speech. Three rules are not upstream's: `runaway_tokens` ends
    speech that is longer than its text can take; a segment without any speech is three silence tokens, since S3Gen
    cannot decode nothing; and a start mark in the middle does not drop the speech before it, which has been played.
    """

    def __init__(
        self, max_speech_tokens: int, runaway_tokens: int | None = None, rules: EndRules | None = None
    ) -> None:
        self.raw: list[int] = []
        self.count = 0  # speech tokens returned so far
        self.finished = False
        self.hit_limit = False  # ended by `max_speech_tokens`, not by a stop
        self.ran_away = False  # ended by `runaway_tokens`
        self._rules = rules or EndRules()
        self._max_draws = self._rules.uncounted_draws + max_speech_tokens
        uncounted = self._rules.uncounted_draws
        self._runaway_draws = self._max_draws + 1 if runaway_tokens is None else uncounted + runaway_tokens

    def accept(self, token: int) -> list[int]:
        """Add a drawn token; returns the speech tokens that follow from it, the closing silence included."""
        assert not self.finished, "no token is drawn after the end"
        self.raw.append(token)
        stopped = token == STOP_SPEECH_TOKEN and (self._rules.first_stop_ends or len(self.raw) > 1)
        self.hit_limit = not stopped and len(self.raw) == self._max_draws
        self.ran_away = not stopped and not self.hit_limit and len(self.raw) >= self._runaway_draws
        self.finished = stopped or self.hit_limit or self.ran_away
        speech_tokens = [token] if token < SPEECH_CODES else []
        if self.finished:
            is_empty = not self.count and not speech_tokens
            silence = SILENCE_TAIL_TOKENS if is_empty else self._rules.silence_tokens
            speech_tokens += [SILENCE_SPEECH_TOKEN] * silence
        self.count += len(speech_tokens)
        return speech_tokens
