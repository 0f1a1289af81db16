"""One load: starts every stream on time, whatever the server does, and returns the outcome of each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from service.load.arrivals import Arrival
from service.load.player import Player
from service.load.surfaces import Refusal, Surface

MAX_OPEN = 1000  # open streams; more would measure this process


@dataclass(frozen=True)
class Outcome:
    """The outcome of one stream. Times count from its due time, so that a delay of this process is included."""

    late_s: float = 0.0  # delay of its start in this process
    ttfa_s: float | None = None
    onset_s: float | None = None
    audio_s: float = 0.0
    wall_s: float = 0.0  # to the last chunk
    underruns: int = 0
    underrun_s: float = 0.0
    error: str = ""  # the reason; empty without an error


async def run_load(surface: Surface, arrivals: Sequence[Arrival], *, stream_timeout_s: float = 120.0) -> list[Outcome]:
    """Speaks every arrival on a stream of its own; returns when all have ended."""
    clock = asyncio.get_running_loop().time
    began_s = clock()
    slots = asyncio.Semaphore(MAX_OPEN)
    tasks = []
    for arrival in arrivals:
        await asyncio.sleep(max(0.0, began_s + arrival.at_s - clock()))
        tasks.append(asyncio.create_task(_speak(surface, arrival, began_s + arrival.at_s, slots, stream_timeout_s)))
    return list(await asyncio.gather(*tasks))


async def _speak(
    surface: Surface, arrival: Arrival, due_s: float, slots: asyncio.Semaphore, timeout_s: float
) -> Outcome:
    clock = asyncio.get_running_loop().time
    if slots.locked():
        return Outcome(error="GENERATOR_FULL")
    player, late_s, error = Player(), clock() - due_s, ""
    async with slots:
        try:
            async with asyncio.timeout(timeout_s):
                async for data in surface.speak(arrival.text):
                    player.add(clock(), data)
        except Refusal as refusal:
            error = str(refusal)
        except TimeoutError:
            error = "UNANSWERED"
    if not error and not player.samples:
        error = "NO_AUDIO"
    return Outcome(
        late_s=late_s,
        ttfa_s=_since(due_s, player.first_chunk_s),
        onset_s=_since(due_s, player.onset_s),
        audio_s=player.audio_s,
        wall_s=_since(due_s, player.last_chunk_s) or 0.0,
        underruns=player.underruns,
        underrun_s=player.underrun_s,
        error=error,
    )


def _since(due_s: float, at_s: float | None) -> float | None:
    return None if at_s is None else at_s - due_s
