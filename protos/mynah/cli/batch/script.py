"""The script of a batch: a file with one JSON object per line. It is checked whole before anything is spoken."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from mynah.client.errors import InvalidArgument
from mynah.client.settings import Sampling

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_NAME_ALLOWED = 'a letter, digit or "_", then up to 127 of these, "." and "-"'
_KEYS = ("text", "voice", "settings", "name")
_SETTINGS = ("sample_rate_hz", *(option.name for option in fields(Sampling)))
_SEED_BITS = 53


@dataclass(frozen=True)
class Item:
    """One line of the script. `name` is the name of its audio file without ".wav"."""

    name: str
    text: str
    voice: str | None
    sample_rate_hz: int | None
    sampling: Sampling

    @property
    def digest(self) -> str:
        """A hash of everything that shapes the audio; an item with the same digest need not be spoken again."""
        content = json.dumps([self.text, self.voice, self.sample_rate_hz, asdict(self.sampling)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]


def read_script(lines: Iterable[str]) -> list[Item]:
    """Returns the items of all lines that are not blank. Raises InvalidArgument that names the line and its error."""
    items: list[Item] = []
    line_of: dict[str, int] = {}
    for number, line in _numbered(lines):
        item = _item(number, line)
        if (folded := item.name.casefold()) in line_of:  # some file systems ignore case
            problem = f"is already the name of line {line_of[folded]}; choose another one"
            raise _invalid(number, "name", item.name, problem)
        line_of[folded] = number
        items.append(item)
    if not items:
        raise InvalidArgument("The script has no lines; it needs at least one.", reason="SCRIPT_EMPTY")
    return items


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _item(number: int, line: str) -> Item:
    try:
        content = json.loads(line)
    except ValueError as error:
        message = f"Line {number} is not JSON ({error}); it must be a JSON object."
        raise InvalidArgument(message, reason="SCRIPT_INVALID", field="line", allowed="a JSON object") from None
    _check_keys(number, "the line", content, _KEYS)
    text, voice = content.get("text"), content.get("voice")
    if not isinstance(text, str) or not text.strip():
        raise _not_allowed(number, "text", text, "a string that is not blank")
    if voice is not None and not isinstance(voice, str):
        raise _not_allowed(number, "voice", voice, "the id of a voice")
    name = content.get("name", f"{number:06}")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _not_allowed(number, "name", name, _NAME_ALLOWED)
    rate, sampling = _settings(number, content.get("settings", {}), f"{name}\0{text}")
    return Item(name, text, voice, rate, sampling)


def _settings(number: int, content: Any, salt: str) -> tuple[int | None, Sampling]:
    """The default seed depends on name and text, so that a retry makes the same speech."""
    _check_keys(number, "settings", content, _SETTINGS)
    for key, value in content.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _not_allowed(number, f"settings.{key}", value, "a number")
    settings = dict(content)
    rate = settings.pop("sample_rate_hz", None)
    default_seed = int.from_bytes(hashlib.sha256(salt.encode()).digest()) % 2**_SEED_BITS
    return rate, Sampling(**{"seed": default_seed, **settings})


def _check_keys(number: int, field: str, content: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(content, dict):
        raise _not_allowed(number, field, content, "a JSON object")
    if unknown := sorted(content.keys() - set(allowed)):
        keys = ", ".join(allowed)
        message = f"Line {number}: {field} has the unknown key {_shown(unknown[0])}; the known keys are {keys}."
        raise InvalidArgument(message, reason="SCRIPT_INVALID", field=field, value=_shown(unknown[0]), allowed=keys)


def _not_allowed(number: int, field: str, value: object, allowed: str) -> InvalidArgument:
    return _invalid(number, field, value, f"must be {allowed}", allowed)


def _invalid(number: int, field: str, value: object, problem: str, allowed: str = "") -> InvalidArgument:
    message = f"Line {number}: {field} is {_shown(value)}; it {problem}."
    return InvalidArgument(message, reason="SCRIPT_INVALID", field=field, value=_shown(value), allowed=allowed)


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
