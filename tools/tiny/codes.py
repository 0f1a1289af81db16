"""What a speech code of the tiny model means: a phone that begins, or a consonant, vowel or pause that goes on.

Each with the place of the text token that it speaks: a bijection between 6536 of the 6561 codes and (phone begins x
counter), (consonant goes on x short counter), (vowel goes on x counter x pitch) and (pause goes on x counter). The
counter is the text token's position in T3's sequence modulo 64, so it is unambiguous over the longest segment; the
flow ignores it. Voices are not in the codes. Knows no net and no audio.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tools.tiny.engine import SILENCE_SPEECH_TOKEN, SPEECH_CODES

CONSONANTS = "bdfhjklmnpstvwzɡŋɹʃʒðθʤʧT"
VOWELS = "əiuɑɔɛɜɪʊʌAIOWYæᵊᵻ"
PAUSE = "_"
PHONES = PAUSE + CONSONANTS + VOWELS  # of one character each, in the teacher's alphabet
ALPHABET = PHONES.replace("ə", "əɐ")  # the teacher's: its two schwas are one phone in the codes
FIRST_VOWEL = PHONES.index(VOWELS[0])
COUNTERS, SHORT_COUNTERS, PITCHES = 64, 8, 3
PITCH_BOUNDS_HZ = (187.0, 222.0)  # thirds of the built-in voice's voiced rows

BEGINS, CONSONANT_GOES_ON, VOWEL_GOES_ON, PAUSE_GOES_ON = range(4)
# The factors of each group's codes, in the order of their ids, and the first of the phones that the first one counts.
FACTORS = (
    (len(PHONES), COUNTERS),
    (len(CONSONANTS), SHORT_COUNTERS),
    (len(VOWELS), COUNTERS, PITCHES),
    (1, COUNTERS),
)
_FIRST_PHONE = np.array([0, 1, FIRST_VOWEL, 0])
_SIZES = [int(np.prod(sizes)) for sizes in FACTORS]
_FIRST = np.concatenate([[0], np.cumsum(_SIZES)])
MEANINGS = int(_FIRST[-1])
assert MEANINGS <= SPEECH_CODES
_SHIFT = SILENCE_SPEECH_TOKEN - int(_FIRST[PAUSE_GOES_ON])  # a pause that goes on, counter 0, is the silence token

# What the flow tells apart: a phone that begins, one that goes on, a vowel that goes on at a pitch.
_FIRST_VOWEL_SOUND = len(PHONES) + FIRST_VOWEL
SOUNDS = _FIRST_VOWEL_SOUND + len(VOWELS) * PITCHES
SILENT_SOUND = len(PHONES)

Ints = npt.NDArray[np.int64]
_PHONE_OF = np.array([PHONES.index(letter.replace("ɐ", "ə")) for letter in ALPHABET])
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """40 ms each: phone, text token, whether the phone begins, and pitch; all (n,)."""

    phone: Ints
    unit: Ints
    begins: Bools
    pitch: Ints

    def moved(self, tokens: int) -> Rows:
        """The same, the text `tokens` further in T3's sequence."""
        return Rows(self.phone, self.unit + tokens, self.begins, self.pitch)


def phone_of(letters: Ints) -> Ints:
    """Indices into ALPHABET -> indices into PHONES."""
    return np.asarray(_PHONE_OF[letters])


def pitch_of(f0_hz: npt.NDArray[np.float32]) -> Ints:
    """Low, middle or high; unvoiced is low."""
    return np.digitize(f0_hz, PITCH_BOUNDS_HZ)


def split(rows: Rows) -> tuple[Ints, Ints]:
    """(n,) groups and (n, 3) indices of their factors, -1 where a group has fewer."""
    goes_on = np.where(rows.phone == 0, PAUSE_GOES_ON, CONSONANT_GOES_ON + (rows.phone >= FIRST_VOWEL))
    group = np.where(rows.begins, BEGINS, goes_on)
    counter = rows.unit % np.where(group == CONSONANT_GOES_ON, SHORT_COUNTERS, COUNTERS)
    pitch = np.where(group == VOWEL_GOES_ON, rows.pitch, -1)
    return group, np.stack([rows.phone - _FIRST_PHONE[group], counter, pitch], -1)


def join(group: Ints, index: Ints) -> Ints:
    """The codes of groups (n,) and indices (n, 3)."""
    raw = np.zeros(len(group), np.int64)
    for g, sizes in enumerate(FACTORS):
        at = group == g
        raw[at] = _FIRST[g] + np.ravel_multi_index(tuple(index[at, : len(sizes)].T), sizes)
    return np.asarray((raw + _SHIFT) % SPEECH_CODES)


def parts(codes: Ints) -> tuple[Ints, Ints]:
    """The inverse of `join`; a code without a meaning is a pause that goes on."""
    raw = (np.asarray(codes) - _SHIFT) % SPEECH_CODES
    raw = np.where(raw < MEANINGS, raw, _FIRST[PAUSE_GOES_ON])
    group = np.searchsorted(_FIRST, raw, side="right") - 1
    index = np.full((len(raw), 3), -1)
    for g, sizes in enumerate(FACTORS):
        at = group == g
        index[at, : len(sizes)] = np.stack(np.unravel_index(raw[at] - _FIRST[g], sizes), -1)
    return group, index


def meaning(group: Ints, index: Ints) -> tuple[Ints, Ints, Bools]:
    """(phone, counter or -1 where a code does not tell it whole, whether the phone begins)."""
    phone = index[:, 0] + _FIRST_PHONE[group]
    return phone, np.where(group == CONSONANT_GOES_ON, -1, index[:, 1]), group == BEGINS


def sounds(group: Ints, index: Ints) -> Ints:
    """What the flow hears of codes: 0..123."""
    phone = index[:, 0] + _FIRST_PHONE[group]
    vowel = _FIRST_VOWEL_SOUND + index[:, 0] * PITCHES + index[:, 2]
    return np.where(group == BEGINS, phone, np.where(group == VOWEL_GOES_ON, vowel, len(PHONES) + phone))


def sounds_of(codes: Ints) -> Ints:
    return sounds(*parts(codes))


def code_of_sound(heard: Ints) -> Ints:
    """The code of a sound with counter 0, as what hears reference audio gives it."""
    begins, vowel = heard < len(PHONES), heard >= _FIRST_VOWEL_SOUND
    inner = np.where(vowel, heard - _FIRST_VOWEL_SOUND, 0)
    other = np.where(begins, heard, heard - len(PHONES))
    phone = np.where(vowel, FIRST_VOWEL + inner // PITCHES, other)
    return encode(Rows(phone, np.zeros_like(phone), begins, inner % PITCHES))


def encode(rows: Rows) -> Ints:
    return join(*split(rows))
