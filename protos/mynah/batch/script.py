"""The script of a batch: a file with one JSON object per line. It is checked whole before anything is spoken."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, get_args

from mynah.client.errors import InvalidArgument, quoted
from mynah.client.settings import DictionaryEntry, Emoji, Markup, Sampling, TextSettings

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_NAME_ALLOWED = 'a letter, digit or "_", then up to 127 of these, "." and "-"'
_KEYS = ("text", "voice", "settings", "name")
_TEXT_CHOICES: dict[str, tuple[Any, ...]] = {
    "markup": get_args(Markup),
    "unspeakable_text": ("skip", "refuse"),
    "drop_thinking": (False, True),
    "normalize": (False, True),
    "emoji": get_args(Emoji),
}
_MODEL_NUMBERS = ("cfg_weight", "exaggeration")
_SETTINGS = (
    *("sample_rate_hz", "speed", "language", "continuity", "model", *_MODEL_NUMBERS),
    *(option.name for option in fields(Sampling)),
    *_TEXT_CHOICES,
    *("paragraph_pause_s", "dictionary"),
)
_SERVERS_CHOICE = TextSettings()
_SEED_BITS = 53


@dataclass(frozen=True)
class ModelSettings:
    """A line's model, and its language, guidance, exaggeration and continuity, as that has them; None: the server's
    choice."""

    language: str | None = None
    cfg_weight: float | None = None
    exaggeration: float | None = None
    continuity: bool | None = None
    model: str | None = None


_MODELS_CHOICE = ModelSettings()


@dataclass(frozen=True)
class Item:
    """One line of the script. `name` is the name of its audio file without ".wav".

    `line` is the script's line with that name: read anywhere else, it is the same item.
    """

    name: str
    text: str
    voice: str | None
    sample_rate_hz: int | None
    sampling: Sampling
    text_settings: TextSettings = _SERVERS_CHOICE
    speed: float | None = None
    model_settings: ModelSettings = _MODELS_CHOICE
    line: str = field(default="", compare=False, repr=False)

    @property
    def digest(self) -> str:
        """A hash of everything that shapes the audio; an item with the same digest need not be spoken again."""
        sampling = asdict(self.sampling)
        if self.sampling.min_p is None:  # without what is not set, folders made before it existed stay valid
            del sampling["min_p"]
        content = [self.text, self.voice, self.sample_rate_hz, sampling]
        if self.text_settings != _SERVERS_CHOICE:
            content.append(asdict(self.text_settings))
        if self.speed is not None:
            content.append({"speed": self.speed})
        if self.model_settings != _MODELS_CHOICE:
            of_model = asdict(self.model_settings)
            later = [name for name in ("continuity", "model") if of_model[name] is None]  # as above
            content.append({name: value for name, value in of_model.items() if name not in later})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def read_script(
    lines: Iterable[str],
    text_settings: TextSettings = _SERVERS_CHOICE,
    speed: float | None = None,
    model_settings: ModelSettings = _MODELS_CHOICE,
) -> list[Item]:
    """Returns the items of all lines that are not blank. Raises InvalidArgument that names the line and its error.

    `text_settings`, `speed` and `model_settings` hold where a line has none of its own.
    """
    defaults = _Defaults(text_settings, speed, model_settings)
    items: list[Item] = []
    line_of: dict[str, int] = {}
    for number, line in _numbered(lines):
        item = _item(number, line, defaults)
        if (folded := item.name.casefold()) in line_of:  # some file systems ignore case
            problem = f"is already the name of line {line_of[folded]}; choose another one"
            raise _invalid(number, "name", item.name, problem)
        line_of[folded] = number
        items.append(item)
    if not items:
        raise InvalidArgument("The script has no lines; it needs at least one.", reason="SCRIPT_EMPTY")
    return items


@dataclass(frozen=True)
class _Defaults:
    """What holds where a line has none of its own."""

    text_settings: TextSettings
    speed: float | None
    model_settings: ModelSettings


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _item(number: int, line: str, defaults: _Defaults) -> Item:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        message = f"Line {number} is not JSON ({error}); it must be a JSON object."
        raise InvalidArgument(message, reason="SCRIPT_INVALID", field="line", allowed="a JSON object") from None
    _check_keys(number, "the line", content, _KEYS)
    text, voice = content.get("text"), content.get("voice")
    if not isinstance(text, str) or not text.strip():
        raise _not_allowed(number, "text", text, "a string that is not blank")
    for key, value in content.items():
        if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
            raise _not_allowed(number, key, value, "valid Unicode, without half of a surrogate pair")
    if voice is not None and not isinstance(voice, str):
        raise _not_allowed(number, "voice", voice, "the id of a voice")
    name = content.get("name", f"{number:06}")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _not_allowed(number, "name", name, _NAME_ALLOWED)
    settings = content.get("settings", {})
    _check_keys(number, "settings", settings, _SETTINGS)
    of_text = _of_text(number, settings, defaults.text_settings)
    of_model = _of_model(number, settings)
    numbers = {"speed": defaults.speed} if defaults.speed is not None else {}
    numbers |= {key: value for key, value in settings.items() if key not in of_text and key not in of_model}
    rate, speed, sampling = _numbers(number, numbers, f"{name}\0{text}")
    read = replace(defaults.text_settings, **of_text)
    named = json.dumps({**content, "name": name})
    of_line = replace(defaults.model_settings, **of_model)
    return Item(name, text, voice, rate, sampling, read, speed, of_line, named)


def _of_model(number: int, settings: dict[str, Any]) -> dict[str, Any]:
    """The line's own values of ModelSettings. Raises InvalidArgument."""
    found = {key: settings[key] for key in ("language", "continuity", "model", *_MODEL_NUMBERS) if key in settings}
    kinds = (
        ("language", str, "the code of a language"),
        ("continuity", bool, "true or false"),
        ("model", str, "the name of a model"),
    )
    for key, kind, allowed in kinds:
        if key in found and not isinstance(found[key], kind):
            raise _not_allowed(number, f"settings.{key}", found[key], allowed)
    _check_numbers(number, {key: value for key, value in found.items() if key in _MODEL_NUMBERS})
    return found


def _of_text(number: int, settings: dict[str, Any], defaults: TextSettings) -> dict[str, Any]:
    """The line's own values of TextSettings; its respellings come before those of all lines. Raises InvalidArgument."""
    found = {key: _text_choice(number, key, value) for key, value in settings.items() if key in _TEXT_CHOICES}
    if "paragraph_pause_s" in settings:
        _check_numbers(number, {"paragraph_pause_s": settings["paragraph_pause_s"]})
        found["paragraph_pause_s"] = settings["paragraph_pause_s"]
    if "dictionary" in settings:
        words = settings["dictionary"]
        if not isinstance(words, dict) or not all(isinstance(respelling, str) for respelling in words.values()):
            raise _not_allowed(number, "settings.dictionary", words, "an object of words and their respellings")
        found["dictionary"] = (*defaults.dictionary, *(DictionaryEntry(*entry) for entry in words.items()))
    return found


def _text_choice(number: int, key: str, value: Any) -> Any:
    allowed = _TEXT_CHOICES[key]
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in allowed):
        raise _not_allowed(number, f"settings.{key}", value, " or ".join(map(json.dumps, allowed)))
    return value


def _numbers(number: int, content: Any, salt: str) -> tuple[int | None, float | None, Sampling]:
    """Returns the sample rate, the speed and the sampling.

    The default seed depends on name and text, so that a retry makes the same speech.
    """
    _check_numbers(number, content)
    settings = dict(content)
    rate, speed = settings.pop("sample_rate_hz", None), settings.pop("speed", None)
    default_seed = int.from_bytes(hashlib.sha256(salt.encode()).digest()) % 2**_SEED_BITS
    return rate, speed, Sampling(**{"seed": default_seed, **settings})


def _check_numbers(number: int, content: dict[str, Any]) -> None:
    for key, value in content.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _not_allowed(number, f"settings.{key}", value, "a number")


def _check_keys(number: int, field: str, content: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(content, dict):
        raise _not_allowed(number, field, content, "a JSON object")
    if unknown := sorted(content.keys() - set(allowed)):
        keys = ", ".join(allowed)
        message = f"Line {number}: {field} has the unknown key {quoted(unknown[0])}; the known keys are {keys}."
        raise InvalidArgument(message, reason="SCRIPT_INVALID", field=field, value=quoted(unknown[0]), allowed=keys)


def _not_allowed(number: int, field: str, value: object, allowed: str) -> InvalidArgument:
    return _invalid(number, field, value, f"must be {allowed}", allowed)


def _invalid(number: int, field: str, value: object, problem: str, allowed: str = "") -> InvalidArgument:
    message = f"Line {number}: {field} is {quoted(value)}; it {problem}."
    return InvalidArgument(message, reason="SCRIPT_INVALID", field=field, value=quoted(value), allowed=allowed)
