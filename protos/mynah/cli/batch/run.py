"""Speaks a script's items: so many at a time, again where that may help, until all is said.

Knows whoever speaks by `Speaker` and the folder by its Shelf; the clock is the event loop's.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from mynah.cli.batch.output_dir import Shelf
from mynah.cli.batch.script import Item
from mynah.client.errors import MynahError

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 15.0


@dataclass(frozen=True)
class Spoken:
    """One item's audio, PCM s16le, and how it came."""

    pcm: bytes
    rate_hz: int
    ttfa_s: float
    wall_s: float

    @property
    def audio_s(self) -> float:
        return len(self.pcm) / 2 / self.rate_hz


class Speaker(Protocol):
    """Whoever speaks: a server, or several as one."""

    async def speak(self, item: Item) -> Spoken:
        """All of the item's audio. Raises MynahError."""
        ...


@dataclass
class Progress:
    """How far a batch is. `failed` holds the last error of each item that was given up."""

    total: int
    already: int  # spoken by an earlier run
    spoken: int = 0
    retries: int = 0
    audio_s: float = 0.0
    failed: dict[str, MynahError] = field(default_factory=dict)

    @property
    def finished(self) -> int:
        return self.already + self.spoken + len(self.failed)


@dataclass(frozen=True)
class Patience:
    """How long an item is tried again, counted from its first failure of a kind that may pass."""

    retry_s: float = 300.0


async def run_batch(
    items: Sequence[Item],
    shelf: Shelf,
    speaker: Speaker,
    *,
    jobs: int,
    patience: Patience | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Speak what the shelf lacks. An item that cannot be spoken is in `failed`; the others go on.

    Cancelled, it leaves on the shelf what was whole.
    """
    missing = shelf.missing(items)
    progress = Progress(len(items), len(items) - len(missing))
    waiting = iter(missing)

    async def work() -> None:
        for item in waiting:  # shared by all workers
            await _speak_one(item, shelf, speaker, progress, patience or Patience())
            on_progress(progress)

    on_progress(progress)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(min(jobs, len(missing))):
            tasks.create_task(work())
    return progress


async def _speak_one(item: Item, shelf: Shelf, speaker: Speaker, progress: Progress, patience: Patience) -> None:
    clock = asyncio.get_running_loop().time
    give_up_s: float | None = None
    for tries in itertools.count(1):
        try:
            spoken = await speaker.speak(item)
        except MynahError as error:
            give_up_s = give_up_s or clock() + patience.retry_s
            if not _may_pass(error) or clock() >= give_up_s:
                progress.failed[item.name] = error
                return
            progress.retries += 1
            await asyncio.sleep(_pause_s(tries, error))
            continue
        shelf.put(item, spoken.pcm, spoken.rate_hz, _about(spoken, item, tries))
        progress.spoken += 1
        progress.audio_s += spoken.audio_s
        return


def _pause_s(tries: int, error: MynahError) -> float:
    """Longer each time, at least what the server asks for, and never the same for all who wait."""
    doubled_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(tries - 1, 30))
    return max(doubled_s, error.retry_after_s or 0.0) * random.uniform(0.8, 1.2)


def _may_pass(error: MynahError) -> bool:
    """Whether a new try, of the whole item, may go better. A stream that broke off is one: nobody heard it."""
    return error.retryable or error.code in ("UNAVAILABLE", "INTERNAL", "UNKNOWN", "CANCELLED", "DEADLINE_EXCEEDED")


def _about(spoken: Spoken, item: Item, tries: int) -> dict[str, Any]:
    return {
        "audio_s": round(spoken.audio_s, 6),
        "rate_hz": spoken.rate_hz,
        "seed": item.sampling.seed,
        "voice": item.voice,
        "ttfa_s": round(spoken.ttfa_s, 4),
        "wall_s": round(spoken.wall_s, 4),
        "tries": tries,
        "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
