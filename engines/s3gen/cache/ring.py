"""A ring buffer's bookkeeping: the places of the newest tokens of a stream in a store of fixed size."""

from __future__ import annotations

from itertools import pairwise


class RingBuffer:
    """The places of at most `capacity_tokens` tokens. New tokens overwrite the oldest, so nothing is ever moved."""

    def __init__(self, capacity_tokens: int) -> None:
        assert capacity_tokens >= 0
        self.capacity_tokens = capacity_tokens
        self.held_tokens = 0
        self._oldest = 0

    def held(self) -> list[slice]:
        """The places of the held tokens, oldest first; at most two slices."""
        return self._places(self._oldest, self.held_tokens)

    def append(self, tokens: int) -> list[tuple[slice, slice]]:
        """Add `tokens` tokens. Returns at most two copies to make, as (which of them, where they go).

        Only the last `capacity_tokens` of them are kept.
        """
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
