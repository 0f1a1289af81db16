"""The server's configuration: flags and MYNAH_* variables -> one frozen value, read once at the edge.

Each option stands here once, with its default, its range and its sentence of help; nothing is read anywhere else.
"""

from __future__ import annotations

import argparse
import ipaddress
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from engines.config import (
    DECODE_MODES,
    S3GEN_DTYPES,
    S3GEN_RUNTIMES,
    SCHEDULE_NAMES,
    T3_BACKENDS,
    T3_DTYPES,
    EngineConfig,
)

_PREFIX = "MYNAH_"
_CLIENTS = ("MYNAH_API_KEY",)  # variables of the client's, which may stand in the same environment
_LEVELS = ("debug", "info", "warning", "error")


class ConfigError(Exception):
    """A flag or a variable that cannot be: names it, its value and what is allowed."""


@dataclass(frozen=True)
class _Kind:
    """How a value is read from a string: raises ValueError when it is not `allowed`."""

    read: Callable[[str], Any]
    allowed: str


def _int(low: int, high: int) -> _Kind:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return _Kind(read, f"a whole number in [{low}, {high}]")


def _int_or_auto(low: int, high: int) -> _Kind:
    number = _int(low, high)
    return _Kind(lambda text: None if text == "auto" else number.read(text), f"auto, or {number.allowed}")


def _seconds(low: float, high: float) -> _Kind:
    def read(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError
        return value

    return _Kind(read, f"seconds in [{low:g}, {high:g}]")


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError
    return text


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


def _level(text: str) -> str:
    if text.lower() not in _LEVELS:
        raise ValueError
    return text.lower()


def _path(text: str) -> Path:
    return Path(_text(text)).expanduser()


def _place(text: str) -> Path | str:
    return text if "://" in text else _path(text)


def _one_of(*names: str) -> _Kind:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError
        return text

    return _Kind(read, " | ".join(names))


def _names(*allowed: str) -> _Kind:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(part.strip() for part in text.split(","))
        if not set(names) <= set(allowed) or len(set(names)) != len(names):
            raise ValueError
        return names

    return _Kind(read, f"some of {', '.join(allowed)}, each once, with commas between")


_PATH = _Kind(_path, "a path")
_STREAMS = _int_or_auto(1, 10_000)
_PLACE = _Kind(_place, "a path, or a URL that fsspec opens, e.g. s3://bucket/voices")
_SWITCH = _Kind(lambda text: {"on": True, "off": False}[text.lower()], "on | off")  # a flag alone means on
_ADDRESS = _Kind(_address, "HOST:PORT with a port in [0, 65535]")


_OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"  # OpenTelemetry's own variable
_OTLP_HELP = f"where spans go over OTLP/gRPC, http:// or https://; default: ${_OTLP_ENDPOINT}, else nowhere"

_OPTIONS: dict[str, tuple[_Kind, str]] = {
    "model": (
        _Kind(_text, "a model"),
        "auto, turbo, nano, turbo-onnx, tiny, a folder of the same layout, or random:turbo|nano|tiny",
    ),
    "listen": (_ADDRESS, "where to serve; port 0 takes a free one"),
    "admin_listen": (_ADDRESS, "where to serve /metrics, /healthz and /readyz over HTTP; without it, nowhere"),
    "http_listen": (_ADDRESS, "where to serve HTTP: OpenAI's speech API, voices, WebSocket; without it, nowhere"),
    "cors_origin": (
        _Kind(_origins, "origins such as https://app.example with commas between, or *"),
        "pages whose scripts may use the HTTP port, beside those of its own address",
    ),
    "device": (_Kind(_text, "a device"), "auto, cpu, cuda or cuda:N"),
    "threads": (_int(1, 1024), "CPU threads of the models"),
    "schedule": (_one_of(*SCHEDULE_NAMES), "when to decode: lowest_latency, balanced or throughput"),
    "decode": (_one_of(*DECODE_MODES), "S3Gen windows: reference (prompt recomputed) or cached (faster, on trial)"),
    "t3": (_one_of(*T3_BACKENDS), "what makes speech tokens: auto, torch, onnx or vllm"),
    "t3_dtype": (
        _one_of(*T3_DTYPES),
        "its precision: auto, float32, float16 (vllm, torch on a CPU), bfloat16 (vllm) or int8 (onnx)",
    ),
    "s3gen": (
        _one_of(*S3GEN_RUNTIMES),
        "what makes audio: auto, torch, torch_graphs (on a GPU), onnx or tensorrt",
    ),
    "s3gen_dtype": (_one_of(*S3GEN_DTYPES), "its precision: auto, float32 or float16 (not torch)"),
    "strict": (_SWITCH, "refuse to start where S3Gen's runtime fails its gate, instead of falling back"),
    "providers": (_names("tensorrt", "cuda", "cpu"), "ONNX Runtime's, by preference, with commas between"),
    "provider_fp16": (_SWITCH, "let ONNX Runtime's TensorRT provider choose fp16"),
    "provider_cache_dir": (_PATH, "where that provider keeps its engines; without it, beside the graphs"),
    "max_streams": (_STREAMS, "streams that may be open at once; auto: as many as the device is found to carry"),
    "cache_dir": (_PATH, "where downloads and random checkpoints are kept"),
    "weights_seed": (_int(0, 2**63 - 1), "seed of random weights"),
    "voices_dir": (_PLACE, "where uploaded voices are kept; servers may share it; without it, in memory"),
    "max_voices": (_int(1, 1_000_000), "uploaded voices that are kept"),
    "max_voices_in_memory": (_int(1, 1_000_000), "of these, how many are in memory; each takes about 0.3 MB"),
    "max_uploads": (_int(1, 1000), "uploads that may run at once"),
    "max_upload_bytes": (_int(1, 2**31), "longest upload of reference audio"),
    "max_pending_text_chars": (_int(1000, 10_000_000), "text that may wait to be spoken on a stream"),
    "max_pending_flushes": (_int(1, 1_000_000), "flushes that may wait to be answered on a stream"),
    "send_queue_events": (_int(1, 1000), "chunks made ahead of a slow reader"),
    "idle_timeout_s": (_seconds(0.01, 86_400), "end a stream on which nothing happens"),
    "stall_timeout_s": (_seconds(0.01, 86_400), "end a stream whose client does not read"),
    "grace_s": (_seconds(0, 86_400), "time for open streams when the server is told to stop"),
    "tls_certificate": (_PATH, "PEM certificate chain; with --tls-key, serve encrypted; read again when it changes"),
    "tls_key": (_PATH, "PEM private key"),
    "tls_client_ca": (_PATH, "PEM certificates; only clients with a certificate of theirs are let in"),
    "api_keys": (_PATH, "file of API keys, made by mynah-keys; only callers with a key are let in"),
    "watermark": (_SWITCH, "mark all speech inaudibly (resemble-perth); default: where that is installed"),
    "insecure": (_SWITCH, "serve unencrypted on an address that others can reach"),
    "otlp_endpoint": (_Kind(_url, "http://HOST:PORT or https://HOST:PORT"), _OTLP_HELP),
    "log_level": (_Kind(_level, " | ".join(_LEVELS)), "debug, info, warning or error"),
}


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
    """Everything a server needs. Field `max_streams` is flag `--max-streams` and variable `MYNAH_MAX_STREAMS`."""

    model: str = "auto"
    listen: str = "127.0.0.1:50051"
    admin_listen: str | None = None
    http_listen: str | None = None
    cors_origin: tuple[str, ...] = ()
    device: str = "auto"
    threads: int | None = None
    schedule: str = "balanced"
    decode: str = "reference"
    t3: str = "auto"
    t3_dtype: str = "auto"
    s3gen: str = "auto"
    s3gen_dtype: str = "auto"
    strict: bool = False
    providers: tuple[str, ...] = ("cpu",)
    provider_fp16: bool = False
    provider_cache_dir: Path | None = None
    max_streams: int | None = None  # auto
    cache_dir: Path | None = None
    weights_seed: int = 0
    voices_dir: Path | str | None = None
    max_voices: int = 1000
    max_voices_in_memory: int = 256
    max_uploads: int = 4
    max_upload_bytes: int = 20_000_000
    max_pending_text_chars: int = 20_000
    max_pending_flushes: int = 1000
    send_queue_events: int = 8
    idle_timeout_s: float = 300.0
    stall_timeout_s: float = 30.0
    grace_s: float = 30.0
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    api_keys: Path | None = None
    watermark: bool | None = None  # on where resemble-perth is installed
    insecure: bool = False
    otlp_endpoint: str | None = None
    log_level: str = "info"

    def __post_init__(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError("tls_certificate and tls_key are given together or not at all")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ConfigError("tls_client_ca needs tls_certificate and tls_key")
        if self.tls_certificate is None and not self.insecure:
            self._check_loopback()

    def _check_loopback(self) -> None:
        for name in ("listen", "http_listen"):
            address = getattr(self, name)
            if address is not None and not is_loopback(address):
                message = f"{name} = {address} can be reached by others, and nothing would be encrypted"
                raise ConfigError(f"{message}; allowed: tls_certificate and tls_key, or insecure, or 127.0.0.1")

    @property
    def tls(self) -> TlsFiles | None:
        """The certificate to serve with, for every port that clients speak to."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return TlsFiles(self.tls_certificate, self.tls_key, self.tls_client_ca)

    def engine(self) -> EngineConfig:
        """The part that the engine is built from."""
        return EngineConfig(
            model=self.model,
            device=self.device,
            threads=self.threads,
            schedule=self.schedule,
            decode=self.decode,
            t3=self.t3,
            t3_dtype=self.t3_dtype,
            s3gen=self.s3gen,
            s3gen_dtype=self.s3gen_dtype,
            strict=self.strict,
            providers=self.providers,
            provider_fp16=self.provider_fp16,
            provider_cache_dir=self.provider_cache_dir,
            max_streams=self.max_streams or _most_streams(self.device),
            cache_dir=self.cache_dir,
            weights_seed=self.weights_seed,
        )


def _most_streams(device: str) -> int:
    """What an engine is built for when the streams that it carries are yet to be found."""
    on_gpu = device.startswith("cuda") or (device == "auto" and Path("/dev/nvidiactl").exists())
    return 64 if on_gpu else 16


def is_loopback(address: str) -> bool:
    """Whether HOST:PORT can be reached from this machine alone; names other than localhost count as reachable."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


assert _OPTIONS.keys() == {option.name for option in fields(ServerConfig)}


def read_config(arguments: Sequence[str], environment: Mapping[str, str]) -> ServerConfig:
    """Flags before variables before defaults.

    Raises ConfigError for an unknown flag or MYNAH_* variable and for a bad value; SystemExit after --help.
    """
    chosen = _from_environment(environment)
    given = vars(_parser().parse_args(arguments))
    chosen |= {name: _read(name, text, _flag(name)) for name, text in given.items() if text is not None}
    return ServerConfig(**chosen)


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for variable in sorted(key for key in environment if key.startswith(_PREFIX)):
        name = variable.removeprefix(_PREFIX).lower()
        if variable in _CLIENTS:
            continue
        if name not in _OPTIONS or variable != variable.upper():
            known = ", ".join(_PREFIX + option.upper() for option in _OPTIONS)
            raise ConfigError(f"{variable} is not a setting of this server; allowed: {known}")
        chosen[name] = _read(name, environment[variable], variable)
    if "otlp_endpoint" not in chosen and environment.get(_OTLP_ENDPOINT):
        chosen["otlp_endpoint"] = _read("otlp_endpoint", environment[_OTLP_ENDPOINT], _OTLP_ENDPOINT)
    return chosen


def _read(name: str, text: str, source: str) -> Any:
    kind, _ = _OPTIONS[name]
    try:
        return kind.read(text)
    except (ValueError, KeyError):
        raise ConfigError(f"{source} = {text!r} is not allowed; allowed: {kind.allowed}") from None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


class _Parser(argparse.ArgumentParser):
    """Reports a bad flag as ConfigError."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mynah-serve",
        description="Serve streaming speech over gRPC.",
        epilog=f"Every option is also a variable: --max-streams is {_PREFIX}MAX_STREAMS. Flags win.",
        allow_abbrev=False,
    )
    defaults = {option.name: option.default for option in fields(ServerConfig)}
    for name, (kind, help_text) in _OPTIONS.items():
        if kind is _SWITCH:
            parser.add_argument(_flag(name), dest=name, nargs="?", const="on", metavar="on|off", help=help_text)
            continue
        default = "" if defaults[name] is None else f" (default {defaults[name]})"
        parser.add_argument(_flag(name), dest=name, metavar=name.upper(), help=help_text + default)
    return parser
