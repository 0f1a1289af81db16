"""A run of remembered tokens in three arrays, whatever they are made of: what torch's and the host's memory share.

Knows where the axis of tokens lies and that frames come two to a token; knows neither torch nor numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from engines.model_spec import MEL_FRAMES_PER_TOKEN


class _Array(Protocol):
    @property
    def shape(self) -> Any: ...

    @property
    def nbytes(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...


A = TypeVar("A", bound=_Array)


@dataclass(frozen=True, eq=False)
class TokenRun(Generic[A]):
    """n tokens; the last axis but one is n long in `lower` and 2n long in `upper` and `steps`."""

    lower: A
    upper: A
    steps: A

    @property
    def tokens(self) -> int:
        count: int = self.lower.shape[-2]
        return count

    @property
    def nbytes(self) -> int:
        return self.lower.nbytes + self.upper.nbytes + self.steps.nbytes

    def cut(self, tokens: slice) -> Self:
        """A view of some of the tokens."""
        frames = slice(tokens.start * MEL_FRAMES_PER_TOKEN, tokens.stop * MEL_FRAMES_PER_TOKEN)
        return type(self)(self.lower[..., tokens, :], self.upper[..., frames, :], self.steps[..., frames, :])
