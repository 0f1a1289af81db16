"""What a model speaks of a text: the scripts and tags it was trained on. Real and fake engines share this rule."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from engines.errors import InvalidInput
from engines.text.normalize import MAX_TEXT_CHARS, check_text, clean, normalize

TEXT_EMPTY = "TEXT_EMPTY"  # no letter, digit or spoken tag
SCRIPT_UNSUPPORTED = "SCRIPT_UNSUPPORTED"  # letters, but only of scripts that the model does not speak


class SpokenText:
    """The rule of one model.

    scripts  scripts that the model was trained on, as Unicode's character names begin: "LATIN"
    tags     paralinguistic tags, such as "[laugh]", that the tokenizer has as tokens
    speaks_tags  whether the model was trained on them; otherwise they are left out of what is spoken
    normalize    makes the punctuation that the model was trained on
    """

    def __init__(
        self,
        scripts: tuple[str, ...] = ("LATIN",),
        tags: tuple[str, ...] = (),
        *,
        speaks_tags: bool = True,
        max_chars: int = MAX_TEXT_CHARS,
        normalize: Callable[[str], str] = normalize,
    ) -> None:
        self._scripts = scripts
        self.tags = tags if speaks_tags else ()
        self._dropped_tags = () if speaks_tags else tags
        self._any_tag = re.compile("|".join(map(re.escape, self.tags))) if self.tags else None
        self._max_chars = max_chars
        self._normalize = normalize

    def prepare(self, text: str) -> str:
        """Returns what is spoken of `text`, normalised for the tokenizer.

        Raises InvalidInput with reason TEXT_EMPTY or SCRIPT_UNSUPPORTED if nothing is left to speak, TEXT_TOO_LONG or
        TEXT_NOT_UNICODE.
        """
        check_text(text, self._max_chars)
        spoken = self._without_dropped_tags(clean(text))
        if not self._is_speakable(spoken):
            raise self.nothing_to_speak(text)
        return self._normalize(spoken if spoken == text else spoken.strip())

    def nothing_to_speak(self, text: str) -> InvalidInput:
        """The error for a text of which this model speaks nothing."""
        if any(unicodedata.category(char)[0] == "L" for char in self._without_dropped_tags(clean(text))):
            allowed = f"text in {' or '.join(script.capitalize() for script in self._scripts)} letters"
            message = f"text has only letters that this model does not speak; it must be {allowed}."
            return InvalidInput("text", message, SCRIPT_UNSUPPORTED, value=repr(text[:80]), allowed=allowed)
        allowed = "text with a letter, a digit" + (" or a tag" if self.tags else "")
        message = f"text holds nothing to speak; it must be {allowed}."
        return InvalidInput("text", message, TEXT_EMPTY, value=repr(text[:80]), allowed=allowed)

    def blanked(self, text: str) -> str:
        """Returns `text` with spaces in place of the tags that are left out; every character keeps its place."""
        for tag in self._dropped_tags:
            text = text.replace(tag, " " * len(tag))
        return text

    def _without_dropped_tags(self, text: str) -> str:
        for tag in self._dropped_tags:
            text = text.replace(tag, " ")
        return text

    def _is_speakable(self, text: str) -> bool:
        if self._any_tag is not None and self._any_tag.search(text):
            return True
        return any(_is_spoken_char(char, self._scripts) for char in text)


@lru_cache(maxsize=4096)
def _is_spoken_char(char: str, scripts: tuple[str, ...]) -> bool:
    """Whether `char` is a letter of one of the scripts, or a number that has digits 0 to 9 for it."""
    if unicodedata.category(char)[0] not in "LN":
        return False
    parts = unicodedata.normalize("NFKD", char)
    return any(part in "0123456789" or unicodedata.name(part, "").startswith(scripts) for part in parts)
