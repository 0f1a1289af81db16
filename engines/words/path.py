"""The monotone path through a segment's attention: the text token that each speech token speaks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_MAX_ADVANCE = 9  # text tokens between two speech tokens: quotes and brackets take no time
_SKIP_COST = 0.7  # for each text token that is passed over
_FLOOR = 0.02  # of attention, so that one row without any does not decide
_NEVER = -1e9


class MonotonePath:
    """Viterbi over rows that arrive: every row stays at its token or goes on, never back. Starts at the first token."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        advance = np.arange(_MAX_ADVANCE, -1, -1)  # as in a window that ends at the token itself
        self._cost = (_SKIP_COST * np.maximum(0, advance - 1)).astype(np.float32)
        self._scores = np.full(_MAX_ADVANCE + tokens, _NEVER, np.float32)  # of paths that end at each token
        self._scores[_MAX_ADVANCE] = 0.0
        self._advances: list[npt.NDArray[np.int8]] = []  # to each token, by row

    def __len__(self) -> int:
        return len(self._advances)

    def add(self, attention: F32) -> None:
        """Append rows (n, tokens): the share of attention that each text token gets."""
        for emission in np.log(attention + _FLOOR):
            reached = sliding_window_view(self._scores, _MAX_ADVANCE + 1) - self._cost
            best = reached.argmax(1)
            self._advances.append((_MAX_ADVANCE - best).astype(np.int8))
            self._scores[_MAX_ADVANCE:] = reached[np.arange(self._tokens), best] + emission

    @property
    def position(self) -> int:
        """The token that the last row speaks by all rows so far; 0 without rows."""
        return int(self._scores[_MAX_ADVANCE:].argmax())

    def tokens(self) -> I64:
        """(n,): the token of every row. Later rows can still change the last ones."""
        path = np.zeros(len(self._advances), np.int64)
        at = self.position
        for row in range(len(path) - 1, -1, -1):
            path[row] = at
            at -= int(self._advances[row][at])
        return path


def boundaries(path: I64, tokens: int) -> I64:
    """(tokens + 1,): the first row at or behind each token; the number of rows for those that were not reached."""
    return np.searchsorted(path, np.arange(tokens + 1))
