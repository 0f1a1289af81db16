"""The `mynah batch` command: its arguments, its connections, its progress bar and its last words."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mynah.cli.batch.output_dir import MANIFEST, Shelf
from mynah.cli.batch.run import Patience, Progress, Spoken, run_batch
from mynah.cli.batch.script import Item, read_script
from mynah.cli.meter import Meter
from mynah.client.client import Client
from mynah.client.errors import InvalidArgument, MynahError, ServerError
from mynah.client.stream import SpeechStream

FAILED = "failed.jsonl"
_BAR_CELLS = 24


async def batch(chosen: argparse.Namespace, connect: Callable[[list[str]], Client]) -> None:
    """Speak the script. `--server` may name several, with commas between. What is spoken already is left alone.

    Raises InvalidArgument for a bad script before anything is spoken, ServerError when lines could not be spoken.
    """
    if chosen.jobs < 1:
        raise InvalidArgument(f"--jobs {chosen.jobs}; allowed: at least 1", reason="JOBS_INVALID", field="jobs")
    items = read_script(chosen.script.read_text(encoding="utf-8").splitlines())
    began_s = time.monotonic()
    bar = Bar(began_s, live=sys.stderr.isatty() and not chosen.quiet)
    with Shelf(chosen.output) as shelf:
        async with connect(chosen.server.split(",")) as client:
            speaker, patience = ClientSpeaker(client), Patience(chosen.retry_s)
            done = await run_batch(items, shelf, speaker, jobs=chosen.jobs, patience=patience, on_progress=bar.show)
    bar.end()
    _keep_failures(chosen.output / FAILED, done)
    if not chosen.quiet:
        print(f"mynah: {summary(done, time.monotonic() - began_s)}; {chosen.output / MANIFEST}", file=sys.stderr)
    if done.failed:
        message = f"{len(done.failed)} of {done.total} lines could not be spoken, see {chosen.output / FAILED}"
        raise ServerError(f"{message}; the same command tries them again", reason="BATCH_INCOMPLETE")


class ClientSpeaker:
    """Fulfils `run.Speaker` over the client, which knows which of its servers has room."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def speak(self, item: Item) -> Spoken:
        stream = self._client.stream(
            voice=item.voice, audio_format="pcm_s16le", sample_rate_hz=item.sample_rate_hz, sampling=item.sampling
        )
        async with stream:
            rate_hz = stream.opened.settings.sample_rate_hz
            assert rate_hz is not None
            meter, pcm = Meter(rate_hz), bytearray()
            meter.start(time.monotonic())
            try:
                async with asyncio.TaskGroup() as tasks:
                    sending = tasks.create_task(_send(stream, item.text))
                    async for chunk in stream:
                        meter.hear(chunk, time.monotonic())
                        pcm += chunk.data
                    sending.cancel()
            except BaseExceptionGroup as group:  # both sides tell of the same end
                raise group.exceptions[0] from None
        if meter.ttfa_s is None or meter.rtf is None:
            raise InvalidArgument("there is nothing to speak in the text", reason="TEXT_EMPTY", field="text")
        return Spoken(bytes(pcm), rate_hz, meter.ttfa_s, meter.rtf * meter.audio_s)


async def _send(stream: SpeechStream, text: str) -> None:
    most = stream.max_piece_chars
    for start in range(0, len(text), most):
        piece = text[start : start + most]
        await stream.room(len(piece))
        await stream.send(piece)
    await stream.end()


class Bar:
    """One line on standard error that is written over; nothing where it cannot be."""

    def __init__(self, began_s: float, *, live: bool) -> None:
        self._began_s, self._live = began_s, live

    def show(self, progress: Progress) -> None:
        if self._live:
            print(f"\r{bar(progress, time.monotonic() - self._began_s)}\x1b[K", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._live:
            print(file=sys.stderr)


def bar(progress: Progress, wall_s: float) -> str:
    """For people: how much is done, how fast, how long it will take."""
    cells = _BAR_CELLS * progress.finished // max(1, progress.total)
    line = f"[{'#' * cells}{' ' * (_BAR_CELLS - cells)}] {progress.finished}/{progress.total}"
    if progress.failed:
        line += f", {len(progress.failed)} failed"
    if progress.spoken:
        left_s = wall_s / progress.spoken * (progress.total - progress.finished)
        line += f", {progress.audio_s / wall_s:.1f} s of audio per second, {left_s:.0f} s left"
    return line


def summary(progress: Progress, wall_s: float) -> str:
    parts = [f"{progress.spoken} lines spoken, {progress.audio_s:.1f} s of audio in {wall_s:.1f} s"]
    parts += [f"{progress.already} were there"] if progress.already else []
    parts += [f"{progress.retries} tried again"] if progress.retries else []
    return ", ".join(parts)


def _keep_failures(path: Path, done: Progress) -> None:
    """What was given up and why; no file when nothing was."""
    path.unlink(missing_ok=True)
    if done.failed:
        path.write_text("".join(_failure(name, error) + "\n" for name, error in done.failed.items()), encoding="utf-8")


def _failure(name: str, error: MynahError) -> str:
    return json.dumps({"name": name, "reason": error.reason, "message": str(error)})
