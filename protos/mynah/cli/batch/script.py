"""A file of things to say: one JSON object a line, checked whole before anything is spoken. Knows no server."""

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
_NAME_ALLOWED = 'a letter, digit or "_", then up to 127 of those, ".", "-"'
_KEYS = ("text", "voice", "settings", "name")
_SETTINGS = ("sample_rate_hz", *(option.name for option in fields(Sampling)))
_SEED_BITS = 53


@dataclass(frozen=True)
class Item:
    """One line: what is said, by whom, how, and the name of the file without its ".wav"."""

    name: str
    text: str
    voice: str | None
    sample_rate_hz: int | None
    sampling: Sampling

    @property
    def digest(self) -> str:
        """Of everything that shapes the audio: the same digest means that nothing is to be spoken anew."""
        said = json.dumps([self.text, self.voice, self.sample_rate_hz, asdict(self.sampling)], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:32]


def read_script(lines: Iterable[str]) -> list[Item]:
    """All lines that are not blank. Raises InvalidArgument naming the line and what is wrong with it."""
    items: list[Item] = []
    line_of: dict[str, int] = {}
    for number, line in _numbered(lines):
        item = _item(number, line)
        if (folded := item.name.casefold()) in line_of:  # some file systems do not tell them apart
            raise _wrong(number, "name", item.name, f"a name that line {line_of[folded]} does not have")
        line_of[folded] = number
        items.append(item)
    if not items:
        raise InvalidArgument("the script has no lines; allowed: at least one", reason="SCRIPT_EMPTY")
    return items


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _item(number: int, line: str) -> Item:
    try:
        given = json.loads(line)
    except ValueError as error:
        raise _wrong(number, "the line", f"not JSON ({error})", "a JSON object") from None
    _check_keys(number, "the line", given, _KEYS)
    text, voice = given.get("text"), given.get("voice")
    if not isinstance(text, str) or not text.strip():
        raise _wrong(number, "text", text, "a string that is not blank")
    if voice is not None and not isinstance(voice, str):
        raise _wrong(number, "voice", voice, "a voice's id")
    name = given.get("name", f"{number:06}")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _wrong(number, "name", name, _NAME_ALLOWED)
    rate, sampling = _settings(number, given.get("settings", {}), f"{name}\0{text}")
    return Item(name, text, voice, rate, sampling)


def _settings(number: int, given: Any, salt: str) -> tuple[int | None, Sampling]:
    """Without a seed, one that depends on name and text: a second try makes the same speech."""
    _check_keys(number, "settings", given, _SETTINGS)
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(number, f"settings.{key}", value, "a number")
    chosen = dict(given)
    rate = chosen.pop("sample_rate_hz", None)
    drawn = int.from_bytes(hashlib.sha256(salt.encode()).digest()) % 2**_SEED_BITS
    return rate, Sampling(**{"seed": drawn, **chosen})


def _check_keys(number: int, where: str, given: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(given, dict):
        raise _wrong(number, where, given, "a JSON object")
    if unknown := sorted(given.keys() - set(allowed)):
        raise _wrong(number, where, unknown[0], ", ".join(allowed))


def _wrong(number: int, field: str, value: object, allowed: str) -> InvalidArgument:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    message = f"line {number}: {field} = {shown} is not allowed; allowed: {allowed}"
    return InvalidArgument(message, reason="SCRIPT_INVALID", field=field, value=shown, allowed=allowed)
