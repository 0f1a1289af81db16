"""Voice slots: a voice in use keeps its slot, the least recently used one is evicted first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.t3.vllm.voices import VoiceSlots


def test_a_voice_is_put_in_place_once() -> None:
    slots = VoiceSlots(2)
    slot, missing = slots.take("a")
    assert missing
    assert slots.take("a") == (slot, False)


def test_the_voice_unused_for_longest_makes_room() -> None:
    slots = VoiceSlots(2)
    a, b = slots.take("a")[0], slots.take("b")[0]
    for key in ("a", "b", "a"):
        slots.take(key)
        slots.give_back(key)
    slots.give_back("a")
    slots.give_back("b")
    assert slots.take("c") == (b, True)
    assert slots.take("a") == (a, False)


def test_a_voice_in_use_keeps_its_slot() -> None:
    slots = VoiceSlots(2)
    slots.take("a")
    slots.take("b")
    with pytest.raises(LookupError, match="2 voice slots"):
        slots.take("c")
    slots.give_back("b")
    assert slots.take("c")[1]


def test_a_voice_that_could_not_be_put_in_place_leaves_nothing() -> None:
    slots = VoiceSlots(1)
    slots.take("a")
    slots.discard("a")
    assert slots.take("b") == (0, True)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=60))
def test_voices_in_use_never_share_a_slot(history: list[tuple[bool, int]]) -> None:
    slots = VoiceSlots(3)
    held: dict[str, int] = {}  # voice -> slot, while some request uses it
    users: dict[str, int] = {}
    for take, number in history:
        key = f"voice {number}"
        if take and (key in held or len(held) < 3):
            slot, missing = slots.take(key)
            assert held.setdefault(key, slot) == slot
            assert not (missing and users.get(key)), "a voice in use is in its place"
            users[key] = users.get(key, 0) + 1
        elif not take and users.get(key):
            slots.give_back(key)
            users[key] -= 1
            if not users[key]:
                del held[key]
        assert len(set(held.values())) == len(held)
