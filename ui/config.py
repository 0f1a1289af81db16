"""The page's configuration: flags -> one frozen value, read once at the edge."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import mynah


class ConfigError(Exception):
    """A flag that cannot be: names it, its value and what is allowed."""


@dataclass(frozen=True)
class PageConfig:
    """`server` speaks, `listen` is where browsers come; `root_path` is the prefix under which they see the page."""

    server: str = "127.0.0.1:50051"
    listen: str = "127.0.0.1:7860"
    root_path: str = ""
    server_tls: bool = False
    server_ca: Path | None = None
    api_key_file: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        for name in ("server", "listen"):
            _check_address(name, getattr(self, name))
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise ConfigError(f"--root-path = {self.root_path!r} is not allowed; allowed: a path such as /mynah")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError("--tls-certificate and --tls-key are given together or not at all")

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    def api_key(self, environment: Mapping[str, str]) -> str | None:
        """What the server is shown. Raises ConfigError when the file cannot be read."""
        if self.api_key_file is None:
            return environment.get("MYNAH_API_KEY")
        try:
            return self.api_key_file.read_text().strip()
        except OSError as error:
            raise ConfigError(f"--api-key-file = {self.api_key_file}: {error.strerror}") from error

    @property
    def tls(self) -> mynah.Tls | bool:
        """How the server is reached."""
        return mynah.Tls(self.server_ca) if self.server_ca is not None else self.server_tls


def _check_address(name: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--{name} = {address!r} is not allowed; allowed: HOST:PORT with a port in [0, 65535]")


class _Parser(argparse.ArgumentParser):
    """Reports a bad flag as ConfigError."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def read_config(arguments: Sequence[str]) -> PageConfig:
    """Raises ConfigError for an unknown flag and for a bad value; SystemExit after --help."""
    parser = _Parser(prog="python -m ui", description="Serve the page for a Mynah server.", allow_abbrev=False)
    add, default = parser.add_argument, PageConfig()
    add("--server", default=default.server, help="the Mynah server's HOST:PORT (default %(default)s)")
    add("--server-tls", action="store_true", help="the server is reached encrypted")
    add("--server-ca", type=Path, help="PEM file of who is trusted to be the server; implies --server-tls")
    add("--listen", default=default.listen, help="where to serve; port 0 takes a free one (default %(default)s)")
    add("--root-path", default="", help="prefix under which browsers see the page, e.g. /mynah")
    key_help = "file that holds the server's API key; without it, that of the variable MYNAH_API_KEY, if set"
    add("--api-key-file", type=Path, help=key_help)
    add("--tls-certificate", type=Path, help="PEM certificate chain; with --tls-key, serve encrypted")
    add("--tls-key", type=Path, help="PEM private key")
    return PageConfig(**vars(parser.parse_args(arguments)))
