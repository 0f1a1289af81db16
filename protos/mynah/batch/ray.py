"""The stage of Ray Data that speaks a batch: its actors hold engines.

`speak` is the stage; `mynah batch --ray` plans, resumes and lists around it (ray_run.py). A line is spoken by whatever
actor is free, and its audio goes from there to the output, so only text and records travel between machines. An actor
that dies costs the lines that it was speaking: Ray gives them to another one, and the same seed makes the same bytes.

```python
lines = ray.data.from_items([{"line": '{"name": "intro", "text": "Hello there."}'}])
done = speak(lines, "s3://bucket/spoken", Engines(cpus=4, options=(("model", "nano"),)))
for row in done.iter_rows():
    print(row["name"], row["record"] or row["error"])
```
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import os
import socket
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from mynah.batch.output_dir import write_wav
from mynah.batch.run import RetryPolicy, Spoken, record_of, speak_with_retries
from mynah.batch.script import Item, ModelSettings, read_script
from mynah.batch.store import open_store
from mynah.batch.stream_speaker import StreamSpeaker
from mynah.client.errors import InvalidArgument, MynahError
from mynah.client.settings import TextSettings

_ENTRY_POINTS = "mynah.batch"  # whose `engine` is the class of an engine without a server


@dataclass(frozen=True)
class Engines:
    """The actors of a run.

    `count`: how many; None: as many as the cluster has room for when the run begins. `jobs`: lines that one speaks at
    once. `cpus` and `gpus`: of each, which may be fractions. `options`: of `mynah-serve` by their names, with their
    values as text; what is not named is taken from the actor's environment (`MYNAH_MODEL`, ...), then from defaults
    that do not depend on how fast a machine is, so that all actors make the same bytes.
    """

    count: int | None = None
    jobs: int = 16
    cpus: float = 1.0
    gpus: float = 0.0
    options: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Raises InvalidArgument."""
        for name, allowed, fits in (
            ("count", "at least 1", self.count is None or self.count >= 1),
            ("jobs", "at least 1", self.jobs >= 1),
            ("cpus", "above 0", 0 < self.cpus < math.inf),
            ("gpus", "at least 0", 0 <= self.gpus < math.inf),
        ):
            if not fits:
                value = str(getattr(self, name))
                message = f"{name} of the engines is {value}; it must be {allowed}."
                raise InvalidArgument(message, reason="ENGINES_INVALID", field=name, value=value, allowed=allowed)


@dataclass(frozen=True)
class HowToSpeak:
    """What holds for all lines of a run; a line may differ in its text settings, its speed and its model settings."""

    text_settings: TextSettings = field(default_factory=TextSettings)
    speed: float | None = None
    subtitles: str | None = None  # "srt", "vtt"
    word_guard: bool | None = None
    retry_s: float = 300.0
    model_settings: ModelSettings = field(default_factory=ModelSettings)


def speak(
    lines: Any,
    output: str,
    engines: Engines | None = None,
    how: HowToSpeak | None = None,
    *,
    blocks_at_once: int | None = None,
) -> Any:
    """Returns the dataset of what became of the lines, made as it is read.

    lines: a ray.data.Dataset; each row has `line`, a line of a script (see `mynah batch`) with a name
    output: a folder that all machines see, or a URL of fsspec such as s3://bucket/folder
    blocks_at_once: how many blocks of the dataset an actor is given at once; by default as many as keep it busy where a
        block has one line. What it is given, an actor that comes up late does not find (see ray_blocks.py)

    A row of the result has `name`; `record`, what `mynah batch` writes to its manifest, as JSON; `error`, as JSON too:
    reason, code and message; and `worker`, HOST:PID. One of `record` and `error` is empty. An error with the code STOP
    ends the run: no line can be spoken.
    """
    import ray.data

    engines, how = engines or Engines(), how or HowToSpeak()
    size = engines.count or room_for(engines)
    blocks = blocks_at_once or engines.jobs + 1
    compute = ray.data.ActorPoolStrategy(
        min_size=engines.count or 1,
        max_size=size,
        initial_size=size,
        max_tasks_in_flight_per_actor=blocks,
        max_concurrent_calls_per_actor=blocks,
    )
    return lines.map(
        LineSpeaker,
        fn_constructor_args=(output, engines, how),
        compute=compute,
        num_cpus=engines.cpus,
        num_gpus=engines.gpus or None,
    )


class LineSpeaker:
    """The actor of the stage: an engine that speaks several lines at once."""

    def __init__(self, output: str, engines: Engines, how: HowToSpeak) -> None:
        self._how, self._policy = how, RetryPolicy(how.retry_s)
        self._places, self._opening = asyncio.Semaphore(engines.jobs), asyncio.Lock()
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        self._speaker: StreamSpeaker | None = None
        self._failure: dict[str, str] | None = None
        try:
            self._store = open_store(output)
            self._engine = find_engine()(dict(engines.options), engines.jobs, threads=max(1, int(engines.cpus)))
        except (MynahError, OSError) as error:  # which each line says: Ray would make the actor again and again
            self._failure = _stop(error)

    async def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        (item,) = read_script([row["line"]], self._how.text_settings, self._how.speed, self._how.model_settings)
        done = {"name": item.name, "record": "", "error": "", "worker": self._worker}
        async with self._places:
            try:
                await self._open()
                if self._failure is not None or self._speaker is None:
                    return {**done, "error": json.dumps(self._failure)}
                spoken, attempts = await speak_with_retries(item, self._speaker, self._policy)
                size = await asyncio.to_thread(self._put, item, spoken)
            except MynahError as error:
                return {**done, "error": json.dumps(_described(error))}
            except OSError as error:
                return {**done, "error": json.dumps(_stop(error))}
        record = {"name": item.name, "file": f"{item.name}.wav", "digest": item.digest, "bytes": size}
        return {**done, "record": json.dumps(record | record_of(spoken, item, attempts))}

    async def _open(self) -> None:
        """Warm up the engine, once, on the loop on which it speaks."""
        async with self._opening:
            if self._speaker is None and self._failure is None:
                try:
                    await self._engine.open()
                    self._speaker = StreamSpeaker(self._engine.stream, self._how.subtitles, self._how.word_guard)
                except MynahError as error:
                    self._failure = _stop(error)

    def _put(self, item: Item, spoken: Spoken) -> int:
        """Store the item's files, the audio last: what has audio has all. Returns the audio file's size in bytes."""
        if self._how.subtitles:
            self._store.write(f"{item.name}.{self._how.subtitles}", spoken.subtitles.encode())
        file = io.BytesIO()
        write_wav(file, spoken.pcm, spoken.rate_hz)
        self._store.write(f"{item.name}.wav", file.getvalue())
        return len(file.getbuffer())


def find_engine() -> Any:
    """Returns the class of an engine without a server: `Engine(options, jobs, threads)` with `open()` and `stream()`.

    Raises InvalidArgument if the server's distribution is not installed on this machine.
    """
    found = list(entry_points(group=_ENTRY_POINTS, name="engine"))
    if not found:
        message = "The machines of the cluster need engines: pip install 'mynah-speech-server[cpu,ray]' on each."
        raise InvalidArgument(message, reason="ENGINE_MISSING", field="ray")
    try:
        return found[0].load()
    except ModuleNotFoundError as error:
        message = f"The package {error.name!r} is missing there: pip install 'mynah-speech-server[cpu,ray]'."
        raise InvalidArgument(message, reason="ENGINE_MISSING", field="ray") from error


def _described(error: MynahError) -> dict[str, str]:
    return {"reason": error.reason, "code": error.code, "message": str(error)}


def _stop(error: Exception) -> dict[str, str]:
    reason = error.reason if isinstance(error, MynahError) else "STORE_FAILED"
    return {"reason": reason, "code": "STOP", "message": str(error)}


def room_for(engines: Engines) -> int:
    """How many engines the cluster has room for now. Raises InvalidArgument if it has none."""
    import ray

    there = ray.cluster_resources()
    wanted = {"CPU": engines.cpus, "GPU": engines.gpus}
    room = min(int(there.get(kind, 0.0) / each) for kind, each in wanted.items() if each)
    if room < 1:
        needs = f"{engines.cpus:g} CPUs and {engines.gpus:g} GPUs"
        message = f"The cluster has no room for an engine of {needs}. Ask for less; if it will grow, name their number."
        raise InvalidArgument(message, reason="CLUSTER_TOO_SMALL", field="engines", value=needs)
    return room
