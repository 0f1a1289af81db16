"""The voice slots of the embedding's table: an LRU map from voice keys to slots that never evicts a voice in use.

A slot may get another voice while keys and values of the old one are still cached: every request has its voice's key
as vLLM's `cache_salt`, which is hashed into its first block and so into every block after it. Requests of another voice
cannot find those blocks.
"""

from __future__ import annotations

from collections import OrderedDict


class VoiceSlots:
    """Up to `slots` voices by key."""

    def __init__(self, slots: int) -> None:
        self._slot_of: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self._free = list(range(slots))[::-1]
        self._users: dict[str, int] = {}  # running requests per voice

    def take(self, key: str) -> tuple[int, bool]:
        """A slot for this voice, and whether the voice must be written into it first.

        The slot is in use until `give_back` was called as often as `take`. Raises LookupError if every slot is in use
        by requests of other voices.
        """
        existing = self._slot_of.get(key)
        slot = self._claim() if existing is None else existing
        self._slot_of[key] = slot
        self._slot_of.move_to_end(key)
        self._users[key] = self._users.get(key, 0) + 1
        return slot, existing is None

    def give_back(self, key: str) -> None:
        """End the use by one request. The voice stays in its slot until the slot is needed."""
        self._users[key] -= 1
        if self._users[key] == 0:
            del self._users[key]

    def discard(self, key: str) -> None:
        """Undo a `take` that returned True, because the voice could not be written into its slot."""
        del self._users[key]
        self._free.append(self._slot_of.pop(key))

    def _claim(self) -> int:
        if self._free:
            return self._free.pop()
        oldest = next((key for key in self._slot_of if key not in self._users), None)
        if oldest is None:
            raise LookupError(f"all {len(self._slot_of)} voice slots are in use")
        return self._slot_of.pop(oldest)
