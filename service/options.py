"""Options: dataclass fields that are also flags, MYNAH_* variables and rows of docs/options.md."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

from engines.config import split_model

PREFIX = "MYNAH_"
MEMORY = "memory"  # a place that ends with the process


@dataclass(frozen=True)
class Reader:
    """How a value is read from a string: `read` raises ValueError unless it is `allowed`."""

    read: Callable[[str], Any]
    allowed: str  # completes "it must be ..."
    metavar: str = ""
    repeatable: bool = False  # a flag may be given several times; in a variable, commas separate the values


@dataclass(frozen=True)
class Option:
    """One option, as its field declares it."""

    name: str
    default: Any
    help: str
    reader: Reader

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def default_text(self) -> str:
        """The default as it would be written; empty for None, which the help text explains."""
        match self.default:
            case None:
                return ""
            case bool():
                return "on" if self.default else "off"
            case float():
                return f"{self.default:g}"
            case tuple():
                return ",".join(map(str, self.default))
            case _:
                return str(self.default)


def option(default: Any, help: str, reader: Reader) -> Any:
    """A dataclass field that is an option."""
    return dataclasses.field(default=default, metadata={"help": help, "reader": reader})


def options_of(kind: type, readers: dict[str, Reader] | None = None) -> Iterator[Option]:
    """The options among a dataclass's fields, in order.

    A field made by `engines.config.option` has no reader: `readers` names it, else its choices or its type decide.
    """
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if "help" in field.metadata:
            reader = field.metadata.get("reader") or (readers or {}).get(field.name)
            reader = reader or _reader_of(hints[field.name], field.metadata["choices"])
            if metavar := field.metadata.get("metavar"):
                reader = dataclasses.replace(reader, metavar=metavar)
            yield Option(field.name, field.default, field.metadata["help"], reader)


def _reader_of(hint: Any, choices: tuple[str, ...] | None) -> Reader:
    if choices:
        return one_of(*choices) if hint is str else some_of(*choices)
    return _BY_TYPE[hint]


def whole(low: int, high: int) -> Reader:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return Reader(read, f"a whole number from {low} to {high}", "COUNT")


def whole_or_auto(low: int, high: int) -> Reader:
    number = whole(low, high)
    return Reader(lambda text: None if text == "auto" else number.read(text), f"auto, or {number.allowed}", "COUNT")


def seconds(low: float, high: float) -> Reader:
    def read(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError
        return value

    return Reader(read, f"a number of seconds from {low:g} to {high:g}", "SECONDS")


def one_of(*names: str, any_case: bool = False) -> Reader:
    def read(text: str) -> str:
        name = text.lower() if any_case else text
        if name not in names:
            raise ValueError
        return name

    return Reader(read, _listed(names), "|".join(names))


def some_of(*names: str) -> Reader:
    def read(text: str) -> tuple[str, ...]:
        chosen = tuple(part.strip() for part in text.split(","))
        if not set(chosen) <= set(names) or len(set(chosen)) != len(chosen):
            raise ValueError
        return chosen

    return Reader(read, f"one or more of {', '.join(names)}, each once, separated by commas", "NAME[,NAME...]")


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError
    return text


def _fraction(text: str) -> float:
    value = float(text)
    if not 0.0 < value <= 1.0:
        raise ValueError
    return value


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError
    return text


def _url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    if scheme not in ("http", "https") or not rest:
        raise ValueError
    return text


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip() for part in text.split(","))
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and (not parts.scheme or origin.lower() != f"{parts.scheme}://{parts.netloc}"):
            raise ValueError
    return origins


def _hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(part.strip() for part in text.split(","))
    for host in hosts:
        if not host or (host != "*" and (not host.isprintable() or set(host) & set(" /*@\\?#"))):
            raise ValueError
    return hosts


def _switch(text: str) -> bool:
    if text.lower() not in ("on", "off"):
        raise ValueError
    return text.lower() == "on"


def _path(text: str) -> Path:
    return Path(_text(text)).expanduser()


def _models(text: str) -> tuple[str, ...]:
    models = tuple(part.strip() for part in text.split(","))
    if not all(split_model(model)[1] for model in models) or len(set(models)) != len(models):
        raise ValueError
    return models


def _place(text: str) -> Path | str:
    return text if text == MEMORY or "://" in text else _path(text)


TEXT = Reader(_text, "text that is not blank", "NAME")
FRACTION = Reader(_fraction, "a number above 0 and at most 1", "FRACTION")
ADDRESS = Reader(_address, "HOST:PORT, with a port from 0 to 65535", "HOST:PORT")
URL = Reader(_url, "http://HOST:PORT or https://HOST:PORT", "URL")
ORIGINS = Reader(_origins, "origins such as https://app.example, separated by commas, or *", "ORIGIN[,ORIGIN...]")
HOSTS = Reader(_hosts, "names of hosts such as speech.example, separated by commas, or *", "NAME", repeatable=True)
PATHS = Reader(
    lambda text: tuple(_path(part.strip()) for part in text.split(",")),
    "paths, separated by commas in a variable",
    "PATH",
    repeatable=True,
)
MODELS = Reader(
    _models,
    "models, each once, or NAME=MODEL with a name of letters, digits, _ and -, separated by commas in a variable",
    "[NAME=]MODEL",
    repeatable=True,
)
SWITCH = Reader(_switch, "on or off", "on|off")  # a flag without a value means on
PATH = Reader(_path, "a path", "PATH")
PLACE = Reader(_place, "a path, a URL that fsspec opens, such as s3://bucket/voices, or memory", "PATH|URL|memory")
_COUNT = whole(0, 2**63 - 1)
_BY_TYPE: dict[Any, Reader] = {bool: SWITCH, str: TEXT, int: _COUNT, int | None: _COUNT, Path | None: PATH}
_BY_TYPE[tuple[Path, ...]] = PATHS
