"""Where the last few tokens of a stream lie in a store of fixed size: the bookkeeping of cached decoding.

Pure counts and slices in tokens; knows no tensors. Old tokens give their places to new ones, so nothing is ever moved.
"""

from __future__ import annotations

from itertools import pairwise


class ContextRing:
    """The places of at most `capacity_tokens` tokens, the newest ones."""

    def __init__(self, capacity_tokens: int) -> None:
        assert capacity_tokens >= 0
        self.capacity_tokens = capacity_tokens
        self.held_tokens = 0
        self._oldest = 0

    def held(self) -> list[slice]:
        """Where the held tokens lie, oldest first; at most two slices."""
        return self._places(self._oldest, self.held_tokens)

    def append(self, tokens: int) -> list[tuple[slice, slice]]:
        """Take `tokens` new ones: (which of them, where they go), at most two copies. What no longer fits is gone."""
        kept = min(tokens, self.capacity_tokens)
        places = self._places(self._oldest + self.held_tokens, kept)
        evicted = max(0, self.held_tokens + kept - self.capacity_tokens)
        self.held_tokens += kept - evicted
        if self.capacity_tokens:
            self._oldest = (self._oldest + evicted) % self.capacity_tokens
        ends = [tokens - kept]
        for place in places:
            ends.append(ends[-1] + place.stop - place.start)
        return [(slice(*span), place) for span, place in zip(pairwise(ends), places, strict=True)]

    def clear(self) -> None:
        self.held_tokens = self._oldest = 0

    def _places(self, first: int, tokens: int) -> list[slice]:
        """`tokens` places from `first` on, around the end of the store."""
        if tokens == 0:
            return []
        start = first % self.capacity_tokens
        stop = min(start + tokens, self.capacity_tokens)
        around = tokens - (stop - start)
        return [slice(start, stop)] + ([slice(0, around)] if around else [])
