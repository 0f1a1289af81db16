"""One segment's speech tokens as they are drawn: when the segment ends and which of them are codes to hand on.

Pure rules of upstream's `inference_turbo` and `generate`; knows no net and no sampling.
"""

from __future__ import annotations

from engines.model_spec import SILENCE_SPEECH_TOKEN, SILENCE_TAIL_TOKENS, SPEECH_CODES, STOP_SPEECH_TOKEN


class SpeechTokens:
    """Takes token after token until it is `finished`.

    `raw` holds every token as drawn, marks included: what is fed back to the net and what parity is measured on.
    Upstream's rules: a stop drawn first is not a stop; `max_speech_tokens` counts the tokens after the first, so that
    1000 allows 1001 draws; marks are never handed on; three silence codes close every segment.
    """

    def __init__(self, max_speech_tokens: int) -> None:
        self.raw: list[int] = []
        self.speech_tokens = 0  # handed on so far
        self.finished = False
        self.hit_limit = False  # ended by `max_speech_tokens`, not by a stop
        self._most = 1 + max_speech_tokens

    def accept(self, token: int) -> list[int]:
        """Add a drawn token; returns the codes that are ready because of it, the closing silence included."""
        assert not self.finished, "no token is drawn after the end"
        self.raw.append(token)
        stopped = token == STOP_SPEECH_TOKEN and len(self.raw) > 1
        self.finished = stopped or len(self.raw) == self._most
        self.hit_limit = self.finished and not stopped
        speech_tokens = [token] if token < SPEECH_CODES else []
        if self.finished:
            speech_tokens += [SILENCE_SPEECH_TOKEN] * SILENCE_TAIL_TOKENS
        self.speech_tokens += len(speech_tokens)
        return speech_tokens
