"""An Engine that passes every call to another one; subclasses change the calls that they are about."""

from __future__ import annotations

from collections.abc import Mapping

from engines.api import DeviceMemory, Engine, EngineInfo, Samples, SpeechStream
from engines.config import Sampling
from engines.health import Health
from engines.voice import Voice


class EngineWrapper:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def info(self) -> EngineInfo:
        return self._engine.info

    @property
    def health(self) -> Health:
        return self._engine.health

    @property
    def default_voice(self) -> Voice | None:
        return self._engine.default_voice

    @property
    def other_voices(self) -> Mapping[str, Voice]:
        return self._engine.other_voices

    def count_text_tokens(self, word: str) -> int:
        return self._engine.count_text_tokens(word)

    def device_memory(self) -> DeviceMemory | None:
        return self._engine.device_memory()

    async def make_voice(self, audio: bytes, *, name: str, normalize_loudness: bool = True) -> Voice:
        return await self._engine.make_voice(audio, name=name, normalize_loudness=normalize_loudness)

    async def similarity(self, voice: Voice, speech: Samples) -> float | None:
        return await self._engine.similarity(voice, speech)

    def schedule_now(self, voice: Voice, max_streams: int) -> str:
        return self._engine.schedule_now(voice, max_streams)

    async def load_language(self, language: str) -> None:
        await self._engine.load_language(language)

    async def open(self, voice: Voice, sampling: Sampling) -> SpeechStream:
        return await self._engine.open(voice, sampling)

    async def warm_up(self) -> None:
        await self._engine.warm_up()

    async def close(self) -> None:
        await self._engine.close()
