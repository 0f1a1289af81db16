"""Engines for a batch in the process that runs it: they speak as a server of the same options does, to no listener."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from engines.cuda_faults import DeviceLost
from engines.errors import EngineError
from mynah.client.errors import InvalidArgument
from mynah.client.settings import SpeechSettings
from mynah.client.stream import SpeechStream
from service.access.admission import Admission
from service.bulk.local_call import LocalCall
from service.config import ConfigError, ServerConfig, is_gpu, read_config, with_voices_place
from service.engine_loader import load_models
from service.errors import Unavailable
from service.handlers.failures import error_of
from service.handlers.speech_handler import SpeechHandler
from service.options import MEMORY, PREFIX
from service.telemetry import logs
from service.voices.lookup import VoiceLookup
from service.voices.store import VoiceStore
from service.watchdog import Watchdog, WatchedEngine

log = logging.getLogger("mynah.service")

EXIT_ENGINE_LOST = 70  # Ray starts another process, which may find the device well again
_OPEN_TIMEOUT_S = 600.0  # a stream waits for no one; its voice may be far away
_OF_PORTS = (
    "listen", "http_listen", "admin_listen", "tls_certificate", "tls_key", "tls_client_ca", "insecure", "api_keys",
    "cors_origin", "allowed_host",
)  # fmt: skip


class Engine:
    """The engines of a server's models, for up to `jobs` streams at once.

    Construct it, `open` it on an event loop, then `stream`.

    The process ends if an engine is lost or hangs, so that Ray starts another one.
    """

    def __init__(self, options: Mapping[str, str], jobs: int, threads: int) -> None:
        """Loads the models.

        options: of the server by their names; they go before this process's MYNAH_* variables
        threads: of an operation on a CPU, where neither of them says it

        Raises MynahError if an option is wrong or a model cannot be loaded.
        """
        self._config = configuration(options, jobs, threads, os.environ)
        logs.configure(self._config.log_level, self._config.log_format)
        try:
            self._models = load_models(self._config)
        except (EngineError, OSError) as error:
            raise error_of(error) from error
        self._models.health.watch_loss(_end_process)
        self._watchdog = Watchdog(self._config.hang_timeout_s, _end_process)
        self._models.wrap(lambda engine: WatchedEngine(engine, self._watchdog))
        self._admission = Admission(jobs, max_uploads=1)

    async def open(self) -> None:
        """Warm up. Raises MynahError."""
        voices_dir = self._config.voices_dir
        voices = VoiceStore(
            self._models.engines,
            None if voices_dir == MEMORY else voices_dir,
            max_loaded=self._config.max_voices_in_memory,
            time_limit_s=self._config.store_timeout_s,
        )
        self._handler = SpeechHandler(self._models, VoiceLookup(voices), self._admission, self._config.policy)
        try:
            await self._models.warm_up()
        except EngineError as error:
            raise error_of(error) from error
        self._watchdog.start(lambda: self._models.health.healthy)
        self._admission.open()

    def stream(self, **settings: Any) -> SpeechStream:
        """A stream, as mynah.Client.stream."""
        text = settings.pop("text_settings")
        return SpeechStream(partial(LocalCall, self._handler), SpeechSettings(text=text, **settings), _OPEN_TIMEOUT_S)

    async def close(self) -> None:
        """Free the device."""
        self._watchdog.stop()
        await self._models.close()


def configuration(options: Mapping[str, str], jobs: int, threads: int, environment: Mapping[str, str]) -> ServerConfig:
    """A server's configuration without its ports, for `jobs` streams.

    What depends on how fast this machine is now is not measured, and on a CPU lines share no calls of S3Gen, whose
    rounding depends on them: every machine makes the same bytes.
    Raises InvalidArgument.
    """

    def variables(values: Mapping[str, str]) -> dict[str, str]:
        return {f"{PREFIX}{name.upper()}": value for name, value in values.items()}

    defaults, chosen = {"strict_reference": "on", "threads": str(threads)}, {**options, "max_streams": str(jobs)}
    of_ports = variables(dict.fromkeys(_OF_PORTS, ""))
    given = {**variables(defaults), **environment, **variables(chosen)}
    kept = {name: value for name, value in given.items() if name not in of_ports}
    try:
        config = with_voices_place(read_config([], kept), kept)
        config.engine_configs()
    except ConfigError as error:
        raise InvalidArgument(str(error), reason="OPTION_INVALID", field="engine") from error
    if config.engine.max_batch is None and not is_gpu(config.engine.device):
        return replace(config, engine=replace(config.engine, max_batch=1))
    return config


def _end_process(error: DeviceLost | Unavailable) -> None:
    """End now: nothing in this process can speak any more, and what hangs would keep it from ending."""
    log.critical("the process ends with status %d: %s", EXIT_ENGINE_LOST, error)
    os._exit(EXIT_ENGINE_LOST)
