"""The API key file and the `mynah-keys` command that edits it.

    {"keys": [{"name": "shop", "sha256": "<64 hex>", "max_streams": 4, "starts_per_minute": 60}]}

Both limits are optional. The file holds hashes; a key itself is printed once, when it is made. It is 256 random bits,
so a plain SHA-256 of it cannot be reversed by search.
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
_MAX_LIMIT = 100_000


class KeyFileError(Exception):
    """The file cannot be read, or an entry is invalid; the message names both and says what is allowed."""


@dataclass(frozen=True)
class ApiKey:
    """One entry of the file. None means no limit. Raises ValueError if a member is invalid."""

    name: str
    sha256: str
    max_streams: int | None = None  # open at once
    starts_per_minute: int | None = None  # streams and uploads

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and _NAME.fullmatch(self.name)):
            raise ValueError(f'name is {self.name!r}; it must be up to 64 letters, digits, ".", "_", "@" and "-"')
        if not (isinstance(self.sha256, str) and _SHA256.fullmatch(self.sha256)):
            raise ValueError(f"sha256 of {self.name} is invalid; it must be 64 hex digits in lower case")
        for limit in ("max_streams", "starts_per_minute"):
            value = getattr(self, limit)
            if value is not None and not (type(value) is int and 1 <= value <= _MAX_LIMIT):
                raise ValueError(f"{limit} of {self.name} is {value!r}; it must be a whole number in [1, {_MAX_LIMIT}]")


def digest(key: str) -> str:
    """The SHA-256 of a key, in hex."""
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Returns the file's entries, possibly none. Raises KeyFileError."""
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict) or content.keys() != {"keys"} or not isinstance(content["keys"], list):
            raise ValueError('the content must be {"keys": [...]}')
        keys = tuple(ApiKey(**entry) for entry in content["keys"])
        for member in ("name", "sha256"):
            values = [getattr(key, member) for key in keys]
            if len(set(values)) != len(values):
                raise ValueError(f"two entries have the same {member}")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise KeyFileError(
            f"{path} is not a valid API key file: {getattr(error, 'strerror', None) or error}"
        ) from error
    return keys


def write_keys(path: Path, keys: Sequence[ApiKey]) -> None:
    """Replaces the file atomically, readable by its owner alone. Raises OSError."""
    entries = [{name: value for name, value in asdict(key).items() if value is not None} for key in keys]
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"keys": entries}, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """`mynah-keys FILE add NAME | remove NAME | list`. A running server reads the changed file by itself."""
    args = _parser().parse_args(arguments)
    try:
        _COMMANDS[args.command](args)
    except (KeyFileError, OSError, ValueError) as error:
        print(f"mynah-keys: {error}", file=sys.stderr)
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mynah-keys", description="Edit the file that mynah-serve --api-keys reads.")
    parser.add_argument("file", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="make a key and print it; it is shown only once")
    add.add_argument("name", help="name of the key's owner")
    add.add_argument("--max-streams", type=int, help="limit on streams open at once")
    add.add_argument("--starts-per-minute", type=int, help="limit on streams and uploads started in a minute")
    commands.add_parser("remove", help="remove a key").add_argument("name")
    commands.add_parser("list", help="show names and limits")
    return parser


def _add(args: argparse.Namespace) -> None:
    keys = read_keys(args.file) if args.file.exists() else ()
    if any(key.name == args.name for key in keys):
        raise ValueError(
            f"key {args.name} exists already; to replace it, add a key with another name, then remove {args.name}"
        )
    secret = f"mynah-{secrets.token_urlsafe(32)}"
    write_keys(args.file, [*keys, ApiKey(args.name, digest(secret), args.max_streams, args.starts_per_minute)])
    print(secret)


def _remove(args: argparse.Namespace) -> None:
    keys = read_keys(args.file)
    kept = [key for key in keys if key.name != args.name]
    if len(kept) == len(keys):
        raise ValueError(f"{args.file} has no key {args.name}")
    write_keys(args.file, kept)


def _list(args: argparse.Namespace) -> None:
    for key in read_keys(args.file):
        limits: dict[str, Any] = {"streams": key.max_streams, "starts/minute": key.starts_per_minute}
        print(key.name, *(f"{value} {what}" for what, value in limits.items() if value is not None), sep="\t")


_COMMANDS = {"add": _add, "remove": _remove, "list": _list}
