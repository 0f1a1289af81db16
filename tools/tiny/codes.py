"""What a speech code of the tiny model means: a phone that begins, a vowel that goes on, or a pause or consonant that
goes on, each with the place of the text token that it speaks.

A bijection between 6480 of the 6561 codes and (phone begins x counter), (vowel goes on x counter x pitch) and (other
phone goes on x short counter). The counter is the text token's position in T3's sequence modulo 64, so it is
unambiguous over the longest segment; the flow ignores it. Voices are not in the codes. Knows no net and no audio.
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

BEGINS, OTHER_GOES_ON, VOWEL_GOES_ON = range(3)
# The factors of each group's codes, in the order of their ids.
FACTORS = (
    (len(PHONES), COUNTERS),
    (FIRST_VOWEL, SHORT_COUNTERS),
    (len(PHONES) - FIRST_VOWEL, COUNTERS, PITCHES),
)
_SIZES = [int(np.prod(sizes)) for sizes in FACTORS]
_FIRST = np.concatenate([[0], np.cumsum(_SIZES)])
MEANINGS = int(_FIRST[-1])
assert MEANINGS <= SPEECH_CODES
_SHIFT = SILENCE_SPEECH_TOKEN - int(_FIRST[OTHER_GOES_ON])  # a pause that goes on, counter 0, is the silence token

# What the flow tells apart: a phone that begins, one that goes on, a vowel that goes on at a pitch.
_SOUND_SIZES = (len(PHONES), FIRST_VOWEL, (len(PHONES) - FIRST_VOWEL) * PITCHES)
_FIRST_SOUND = np.concatenate([[0], np.cumsum(_SOUND_SIZES)])
SOUNDS = int(_FIRST_SOUND[-1])
SILENT_SOUND = int(_FIRST_SOUND[OTHER_GOES_ON])

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
    vowel = rows.phone >= FIRST_VOWEL
    group = np.where(rows.begins, BEGINS, OTHER_GOES_ON + vowel)
    phone = rows.phone - FIRST_VOWEL * (group == VOWEL_GOES_ON)
    counter = rows.unit % np.where(group == OTHER_GOES_ON, SHORT_COUNTERS, COUNTERS)
    return group, np.stack([phone, counter, np.where(group == VOWEL_GOES_ON, rows.pitch, -1)], -1)


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
    raw = np.where(raw < MEANINGS, raw, _FIRST[OTHER_GOES_ON])
    group = np.searchsorted(_FIRST, raw, side="right") - 1
    index = np.full((len(raw), 3), -1)
    for g, sizes in enumerate(FACTORS):
        at = group == g
        index[at, : len(sizes)] = np.stack(np.unravel_index(raw[at] - _FIRST[g], sizes), -1)
    return group, index


def meaning(group: Ints, index: Ints) -> tuple[Ints, Ints, Bools]:
    """(phone, counter or -1 where a code does not tell it whole, whether the phone begins)."""
    phone = index[:, 0] + FIRST_VOWEL * (group == VOWEL_GOES_ON)
    return phone, np.where(group == OTHER_GOES_ON, -1, index[:, 1]), group == BEGINS


def sounds(group: Ints, index: Ints) -> Ints:
    """What the flow hears of codes: 0..123."""
    inner = np.where(group == VOWEL_GOES_ON, index[:, 0] * PITCHES + index[:, 2], index[:, 0])
    return np.asarray(_FIRST_SOUND[group] + inner)


def sounds_of(codes: Ints) -> Ints:
    return sounds(*parts(codes))


def code_of_sound(heard: Ints) -> Ints:
    """The code of a sound with counter 0, as what hears reference audio gives it."""
    group = np.searchsorted(_FIRST_SOUND, heard, side="right") - 1
    inner = heard - _FIRST_SOUND[group]
    vowel = group == VOWEL_GOES_ON
    phone, pitch = np.where(vowel, inner // PITCHES, inner), np.where(vowel, inner % PITCHES, -1)
    return join(group, np.stack([phone, np.zeros_like(phone), pitch], -1))


def encode(rows: Rows) -> Ints:
    return join(*split(rows))
