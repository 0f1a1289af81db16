"""The one id space in which vLLM sees everything that T3 reads: speech, prompt speech, text, voices.

Pure arithmetic over ids; knows no engine. vLLM works on plain ids alone, so prefix caching, chunked prefill and CUDA
graphs need nothing special.

    0 .. 6562           speech tokens as T3 draws them: the only ids that are ever generated
    6563 .. 13125       the same tokens again, for prompts: what a sampler may penalise never comes from a prompt
    13126 ..            text tokens
    after them          voice slots, one id per voice in memory

The embedding's table holds [speech][text][voices]. Both kinds of speech id share their rows, so everything from 6563
up lies 6563 rows below its id.
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
        """How many ids there are; the last one is ids - 1."""
        return self.voice_start + self.voice_slots

    @property
    def rows(self) -> int:
        """Rows of the embedding's table."""
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

    def rows_of(self, ids: Tensor) -> Tensor:
        """The table's row of every id. Defined for any integer: what a CUDA graph is padded with embeds to some row.

        A function of each id alone: neither what stands beside it nor whether it is prompt or generated matters.
        """
        return (ids - SPEECH_VOCAB * (ids >= SPEECH_VOCAB)).clamp(0, self.rows - 1)


_START = PROMPT_SPEECH_START + START_SPEECH_TOKEN
