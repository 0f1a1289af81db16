"""An engine that is loaded, warmed up and measured while the server already answers health checks.

Until it is loaded, `info` describes the configured engine, and `make_voice` and `open` raise EngineFailure.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import engines
from engines.api import DeviceMemory, Engine, EngineInfo, Samples, SpeechStream
from engines.config import Sampling
from engines.errors import EngineFailure
from engines.health import Health
from engines.voice import Voice
from service.audio import watermark
from service.capacity import measure, overcommitted
from service.config import ServerConfig
from service.telemetry import tracing

log = logging.getLogger("mynah.service")


def load_engine(config: ServerConfig) -> Engine:
    """The engine, with a watermark if configured. The watermark comes first, because it fails sooner. Blocks.

    Raises what loading either of them raises.
    """
    marker = watermark.PerthMarker() if watermark.is_enabled(config.watermark) else None
    engine = engines.load(config.engine_config(), tracing.TracedEngine())
    return engine if marker is None else watermark.MarkedEngine(engine, marker)


class LazyEngine:
    """The engine that `load` returns. With `measured`, `info.limits.max_streams` becomes what this device carries."""

    def __init__(self, load: Callable[[], Engine], expected: EngineInfo, *, measured: bool) -> None:
        """`load` may block: it is called once, on its own thread. `expected` is `info` until then."""
        self._load, self._measured = load, measured
        self._info = expected
        self._engine: Engine | None = None
        self._thread: threading.Thread | None = None
        self.health = Health()

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def default_voice(self) -> Voice | None:
        return None if self._engine is None else self._engine.default_voice

    @property
    def other_voices(self) -> Mapping[str, Voice]:
        return {} if self._engine is None else self._engine.other_voices

    @property
    def loading(self) -> bool:
        """Whether a library is still being loaded, which cannot be interrupted."""
        return self._thread is not None and self._thread.is_alive()

    async def warm_up(self) -> None:
        """Load, warm up, measure. Raises what loading and warming up raise."""
        engine = await self._loaded()
        self._engine, self._info = engine, engine.info
        engine.health.watch(self.health.set)
        engine.health.watch_loss(self.health.lose)
        self.health.set(engine.health.healthy)
        await engine.warm_up()
        if self._measured:
            capacity = await measure(engine, engine.info.limits.max_streams)
            log.info("capacity: %s", capacity.summary)
            built_for = engine.info.limits.max_streams
            limits = replace(engine.info.limits, max_streams=capacity.streams, max_offline_streams=built_for)
            self._info = replace(engine.info, limits=limits)
        elif warning := overcommitted(engine.info):
            log.warning("%s", warning)

    async def _loaded(self) -> Engine:
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[Engine] = loop.create_future()

        def settle(engine: Engine | None, error: BaseException | None) -> None:
            if loaded.done():
                return  # warm_up was cancelled meanwhile
            if engine is not None:
                loaded.set_result(engine)
            else:
                loaded.set_exception(error or EngineFailure("the engine was not loaded"))

        def load() -> None:
            engine, failure = None, None
            try:
                engine = self._load()
            except BaseException as error:
                failure = error
            try:
                loop.call_soon_threadsafe(settle, engine, failure)
            except RuntimeError:
                return  # the server has ended meanwhile

        # a daemon thread, so that the process can end while a library is loading
        self._thread = threading.Thread(target=load, name="load-engine", daemon=True)
        self._thread.start()
        return await loaded

    def count_text_tokens(self, word: str) -> int:
        return self._ready().count_text_tokens(word)

    def device_memory(self) -> DeviceMemory | None:
        return None if self._engine is None else self._engine.device_memory()

    async def make_voice(self, audio: bytes, *, name: str, normalize_loudness: bool = True) -> Voice:
        return await self._ready().make_voice(audio, name=name, normalize_loudness=normalize_loudness)

    async def similarity(self, voice: Voice, speech: Samples) -> float | None:
        return await self._ready().similarity(voice, speech)

    def schedule_now(self, voice: Voice, max_streams: int) -> str:
        return self._ready().schedule_now(voice, max_streams)

    async def load_language(self, language: str) -> None:
        await self._ready().load_language(language)

    async def open(self, voice: Voice, sampling: Sampling) -> SpeechStream:
        return await self._ready().open(voice, sampling)

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.close()

    def _ready(self) -> Engine:
        if self._engine is None:
            raise EngineFailure("the engine is not loaded yet")  # admission refuses every stream until then
        return self._engine
