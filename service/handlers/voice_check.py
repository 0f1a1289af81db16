"""How near a new voice comes to its recording: one short sentence is spoken with it and compared.

It takes a stream's slot like any other speech, and is left out, with the reason, where there is none or where it would
say nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from engines.api import AudioChunk, Engine, Samples, Segment
from engines.errors import EngineBusy, EngineError
from engines.model_spec import SAMPLE_RATE_HZ
from engines.voice import Voice
from engines.voice_report import VoiceReport
from service.access.admission import Admission
from service.errors import RequestError, ResourceExhausted

log = logging.getLogger("mynah.service")

_SENTENCE = "This is how the new voice sounds when it reads a short sentence."
_SPEECH_TOKENS = 125  # at most
_MIN_SPEECH_S = 1.0  # less does not show a speaker
TIME_LIMIT_S = 20.0


class VoiceCheck:
    """Measures the similarity of new voices."""

    def __init__(self, admission: Admission, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._admission, self._time_limit_s = admission, time_limit_s

    async def checked(self, voice: Voice, engine: Engine) -> Voice:
        """The voice with its similarity, or the reason for having none, in its report. Raises nothing of its own."""
        report = VoiceReport.of_metadata(voice.metadata)
        if report is None:
            return voice
        similarity, skipped = await self._measure(voice, engine)
        report = replace(report, similarity=similarity, similarity_skipped=skipped)
        return replace(voice, metadata=report.in_metadata(voice.metadata))

    async def _measure(self, voice: Voice, engine: Engine) -> tuple[float | None, str]:
        """Returns the similarity, or None and why."""
        if engine.info.random_weights:
            return None, "The model's weights are random: its speech has no speaker."
        if not engine.info.clones_speakers:
            return None, "This model knows few speakers: a new voice is the nearest of its own, or one between them."
        try:
            async with asyncio.timeout(self._time_limit_s):
                speech = await self._speak(voice, engine)
                if len(speech) < _MIN_SPEECH_S * SAMPLE_RATE_HZ or not np.any(speech):
                    return None, "The voice spoke too little to be compared."
                similarity = await engine.similarity(voice, speech)
        except TimeoutError:
            return None, f"Speaking with the voice took more than {self._time_limit_s:g} s."
        except (RequestError, EngineBusy):
            return None, "The server was too busy to speak with the voice."
        except EngineError as error:
            log.warning("a new voice could not be compared with its recording: %s", error)
            return None, "Speaking with the voice failed."
        if similarity is None:
            return None, "The model has no net that compares speakers."
        return round(similarity, 3), ""

    async def _speak(self, voice: Voice, engine: Engine) -> Samples:
        with self._slot():
            sampling = replace(engine.info.sampling, seed=1, max_speech_tokens=_SPEECH_TOKENS)
            stream = await engine.open(voice, sampling)
            try:
                async with contextlib.aclosing(stream.speak(Segment(0, _SENTENCE))) as events:
                    chunks = [event.samples async for event in events if isinstance(event, AudioChunk)]
            finally:
                await stream.close()
        return np.concatenate([np.zeros(0, np.float32), *chunks])

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        """Holds a stream's slot, but not the last free one of several. Raises ResourceExhausted, Unavailable."""
        self._admission.check_serving()
        slots = self._admission.streams
        if slots.capacity > 1 and slots.in_use >= slots.capacity - 1:
            raise ResourceExhausted("STREAMS_EXHAUSTED", "The last free slot is kept for a caller.")
        with slots.acquire():
            yield
