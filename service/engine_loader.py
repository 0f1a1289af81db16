"""Engines that are loaded, warmed up and measured while the server already answers health checks.

Until an engine is loaded, `info` describes the configured one, and `make_voice` and `open` raise EngineFailure.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import engines
from engines.api import DeviceMemory, Engine, EngineInfo, Limits, Samples, SpeechStream
from engines.config import EngineConfig, Sampling
from engines.errors import EngineFailure
from engines.health import Health
from engines.shared_device import check_names
from engines.voice import Voice
from engines.wrapper import EngineWrapper
from service.audio import watermark
from service.capacity import measure, overcommitted
from service.config import ServerConfig
from service.models import Models
from service.telemetry import tracing

log = logging.getLogger("mynah.service")


def load_engine(
    config: ServerConfig, of_model: EngineConfig, shared: engines.SharedDevice, caches: dict[int, float]
) -> Engine:
    """The engine of one of the configuration's models, with a watermark if configured. Blocks.

    `shared` and `caches` are those of all models; see `engines.load` and EngineMetrics. The watermark comes first,
    because it fails sooner. Raises what loading either of them raises.
    """
    marker = watermark.PerthMarker() if watermark.is_enabled(config.watermark) else None
    engine = engines.load(of_model, tracing.TracedEngine(caches), shared)
    return engine if marker is None else watermark.MarkedEngine(engine, marker)


def load_models(config: ServerConfig) -> Models:
    """The models of a configuration, loaded one after the other. Blocks.

    Raises what loading raises, and InvalidInput if two models have one name.
    """
    models = Models([_Named(load(), name) for load, _, name in _loads(config)])
    check_names(models.names)
    return models


def lazy_models(config: ServerConfig) -> LazyModels:
    """The models of a configuration, none of which is loaded yet."""
    lazy = [LazyEngine(load, _expected(each), name) for load, each, name in _loads(config)]
    return LazyModels(lazy, measured=config.max_streams is None)


def _loads(config: ServerConfig) -> list[tuple[Callable[[], Engine], EngineConfig, str]]:
    """What loads each model's engine, its options, and the name that the configuration gives it."""
    configs = config.engine_configs()
    shared, caches = engines.SharedDevice(configs, config.model_names()), dict[int, float]()
    loads = [partial(load_engine, config, each, shared, caches) for each in configs]
    return list(zip(loads, configs, config.model_names(), strict=True))


class _Named(EngineWrapper):
    """An engine whose model has another name; empty: its own."""

    def __init__(self, engine: Engine, name: str) -> None:
        super().__init__(engine)
        self._name = name

    @property
    def info(self) -> EngineInfo:
        return _named(self._engine.info, self._name)


def _named(info: EngineInfo, name: str) -> EngineInfo:
    return replace(info, model=name or info.model)


def _expected(engine: EngineConfig) -> EngineInfo:
    """The info of a configured engine before it is loaded."""
    limits = Limits(engine.max_text_chars_per_segment, Sampling().max_speech_tokens, engine.max_streams)
    return EngineInfo(engine.model, engine.device, engine.t3, engine.s3gen, limits, notice="The model is being loaded.")


class LazyEngine:
    """The engine that `load` returns."""

    def __init__(self, load: Callable[[], Engine], expected: EngineInfo, name: str = "") -> None:
        """`load` may block: it is called once, on its own thread. `expected` is `info` until then. `name` is that of
        the model; empty: its own."""
        self._load, self._name = load, name
        self._info = _named(expected, name)
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
        """Load and warm up. Raises what either raises."""
        engine = await self._loaded()
        self._engine, self._info = engine, _named(engine.info, self._name)
        engine.health.watch(self.health.set)
        engine.health.watch_loss(self.health.lose)
        self.health.set(engine.health.healthy)
        await engine.warm_up()

    def admit(self, streams: int) -> None:
        """Say how many streams the server admits, of those that the engine was built for."""
        built_for = self._info.limits.max_streams
        limits = replace(self._info.limits, max_streams=streams, max_offline_streams=built_for)
        self._info = replace(self._info, limits=limits)

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


class LazyModels(Models):
    """Models whose engines are loaded one after the other. With `measured`, each says as its `limits.max_streams` what
    this device carries of all of them together."""

    def __init__(self, lazy: Sequence[LazyEngine], *, measured: bool) -> None:
        super().__init__(lazy)
        self._lazy, self._measured = lazy, measured

    @property
    def loading(self) -> bool:
        """Whether a library is still being loaded, which cannot be interrupted."""
        return any(engine.loading for engine in self._lazy)

    async def warm_up(self) -> None:
        """Load, warm up, measure. Raises what loading and warming up raise, and InvalidInput if two models have one
        name."""
        await super().warm_up()
        check_names(self.names)
        if self._measured:
            capacity = await measure(self._lazy, self.max_streams)
            log.info("capacity: %s", capacity.summary)
            for engine in self._lazy:
                engine.admit(capacity.streams)
            return
        for warning in filter(None, map(overcommitted, self.infos)):
            log.warning("%s", warning)
