"""The page's configuration, read once from the command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import mynah


class ConfigError(Exception):
    """A flag is invalid; the message names it and the allowed values."""


@dataclass(frozen=True)
class PageConfig:
    """The configuration of the page. `root_path` is its path prefix in browsers."""

    server: str = "127.0.0.1:50051"
    listen: str = "127.0.0.1:7860"
    root_path: str = ""
    allowed_host: tuple[str, ...] = ()
    server_tls: bool = False
    server_ca: Path | None = None
    api_key_file: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    def __post_init__(self) -> None:
        for name in ("server", "listen"):
            _check_address(name, getattr(self, name))
        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise ConfigError(f"--root-path is {self.root_path!r}; it must be a path such as /mynah.")
        for name in self.allowed_host:
            if re.fullmatch(r"[A-Za-z0-9._-]+|\[?[0-9a-fA-F:.]+\]?", name) is None:
                raise ConfigError(f"--allowed-host is {name!r}; it must be a host name or an address, without a port.")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError("--tls-certificate and --tls-key must be set together.")

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    def api_key(self, environment: Mapping[str, str]) -> str | None:
        """Returns the API key for the server. Raises ConfigError if its file cannot be read."""
        if self.api_key_file is None:
            return environment.get("MYNAH_API_KEY")
        try:
            return self.api_key_file.read_text().strip()
        except OSError as error:
            raise ConfigError(f"--api-key-file {self.api_key_file} cannot be read: {error.strerror}.") from error

    @property
    def tls(self) -> mynah.Tls | bool:
        """The TLS settings of the connection to the server."""
        return mynah.Tls(self.server_ca) if self.server_ca is not None else self.server_tls


def _check_address(name: str, address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--{name} is {address!r}; it must be HOST:PORT with a port from 0 to 65535.")


class _Parser(argparse.ArgumentParser):
    """A parser that raises ConfigError."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help.")


def read_config(arguments: Sequence[str]) -> PageConfig:
    """Returns the configuration. Raises ConfigError for an unknown flag or an invalid value."""
    parser = _Parser(prog="python -m ui", description="Serve the web page of a Mynah server.", allow_abbrev=False)
    add, default = parser.add_argument, PageConfig()
    add("--server", default=default.server, help="address of the Mynah server (default %(default)s)")
    add("--server-tls", action="store_true", help="connect to the server with TLS")
    add("--server-ca", type=Path, help="PEM file with the trusted certificates; implies --server-tls")
    add("--listen", default=default.listen, help="address to serve on; port 0 is any free port (default %(default)s)")
    add("--root-path", default="", help="path prefix of the page in browsers, e.g. /mynah")
    host_help = "further host name under which the page may be opened; may be repeated (default: loopback's names and "
    host_help += "the address of --listen; any name if that is 0.0.0.0 or [::])"
    add("--allowed-host", action="append", metavar="NAME", help=host_help)
    key_help = "file with the server's API key (default: the environment variable MYNAH_API_KEY)"
    add("--api-key-file", type=Path, help=key_help)
    add("--tls-certificate", type=Path, help="PEM certificate chain, to serve with TLS; needs --tls-key")
    add("--tls-key", type=Path, help="PEM private key of --tls-certificate")
    given = vars(parser.parse_args(arguments))
    return PageConfig(**{**given, "allowed_host": tuple(given["allowed_host"] or ())})
