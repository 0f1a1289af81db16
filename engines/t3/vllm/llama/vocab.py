"""The ids of standard's and Multilingual's T3 under vLLM: an id says by which row and which learned place it is read.

    id = place << 18 | row

    row    in one table:  [speech 8194][text][exaggeration 2001][voices, 33 rows a slot]
    place  in another:    [none][places of text 2050][places of speech 4100]

An embedding is a function of the id alone: two gathers and a mask, whatever stands before it. T3 draws rows below 8194;
the sampler adds the place, since it knows how many tokens a request has drawn. All ids fit int32.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from engines.config import EXAGGERATION
from engines.model_spec import START_SPEECH_TOKEN, LlamaSpec
from engines.t3.llama.prompt import START_TEXT, STOP_TEXT

_ROW_BITS = 18
_ROWS = 1 << _ROW_BITS
_STEPS_PER_UNIT = 1000  # of exaggeration: a thousandth cannot be heard
EXAGGERATION_ROWS = round(EXAGGERATION[1] * _STEPS_PER_UNIT) + 1


@dataclass(frozen=True)
class LaneIds:
    """Ids for a model of these dimensions with room for `voice_slots` voices."""

    spec: LlamaSpec
    voice_slots: int

    def __post_init__(self) -> None:
        assert self.rows <= _ROWS, "too many voice slots"
        assert self.places << _ROW_BITS < 2**31, "ids travel as int32"

    @property
    def first_text_row(self) -> int:
        return self.spec.speech_vocab

    @property
    def first_exaggeration_row(self) -> int:
        return self.first_text_row + self.spec.text_vocab

    @property
    def first_voice_row(self) -> int:
        return self.first_exaggeration_row + EXAGGERATION_ROWS

    @property
    def rows(self) -> int:
        """The number of rows of the first table."""
        return self.first_voice_row + self.spec.voice_rows * self.voice_slots

    @property
    def first_speech_place(self) -> int:
        return 1 + self.spec.text_positions

    @property
    def places(self) -> int:
        """The number of rows of the second table."""
        return self.first_speech_place + self.spec.speech_positions

    def voice_rows_of(self, slot: int) -> slice:
        """The rows of a voice's slot in the first table."""
        first = self.first_voice_row + self.spec.voice_rows * slot
        return slice(first, first + self.spec.voice_rows)

    def prompt(self, slot: int, exaggeration: float, text: Iterable[int]) -> list[int]:
        """[voice][exaggeration][START text STOP][start of speech twice, both at place 0], as upstream lays it out."""
        assert 0 <= slot < self.voice_slots
        rows = self.voice_rows_of(slot)
        level = self.first_exaggeration_row + round(exaggeration * _STEPS_PER_UNIT)
        words = [
            (1 + place) << _ROW_BITS | (self.first_text_row + token)
            for place, token in enumerate([START_TEXT, *text, STOP_TEXT])
        ]
        start = self.first_speech_place << _ROW_BITS | START_SPEECH_TOKEN
        return [*range(rows.start, rows.stop), level, *words, start, start]

    def drawn(self, token: int, step: int) -> int:
        """The id by which the token that was drawn in this step, from 0, is read: the first is at place 1 of speech."""
        return (self.first_speech_place + step + 1) << _ROW_BITS | token

    def token(self, drawn: int) -> int:
        """The token of an id that was drawn."""
        return drawn & (_ROWS - 1)

    def rows_of(self, ids: Tensor) -> Tensor:
        """Every id's row. Every integer has one, because a CUDA graph is padded with arbitrary ids."""
        return (ids & (_ROWS - 1)).clamp(max=self.rows - 1)

    def places_of(self, ids: Tensor) -> Tensor:
        """Every id's place, as `rows_of`."""
        return (ids >> _ROW_BITS).clamp(0, self.places - 1)

    def are_text(self, ids: Tensor) -> Tensor:
        """Whether ids are those of text, the marks around it included."""
        rows = self.rows_of(ids)
        return (rows >= self.first_text_row) & (rows < self.first_exaggeration_row)


def exaggerations() -> list[float]:
    """The exaggeration of each of its rows."""
    return [step / _STEPS_PER_UNIT for step in range(EXAGGERATION_ROWS)]
