"""Korean: syllables as their Jamo, the consonants and vowels they are written with."""

from __future__ import annotations

_FIRST_SYLLABLE, _LAST_SYLLABLE = 0xAC00, 0xD7AF
_FIRST_INITIAL, _FIRST_MEDIAL, _BEFORE_FIRST_FINAL = 0x1100, 0x1161, 0x11A7
_MEDIALS, _FINALS = 21, 28  # the first of the finals is none


def as_jamo(text: str) -> str:
    """Returns `text`, without white space around it, with each syllable as two or three Jamo."""
    return "".join(map(_decomposed, text)).strip()


def _decomposed(char: str) -> str:
    if not _FIRST_SYLLABLE <= ord(char) <= _LAST_SYLLABLE:
        return char
    initial, rest = divmod(ord(char) - _FIRST_SYLLABLE, _MEDIALS * _FINALS)
    medial, final = divmod(rest, _FINALS)
    jamo = chr(_FIRST_INITIAL + initial) + chr(_FIRST_MEDIAL + medial)
    return jamo + chr(_BEFORE_FIRST_FINAL + final) if final else jamo
