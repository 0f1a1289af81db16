"""Russian: the stress of words as accents, by russian-text-stresser."""

from __future__ import annotations

from functools import cache
from typing import Any

from engines.text.languages.packages import loading


def with_stress(text: str) -> str:
    """Returns `text` with an accent on the stressed vowel of each word."""
    with loading("ru", "russian-text-stresser", "its operator installs it again"):
        stresser = _stresser()
    return str(stresser.stress_text(text))


@cache
def _stresser() -> Any:
    from russian_text_stresser.text_stresser import RussianTextStresser

    return RussianTextStresser()
