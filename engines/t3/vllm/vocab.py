"""The vocabulary of Turbo's and Nano's T3 under vLLM: one id space for speech, prompt speech, text and voices.

vLLM sees plain ids only, so that prefix caching, chunked prefill and CUDA graphs work unchanged.

    0 .. 6562           speech tokens as T3 draws them: the only ids that are generated
    6563 .. 13125       the same tokens in prompts: a sampler must not penalise ids of a prompt
    13126 ..            text tokens
    after them          voice slots, one id per voice in memory

The embedding's table holds [speech][text][voices]. Both kinds of speech ids share their rows, so that the row of an id
from 6563 up is the id minus 6563.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from engines.model_spec import SPEECH_VOCAB, START_SPEECH_TOKEN

PROMPT_SPEECH_START = SPEECH_VOCAB
TEXT_START = 2 * SPEECH_VOCAB


@dataclass(frozen=True)
class IdSpace:
    """Ids for a model of `text_vocab` text tokens with room for `voice_slots` voices."""

    text_vocab: int
    voice_slots: int

    @property
    def voice_start(self) -> int:
        return TEXT_START + self.text_vocab

    @property
    def ids(self) -> int:
        """The number of ids."""
        return self.voice_start + self.voice_slots

    @property
    def rows(self) -> int:
        """The number of rows of the embedding's table."""
        return self.ids - SPEECH_VOCAB

    @property
    def first_text_row(self) -> int:
        return TEXT_START - SPEECH_VOCAB

    @property
    def first_voice_row(self) -> int:
        return self.voice_start - SPEECH_VOCAB

    def prompt(self, voice_slot: int, prompt_speech: Iterable[int], text: Iterable[int]) -> list[int]:
        """[voice][prompt speech tokens][text][start of speech], as upstream lays a prompt out."""
        assert 0 <= voice_slot < self.voice_slots
        speech = [PROMPT_SPEECH_START + token for token in prompt_speech]
        return [self.voice_start + voice_slot, *speech, *(TEXT_START + token for token in text), _START]

    def drawn(self, token: int, step: int) -> int:
        """The id by which the token that was drawn in this step is read: itself."""
        return token

    def token(self, drawn: int) -> int:
        """The token of an id that was drawn."""
        return drawn

    def rows_of(self, ids: Tensor) -> Tensor:
        """The table's row of every id. Every integer has one, because a CUDA graph is padded with arbitrary ids.

        The row depends on the id alone, not on its neighbours or on whether it is from a prompt.
        """
        return (ids - SPEECH_VOCAB * (ids >= SPEECH_VOCAB)).clamp(0, self.rows - 1)


_START = PROMPT_SPEECH_START + START_SPEECH_TOKEN
