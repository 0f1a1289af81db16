"""The run of a batch: its items are spoken by a bounded number of workers, with retries."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from mynah.batch.output_dir import OutputDir
from mynah.batch.script import Item
from mynah.client.errors import MynahError

FAILED = "failed.jsonl"  # beside the manifest
_MIN_DELAY_S, _MAX_DELAY_S = 0.2, 15.0

# of the contract's fields, where a line has other names
_LINES_FIELDS = {
    "settings.language_code": "settings.language",
    "sampling.max_speech_token_count": "settings.max_speech_tokens",
}


@dataclass(frozen=True)
class Spoken:
    """The audio of one item, PCM s16le, and its timing."""

    pcm: bytes
    rate_hz: int
    ttfa_s: float
    wall_s: float
    subtitles: str = ""  # in the format that was asked for

    @property
    def audio_s(self) -> float:
        return len(self.pcm) / 2 / self.rate_hz


class Speaker(Protocol):
    """The interface to one server or several."""

    async def speak(self, item: Item) -> Spoken:
        """Returns all audio of the item. Raises MynahError."""
        ...


@dataclass
class Progress:
    """The progress of a batch. `failed` has the last error of each item that was given up."""

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
class RetryPolicy:
    """Transient errors of an item are retried for `retry_s`, counted from its first error."""

    retry_s: float = 300.0


async def run_batch(
    items: Sequence[Item],
    output_dir: OutputDir,
    speaker: Speaker,
    *,
    jobs: int,
    retry_policy: RetryPolicy | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Speak the items that are missing in the output folder. Items that fail are in `failed` of the result.

    If it is cancelled or the folder cannot be written (OSError), the finished items stay in the folder.
    """
    missing = output_dir.missing(items)
    progress = Progress(len(items), len(items) - len(missing))
    # The longest first: items of a like length share calls with little padding, and no long one is left for the end.
    waiting = iter(sorted(missing, key=lambda item: -len(item.text)))

    async def work() -> None:
        for item in waiting:  # shared by all workers
            await _speak_one(item, output_dir, speaker, progress, retry_policy or RetryPolicy())
            on_progress(progress)

    on_progress(progress)
    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(jobs, len(missing))):
                tasks.create_task(work())
    except BaseExceptionGroup as group:  # a full disk, for example; all workers meet it
        raise group.exceptions[0] from None
    return progress


async def _speak_one(
    item: Item, output_dir: OutputDir, speaker: Speaker, progress: Progress, retry_policy: RetryPolicy
) -> None:
    def retrying() -> None:
        progress.retries += 1

    try:
        spoken, attempts = await speak_with_retries(item, speaker, retry_policy, retrying)
    except MynahError as error:
        progress.failed[item.name] = error
        return
    if spoken.subtitles:
        output_dir.put_subtitles(item, spoken.subtitles)
    output_dir.put(item, spoken.pcm, spoken.rate_hz, record_of(spoken, item, attempts))
    progress.spoken += 1
    progress.audio_s += spoken.audio_s


async def speak_with_retries(
    item: Item, speaker: Speaker, retry_policy: RetryPolicy, on_retry: Callable[[], None] = lambda: None
) -> tuple[Spoken, int]:
    """Returns the item's speech and the attempts that it took. Raises the last MynahError if it is given up."""
    clock = asyncio.get_running_loop().time
    deadline_s: float | None = None
    for attempt in itertools.count(1):
        try:
            return await speaker.speak(item), attempt
        except MynahError as error:
            deadline_s = deadline_s or clock() + retry_policy.retry_s
            if not is_transient(error) or clock() >= deadline_s:
                raise
            on_retry()
            await asyncio.sleep(_delay_s(attempt, error))
    raise AssertionError


def _delay_s(attempt: int, error: MynahError) -> float:
    """Exponential backoff with jitter; at least the delay that the server asks for."""
    doubled_s = min(_MAX_DELAY_S, _MIN_DELAY_S * 2.0 ** min(attempt - 1, 30))
    return max(doubled_s, error.retry_after_s or 0.0) * random.uniform(0.8, 1.2)


def is_transient(error: MynahError) -> bool:
    """Whether speaking the whole item again may succeed. This includes streams that broke, because their audio was
    dropped."""
    return error.retryable or error.code in ("UNAVAILABLE", "INTERNAL", "UNKNOWN", "CANCELLED", "DEADLINE_EXCEEDED")


def record_of(spoken: Spoken, item: Item, attempts: int) -> dict[str, Any]:
    """What the manifest says about an item, beside its name, file, digest and size."""
    return {
        "audio_s": round(spoken.audio_s, 6),
        "rate_hz": spoken.rate_hz,
        "seed": item.sampling.seed,
        "voice": item.voice,
        "ttfa_s": round(spoken.ttfa_s, 4),
        "wall_s": round(spoken.wall_s, 4),
        "tries": attempts,
        "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


def _of_line(error: MynahError) -> str:
    """The message with the name that a line's settings have in place of the contract's field."""
    name = _LINES_FIELDS.get(error.field, error.field.replace("sampling.", "settings."))
    return str(error).replace(error.field, name, 1) if error.field else str(error)


def failures_as_lines(progress: Progress) -> str:
    """What FAILED holds: the items that were given up, and their errors."""
    failures = ({"name": n, "reason": error.reason, "message": _of_line(error)} for n, error in progress.failed.items())
    return "".join(json.dumps(failure) + "\n" for failure in failures)
