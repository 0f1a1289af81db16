"""Sessions on the fake engine and a virtual clock, without a surface."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from engines.config import Sampling
from engines.fake import FakeEngine, fake_voice
from mynah.client.events import AudioChunk, Cancelled, Event, Flushed, SegmentDone, SegmentStarted
from service.audio.formats import AudioSettings
from service.stream.policy import StreamPolicy
from service.stream.session import Session
from service.stream.settings import StreamSettings, TextSettings


def session(
    engine: FakeEngine,
    audio: AudioSettings | None = None,
    *,
    seed: int = 7,
    text: TextSettings | None = None,
    word_times: bool = False,
    speed: float = 1.0,
    **limits: int,
) -> Session:
    voice, sampling = fake_voice("default"), Sampling(seed=seed)
    chosen = text or TextSettings()
    settings = StreamSettings(
        "default", voice, audio or AudioSettings(), sampling, chosen, speed, word_times=word_times
    )
    return Session(engine, settings, StreamPolicy(**limits))


@dataclass
class Received:
    """The events that a session's reader received."""

    events: list[Event] = field(default_factory=list)

    async def read(self, of: Session) -> Received:
        """Read to the end."""
        while (event := await of.next_event()) is not None:
            self.events.append(event)
        return self

    async def read_until(self, of: Session, kind: type[Event]) -> Event:
        """Read up to the first event of a kind."""
        while True:
            event = await of.next_event()
            assert event is not None, f"the session ended before a {kind.__name__}"
            self.events.append(event)
            if isinstance(event, kind):
                return event

    @property
    def audio(self) -> list[AudioChunk]:
        return [event for event in self.events if isinstance(event, AudioChunk)]

    @property
    def done(self) -> list[SegmentDone]:
        return [event for event in self.events if isinstance(event, SegmentDone)]

    @property
    def started(self) -> list[SegmentStarted]:
        return [event for event in self.events if isinstance(event, SegmentStarted)]

    @property
    def flushed(self) -> list[int]:
        return [event.flush_id for event in self.events if isinstance(event, Flushed)]

    @property
    def cancelled(self) -> list[Cancelled]:
        return [event for event in self.events if isinstance(event, Cancelled)]

    @property
    def data(self) -> bytes:
        return b"".join(chunk.data for chunk in self.audio)

    def check_gapless(self) -> None:
        """Chunks are numbered and lie end to end, and each completed segment declares exactly its chunks."""
        offset = 0
        for number, chunk in enumerate(self.audio):
            assert (chunk.sequence_number, chunk.offset_samples) == (number, offset)
            offset += chunk.samples
        for done in self.done:
            own = [chunk for chunk in self.audio if chunk.segment_index == done.segment_index]
            assert done.samples == sum(chunk.samples for chunk in own)
            if own:
                assert done.offset_samples == own[0].offset_samples


async def speak(
    engine: FakeEngine, text: str, audio: AudioSettings | None = None, *, seed: int = 7, speed: float = 1.0
) -> Received:
    """One text to its end."""
    async with session(engine, audio, seed=seed, speed=speed) as one:
        one.write(text)
        one.end()
        return await Received().read(one)


def now_s() -> float:
    return asyncio.get_running_loop().time()
