"""Which voice lies in which slot of the embedding's table: least recently used goes first, one in use never.

Pure bookkeeping; knows neither tensors nor the engine.

A slot may be given to another voice while keys and values made with the old one are still cached, because the cache
is not asked by slot alone: every request carries its voice's key as vLLM's `cache_salt`, which is hashed into its
first block and so into every block after it. No other voice can find those blocks.
"""

from __future__ import annotations

from collections import OrderedDict


class VoiceSlots:
    """`slots` places for voices, by key."""

    def __init__(self, slots: int) -> None:
        self._slot_of: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self._free = list(range(slots))[::-1]
        self._users: dict[str, int] = {}  # requests at work per voice; absent: none

    def take(self, key: str) -> tuple[int, bool]:
        """A slot for this voice, kept until as many `give_back`s follow; True where the voice must be put there first.

        Raises LookupError when every slot is in use by requests of other voices.
        """
        known = self._slot_of.get(key)
        slot = self._claim() if known is None else known
        self._slot_of[key] = slot
        self._slot_of.move_to_end(key)
        self._users[key] = self._users.get(key, 0) + 1
        return slot, known is None

    def give_back(self, key: str) -> None:
        """One request of this voice is over. The voice stays where it is until its slot is needed."""
        self._users[key] -= 1
        if self._users[key] == 0:
            del self._users[key]

    def discard(self, key: str) -> None:
        """Undo a `take` that said True: the voice could not be put into its slot."""
        del self._users[key]
        self._free.append(self._slot_of.pop(key))

    def _claim(self) -> int:
        if self._free:
            return self._free.pop()
        oldest = next((key for key in self._slot_of if key not in self._users), None)
        if oldest is None:
            raise LookupError(f"all {len(self._slot_of)} voice slots are in use")
        return self._slot_of.pop(oldest)
