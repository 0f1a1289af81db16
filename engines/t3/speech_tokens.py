"""The speech tokens of one segment: where it ends, and which drawn tokens are part of the speech.

The rules are those of upstream's `inference_turbo` and `generate`.
"""

from __future__ import annotations

from engines.model_spec import SILENCE_SPEECH_TOKEN, SILENCE_TAIL_TOKENS, SPEECH_CODES, STOP_SPEECH_TOKEN


class SpeechTokens:
    """Accepts drawn tokens one by one until it is `finished`.

    `raw` holds every token as drawn, marks included: what is fed back to the net and what parity is measured on.
    Upstream's rules: a stop drawn first does not end the segment; `max_speech_tokens` counts the tokens after the
    first, so that 1000 allows 1001 draws; marks are not part of the speech; three silence tokens close every segment.
    One rule is not upstream's: `runaway_tokens` ends speech that is longer than its text can take.
    """

    def __init__(self, max_speech_tokens: int, runaway_tokens: int | None = None) -> None:
        self.raw: list[int] = []
        self.count = 0  # speech tokens returned so far
        self.finished = False
        self.hit_limit = False  # ended by `max_speech_tokens`, not by a stop
        self.ran_away = False  # ended by `runaway_tokens`
        self._max_draws = 1 + max_speech_tokens
        self._runaway_draws = self._max_draws + 1 if runaway_tokens is None else 1 + runaway_tokens

    def accept(self, token: int) -> list[int]:
        """Add a drawn token; returns the speech tokens that follow from it, the closing silence included."""
        assert not self.finished, "no token is drawn after the end"
        self.raw.append(token)
        stopped = token == STOP_SPEECH_TOKEN and len(self.raw) > 1
        self.hit_limit = not stopped and len(self.raw) == self._max_draws
        self.ran_away = not stopped and not self.hit_limit and len(self.raw) >= self._runaway_draws
        self.finished = stopped or self.hit_limit or self.ran_away
        speech_tokens = [token] if token < SPEECH_CODES else []
        if self.finished:
            speech_tokens += [SILENCE_SPEECH_TOKEN] * SILENCE_TAIL_TOKENS
        self.count += len(speech_tokens)
        return speech_tokens
