"""The bound on a segment's speech: how long its text can take at the very most.

T3 normally stops by itself. A bound beside that ends speech that has run away from its text: babble after a word that
the model does not know, or silence without end. It is several times what slow speech takes, so that it cuts nothing
real.
"""

from __future__ import annotations

import re

from engines.model_spec import SPEECH_TOKENS_PER_S

# Seconds. English is spoken at 12 to 15 characters a second: 0.07 to 0.08 s each; slow speech takes twice as long.
_BASE_S = 3.0  # a breath before, a pause after
_LETTER_S = 0.25
_ADDRESS_S = 0.5  # a letter in example.com/a?b=c, of which parts are spelled, and each mark between them
_CAPITAL_S = 1.2  # it may be spelled: "W" has three syllables
_DIGIT_S = 1.5  # 1,234,567 takes 0.7 s per digit: "one million two hundred thirty four thousand ..."
_SYMBOL_S = 1.5  # %, $, @, =: "dollars and", "equals"
_PAUSE_S = 1.0  # a run of punctuation
_TAG_S = 8.0  # [laugh] and others last 1 to 4 s

_ADDRESS = re.compile(r"\w[^\w\s',-]+(?=\w)")
_PARTS = re.compile(r"(?P<pause>[.,;:!?…'\"()\[\]*_`~-]+)|(?P<digit>\d)|(?P<letter>[^\W\d_])|(?P<symbol>.)")


def max_speech_tokens(text: str, tags: tuple[str, ...] = ()) -> int:
    """Returns the most speech tokens (40 ms each) that normalised `text` may take. `tags` are those the model speaks.

    Grows with the text: no text has a smaller bound than a part of it.
    """
    seconds = _BASE_S
    for tag in tags:
        seconds += _TAG_S * text.count(tag)
        text = text.replace(tag, " ")
    for word in text.split():
        marks = len(_ADDRESS.findall(word))
        letter_s = _ADDRESS_S if marks else _LETTER_S
        seconds += marks * _ADDRESS_S + sum(_seconds(part, letter_s) for part in _PARTS.finditer(word))
    return round(seconds * SPEECH_TOKENS_PER_S)


def _seconds(part: re.Match[str], letter_s: float) -> float:
    match part.lastgroup:
        case "pause":
            return _PAUSE_S
        case "digit":
            return _DIGIT_S
        case "symbol":
            return _SYMBOL_S
    return letter_s if part[0].islower() else _CAPITAL_S
