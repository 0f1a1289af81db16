"""What a speech code of the tiny model means: (phone, voice, position in the phone, which text token is spoken).

A bijection between 6150 of the 6561 codes and 41 phones x 2 voices x 15 counters x 5 states. The counter is the
position of the text token in T3's sequence modulo 15: it lets T3 find its place, and the flow ignores it. Knows no
net and no audio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.model_spec import SILENCE_SPEECH_TOKEN, SPEECH_CODES

_NAMES = "pau aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw v w y z zh"
PHONES = tuple(_NAMES.split())
PHONE_SLOTS, VOICES, COUNTERS, STATES = 43, 2, 15, 5  # two slots are spare
EARLY, LATE, LONG = 0, 1, 4  # begins with the token's first / second mel frame; 2, 3: goes on; 4: fourth and later
SOUNDS = PHONE_SLOTS * VOICES * STATES  # what the flow tells apart
_PAUSE = PHONES.index("pau")
assert PHONE_SLOTS * VOICES * COUNTERS * STATES <= SPEECH_CODES

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Timed:
    """A phone that begins at a mel frame and speaks text unit `unit`."""

    phone: int
    start_frame: int
    unit: int


def sound(phone: Ints | int, voice: Ints | int, state: Ints | int) -> Ints:
    """(phone, voice, state) -> 0..429."""
    return np.asarray((np.asarray(phone) * VOICES + voice) * STATES + state)


def spoken_by(sounds: Ints, voice: int) -> Ints:
    """The same sounds in another voice."""
    return sound(sounds // (VOICES * STATES), voice, sounds % STATES)


def encode(sounds: Ints, counters: Ints | int) -> Ints:
    """Sounds and counters -> codes; a long pause of voice 0 with counter 0 is the silence token."""
    raw = (sounds // STATES * COUNTERS + counters) * STATES + sounds % STATES
    return np.asarray((raw + SILENCE_SPEECH_TOKEN - sound(_PAUSE, 0, LONG)) % SPEECH_CODES)


def decode(codes: Ints) -> tuple[Ints, Ints]:
    """Codes -> (sounds, counters); a code without a meaning is a pause."""
    raw = (np.asarray(codes) - SILENCE_SPEECH_TOKEN + sound(_PAUSE, 0, LONG)) % SPEECH_CODES
    raw = np.where(raw < len(PHONES) * VOICES * COUNTERS * STATES, raw, sound(_PAUSE, 0, LONG))
    state, upper = raw % STATES, raw // STATES
    return upper // COUNTERS * STATES + state, upper % COUNTERS


def tokens_of(phones: Sequence[Timed], token_count: int) -> tuple[Ints, Ints]:
    """(sounds of voice 0, units), each (token_count,): every phone has a token of its own, however short it is."""
    starts = [phone.start_frame for phone in phones]
    first = np.array(starts) // 2
    for i in range(1, len(first)):  # to the right where two would share a token
        first[i] = max(first[i], first[i - 1] + 1)
    last = token_count - 1
    for i in range(len(first) - 1, -1, -1):  # and back to the left at the end
        first[i] = min(first[i], last)
        last = first[i] - 1
    if first[0] < 0:
        raise ValueError(f"{len(phones)} phones in {token_count} tokens")
    first[0] = 0
    owner = np.searchsorted(first, np.arange(token_count), side="right") - 1
    age = np.arange(token_count) - first[owner]
    moved = first != np.array(starts) // 2
    late = ~moved & (np.array(starts) % 2 == 1)
    state = np.where(age == 0, late[owner].astype(int), np.minimum(age + 1, LONG))
    column = np.array([(phone.phone, phone.unit) for phone in phones])[owner]
    return sound(column[:, 0], 0, state), column[:, 1]
