"""Speaking on a real engine, for the tests of words."""

from __future__ import annotations

import engines
from engines.api import Segment
from engines.config import Sampling


async def spoken_events(engine: engines.Engine, segments: list[Segment], *, repeatable: bool = True) -> list[object]:
    """The events of segments on one stream, each prepared while the one before is spoken."""
    voice = engine.default_voice
    assert voice is not None
    stream = await engine.open(voice, Sampling(seed=5, repeatable=repeatable))
    events: list[object] = []
    for segment, upcoming in zip(segments, [*segments[1:], None], strict=True):
        async for event in stream.speak(segment):
            if upcoming is not None:
                stream.prepare(upcoming)
            events.append(event)
    await stream.close()
    return events
