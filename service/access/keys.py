"""The file of API keys: who may call, and how much. It holds hashes; a key itself is shown once, when it is made.

    {"keys": [{"name": "shop", "sha256": "<64 hex>", "max_streams": 4, "starts_per_minute": 60}]}

Both limits may be absent. A key is 256 random bits, so a plain SHA-256 cannot be searched backwards. Knows files and
the `mynah-keys` command; who is let in is auth.py's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import secrets
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST = 100_000


class KeyFileError(Exception):
    """The file cannot be read, or something in it cannot be: names the file, the entry and what is allowed."""


@dataclass(frozen=True)
class ApiKey:
    """One entry. Raises ValueError naming what is wrong. A limit that is None is not applied."""

    name: str
    sha256: str
    max_streams: int | None = None  # open at once
    starts_per_minute: int | None = None  # streams and uploads begun

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and _NAME.fullmatch(self.name)):
            raise ValueError(f'name = {self.name!r}; allowed: up to 64 letters, digits, ".", "_", "@", "-"')
        if not (isinstance(self.sha256, str) and _SHA256.fullmatch(self.sha256)):
            raise ValueError(f"sha256 of {self.name}; allowed: 64 hex digits in lower case")
        for limit in ("max_streams", "starts_per_minute"):
            value = getattr(self, limit)
            if value is not None and not (type(value) is int and 1 <= value <= _MOST):
                raise ValueError(f"{limit} = {value!r} of {self.name}; allowed: a whole number in [1, {_MOST}]")


def digest(key: str) -> str:
    """What the file holds of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """The file's entries, of which there may be none. Raises KeyFileError."""
    try:
        found = json.loads(path.read_bytes())
        if not isinstance(found, dict) or found.keys() != {"keys"} or not isinstance(found["keys"], list):
            raise ValueError('allowed: {"keys": [...]}')
        keys = tuple(ApiKey(**entry) for entry in found["keys"])
        for about in ("name", "sha256"):
            values = [getattr(key, about) for key in keys]
            if len(set(values)) != len(values):
                raise ValueError(f"the same {about} stands there twice")
    except (OSError, ValueError, TypeError) as error:
        raise KeyFileError(f"{path} is no file of API keys: {error}") from error
    return keys


def write_keys(path: Path, keys: Sequence[ApiKey]) -> None:
    """Replace the file whole, readable by its owner alone. Raises OSError."""
    entries = [{name: value for name, value in asdict(key).items() if value is not None} for key in keys]
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"keys": entries}, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """`mynah-keys FILE add NAME | remove NAME | list`. A running server takes the change over by itself."""
    chosen = _parser().parse_args(arguments)
    try:
        _COMMANDS[chosen.command](chosen)
    except (KeyFileError, OSError, ValueError) as error:
        print(f"mynah-keys: {error}", file=sys.stderr)
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mynah-keys", description="Keep the file that mynah-serve --api-keys reads.")
    parser.add_argument("file", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="make a key and print it; it is shown this once")
    add.add_argument("name", help="whose it is")
    add.add_argument("--max-streams", type=int, help="streams it may have open at once")
    add.add_argument("--starts-per-minute", type=int, help="streams and uploads it may begin in a minute")
    commands.add_parser("remove", help="forget a key").add_argument("name")
    commands.add_parser("list", help="show names and limits")
    return parser


def _add(chosen: argparse.Namespace) -> None:
    keys = read_keys(chosen.file) if chosen.file.exists() else ()
    if any(key.name == chosen.name for key in keys):
        raise ValueError(f"there is a key {chosen.name} already; to change it, add another and remove this one")
    secret = f"mynah-{secrets.token_urlsafe(32)}"
    write_keys(chosen.file, [*keys, ApiKey(chosen.name, digest(secret), chosen.max_streams, chosen.starts_per_minute)])
    print(secret)


def _remove(chosen: argparse.Namespace) -> None:
    keys = read_keys(chosen.file)
    left = [key for key in keys if key.name != chosen.name]
    if len(left) == len(keys):
        raise ValueError(f"there is no key {chosen.name} in {chosen.file}")
    write_keys(chosen.file, left)


def _list(chosen: argparse.Namespace) -> None:
    for key in read_keys(chosen.file):
        limits: dict[str, Any] = {"streams": key.max_streams, "starts/minute": key.starts_per_minute}
        print(key.name, *(f"{value} {what}" for what, value in limits.items() if value is not None), sep="\t")


_COMMANDS = {"add": _add, "remove": _remove, "list": _list}
