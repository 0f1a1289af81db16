"""The server's configuration: flags and MYNAH_* variables become one frozen value, read once at start-up.

`python -m service.config` prints the tables of docs/options.md.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn

from engines.config import EngineConfig, split_model
from service.options import (
    ADDRESS,
    FRACTION,
    HOSTS,
    MEMORY,
    MODELS,
    ORIGINS,
    PATH,
    PLACE,
    PREFIX,
    SWITCH,
    URL,
    Option,
    one_of,
    option,
    options_of,
    seconds,
    whole,
    whole_or_auto,
)
from service.stream.policy import StreamPolicy
from service.stream.segmenter import MIN_MAX_CHARS
from service.telemetry.logs import FORMATS

_CLIENT_VARIABLES = ("MYNAH_API_KEY",)  # the client's own, which may stand in the same environment
_OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"  # OpenTelemetry's own variable
_LOG_LEVELS = ("debug", "info", "warning", "error")
_MIN_POSITIONS = 1500  # a stream may ask for 1000 speech tokens, behind a voice's prefix of up to 376 positions
_ENGINE_READERS = {
    "threads": whole(1, 1024),
    "weights_seed": whole(0, 2**63 - 1),
    "max_batch": whole(1, 64),
    "max_positions": whole(_MIN_POSITIONS, 1_000_000),
    "max_text_chars_per_segment": whole(MIN_MAX_CHARS, 100_000),
    "gpu_memory_utilization": FRACTION,
}


_MODEL_HELP = next(field.metadata["help"] for field in fields(EngineConfig) if field.name == "model")


class ConfigError(Exception):
    """A flag or a variable is wrong. The message names it, its value and what is allowed."""


@dataclass(frozen=True)
class TlsFiles:
    """The PEM files of TLS. With `client_ca`, clients need a certificate that it signed (mutual TLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.certificate, self.key) + ((self.client_ca,) if self.client_ca else ())


@dataclass(frozen=True)
class ServerConfig:
    """Everything a server needs: its own options, those of every stream, and those of the engine.

    Option `max_streams` is flag `--max-streams` and variable `MYNAH_MAX_STREAMS`.
    """

    listen: str = option("127.0.0.1:50051", "address for gRPC; port 0 takes a free one", ADDRESS)
    admin_listen: str | None = option(
        None, "address for /metrics, /healthz and /readyz over HTTP; default: not served", ADDRESS
    )
    http_listen: str | None = option(
        None, "address for HTTP: OpenAI's speech API, voices, WebSocket; default: not served", ADDRESS
    )
    cors_origin: tuple[str, ...] = option(
        (), "origins whose pages may use the HTTP port, beside the port's own origin", ORIGINS
    )
    allowed_host: tuple[str, ...] = option(
        (),
        "host names by which clients call the HTTP port where they need neither key nor certificate, beside its "
        "addresses, localhost and names that public DNS cannot have; * allows all; may be repeated",
        HOSTS,
    )
    openai_voices: bool = option(
        True,
        "on /v1/audio/speech, OpenAI's voice names (alloy, nova, ...) mean the default voice if no voice has that name",
        SWITCH,
    )
    model: tuple[str, ...] = option(
        ("auto",),
        f"{_MODEL_HELP}; may be given several times, and streams choose one by its name, else have the first; "
        "NAME=MODEL gives it another name",
        MODELS,
    )
    max_streams: int | None = option(
        None,
        "streams that may be open at the same time, of all models together; auto, the default, measures how many the "
        "device carries",
        whole_or_auto(1, 10_000),
    )
    voices_dir: Path | str | None = option(
        None,
        "folder or URL for uploaded voices, which several servers may share, or memory; default: "
        "$XDG_DATA_HOME/mynah/voices, else ~/.local/share/mynah/voices, where only this machine reaches the server, "
        "else memory",
        PLACE,
    )
    max_voices: int = option(1000, "uploaded voices that are stored", whole(1, 1_000_000))
    store_timeout_s: float = option(
        20.0, "time limit of one read, write or listing of --voices-dir", seconds(0.01, 3600)
    )
    max_voices_in_memory: int = option(
        256, "uploaded voices that are held in memory, about 0.3 MB each", whole(1, 1_000_000)
    )
    max_uploads: int = option(4, "uploads that may run at the same time", whole(1, 1000))
    grace_s: float = option(30.0, "time for open streams to finish when the server is stopped", seconds(0, 86_400))
    hang_timeout_s: float = option(
        60.0,
        "the engine has stalled if its work has not advanced for this long, and for ten times its longest recent call",
        seconds(0.01, 86_400),
    )
    tls_certificate: Path | None = option(
        None, "PEM certificate chain; with --tls-key, connections are encrypted; read again when it changes", PATH
    )
    tls_key: Path | None = option(None, "PEM private key of --tls-certificate", PATH)
    tls_client_ca: Path | None = option(
        None, "PEM certificates of CAs; clients need a certificate that one of them signed (mutual TLS)", PATH
    )
    api_keys: Path | None = option(None, "file of API keys, made by mynah-keys; clients need one of them", PATH)
    watermark: bool | None = option(
        None, "mark all speech inaudibly with resemble-perth; default: on if that is installed", SWITCH
    )
    insecure: bool = option(False, "serve unencrypted on an address that other machines can reach", SWITCH)
    otlp_endpoint: str | None = option(
        None, f"OTLP/gRPC endpoint for traces; default: ${_OTLP_ENDPOINT}, else no traces", URL
    )
    log_level: str = option(
        "info", "least severe level of the log lines that are written", one_of(*_LOG_LEVELS, any_case=True)
    )
    log_format: str = option(
        "text", "how log lines are written; json: an object in each line, those on stdout included", one_of(*FORMATS)
    )
    policy: StreamPolicy = StreamPolicy()
    engine: EngineConfig = EngineConfig()

    def __post_init__(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError("tls_certificate and tls_key need each other: give both or neither.")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ConfigError("tls_client_ca needs tls_certificate and tls_key.")
        if self.tls_certificate is None and not self.insecure:
            self._check_loopback()

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches the ports that clients use."""
        return all(is_loopback(address) for address in (self.listen, self.http_listen) if address is not None)

    def _check_loopback(self) -> None:
        for name in ("listen", "http_listen"):
            address = getattr(self, name)
            if address is not None and not is_loopback(address):
                raise ConfigError(
                    f"{name} is {address}, which other machines can reach, and connections would not be encrypted: "
                    "give tls_certificate and tls_key, or insecure, or listen on 127.0.0.1."
                )

    @property
    def tls(self) -> TlsFiles | None:
        """The certificate for every port that clients use."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return TlsFiles(self.tls_certificate, self.tls_key, self.tls_client_ca)

    def engine_configs(self) -> tuple[EngineConfig, ...]:
        """The options of each model's engine, built for the streams that this server admits."""
        streams = self.max_streams or _max_streams_of(self.engine.device)
        return tuple(replace(self.engine, model=split_model(each)[1], max_streams=streams) for each in self.model)

    def model_names(self) -> tuple[str, ...]:
        """The names that the options give the models; empty where a model has its own."""
        return tuple(split_model(each)[0] for each in self.model)


def _max_streams_of(device: str) -> int:
    """The streams that an engine is built for before its capacity is measured."""
    return 64 if is_gpu(device) else 16


def is_gpu(device: str) -> bool:
    """Whether the option of this value means a GPU on this machine."""
    return device.startswith("cuda") or (device == "auto" and Path("/dev/nvidiactl").exists())


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT is reachable from this machine alone. Names other than localhost count as reachable."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_OWN = {each.name: each for each in options_of(ServerConfig)}
_POLICY = {each.name: each for each in options_of(StreamPolicy)}
# without model and max_streams, which the server has itself
_ENGINE = {each.name: each for each in options_of(EngineConfig, _ENGINE_READERS) if each.name not in _OWN}
OPTIONS: dict[str, Option] = _OWN | _POLICY | _ENGINE


def build_config(**values: Any) -> ServerConfig:
    """A configuration from options by their names. Raises ConfigError."""
    own = {name: value for name, value in values.items() if name not in _POLICY and name not in _ENGINE}
    policy = StreamPolicy(**{name: value for name, value in values.items() if name in _POLICY})
    engine = EngineConfig(**{name: value for name, value in values.items() if name in _ENGINE})
    return ServerConfig(**own, policy=policy, engine=engine)


def read_config(arguments: Sequence[str], environment: Mapping[str, str]) -> ServerConfig:
    """The configuration by flags, then variables, then defaults.

    Raises ConfigError for an unknown flag or MYNAH_* variable and for a bad value; SystemExit after --help.
    """
    values = _from_environment(environment)
    flags = vars(_parser().parse_args(arguments))
    for name, text in flags.items():
        if text is not None:
            values[name] = _read(name, ",".join(text) if isinstance(text, list) else text, OPTIONS[name].flag)
    return build_config(**values)


def with_voices_place(config: ServerConfig, environment: Mapping[str, str]) -> ServerConfig:
    """The configuration with a place for voices where none is given: the user's data folder, else memory."""
    if config.voices_dir is not None:
        return config
    folder = _default_voices_dir(environment) if config.on_loopback else None
    return replace(config, voices_dir=folder or MEMORY)


def _default_voices_dir(environment: Mapping[str, str]) -> Path | None:
    """$XDG_DATA_HOME/mynah/voices, else ~/.local/share/mynah/voices; None if this user cannot write there."""
    base = environment.get("XDG_DATA_HOME")
    if not base and environment.get("HOME") == "":
        return None  # Python would take the root folder for it
    try:
        folder = (Path(base) if base else Path.home() / ".local" / "share") / "mynah" / "voices"
    except RuntimeError:
        return None  # a user without a home
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    return folder if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK) else None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable in sorted(key for key in environment if key.startswith(PREFIX)):
        name = variable.removeprefix(PREFIX).lower()
        if variable in _CLIENT_VARIABLES:
            continue
        if name not in OPTIONS or variable != variable.upper():
            known = ", ".join(each.variable for each in OPTIONS.values())
            raise ConfigError(f"{variable} is not an option of this server. Its options are {known}.")
        values[name] = _read(name, environment[variable], variable)
    if "otlp_endpoint" not in values and environment.get(_OTLP_ENDPOINT):
        values["otlp_endpoint"] = _read("otlp_endpoint", environment[_OTLP_ENDPOINT], _OTLP_ENDPOINT)
    return values


def _read(name: str, text: str, source: str) -> Any:
    reader = OPTIONS[name].reader
    try:
        return reader.read(text)
    except ValueError:
        raise ConfigError(f"{source} is {text!r}; it must be {reader.allowed}.") from None


class _Parser(argparse.ArgumentParser):
    """Reports a bad flag as ConfigError."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mynah-serve",
        description="Serve streaming speech over gRPC and HTTP.",
        epilog=f"Every option is also a variable: --max-streams is {PREFIX}MAX_STREAMS. Flags win.",
        allow_abbrev=False,
    )
    for title, options in _groups().items():
        group = parser.add_argument_group(title.lower())
        for each in options.values():
            default = f" (default: {each.default_text})" if each.default_text else ""
            form: dict[str, Any] = {"nargs": "?", "const": "on"} if each.reader is SWITCH else {}
            if each.reader.repeatable:
                form = {"action": "append"}
            metavar = each.reader.metavar
            group.add_argument(each.flag, dest=each.name, metavar=metavar, help=each.help + default, **form)
    return parser


def _groups() -> dict[str, dict[str, Option]]:
    return {"Server": _OWN, "Streams and uploads": _POLICY, "Engine": _ENGINE}


def tables() -> str:
    """Every option as a row of Markdown, in one table for each group."""
    parts = []
    for title, options in _groups().items():
        rows = ["| flag | variable | value | default | meaning |", "|---|---|---|---|---|"]
        rows += [_row(each) for each in options.values()]
        parts.append(f"## {title}\n\n" + "\n".join(rows))
    return "\n\n".join(parts)


def _row(each: Option) -> str:
    default = f"`{each.default_text}`" if each.default_text else ""
    cells = (f"`{each.flag}`", f"`{each.variable}`", each.reader.allowed, default, each.help)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(tables())
