"""The `mynah batch` command: its connection, its progress bar and its summary."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mynah.cli.batch.output_dir import MANIFEST, OutputDir
from mynah.cli.batch.run import Progress, RetryPolicy, Spoken, run_batch
from mynah.cli.batch.script import Item, ModelSettings, lines_of, read_script
from mynah.cli.text_settings import text_settings
from mynah.client.client import Client
from mynah.client.errors import InvalidArgument, MynahError, ServerError
from mynah.client.events import AudioChunk
from mynah.client.stream import SpeechStream
from mynah.client.stream_stats import StreamStats
from mynah.client.subtitles import Subtitles

FAILED = "failed.jsonl"
_BAR_CELLS = 24


async def batch(args: argparse.Namespace, connect: Callable[[list[str]], Client]) -> None:
    """Speak the script into the output folder, except the lines that were already spoken.

    Raises InvalidArgument for a bad script before anything is spoken, ServerError if lines could not be spoken.
    """
    if args.jobs < 1:
        raise InvalidArgument(f"--jobs is {args.jobs}; it must be at least 1.", reason="JOBS_INVALID", field="jobs")
    lines = lines_of(args.script.read_bytes(), str(args.script))
    of_model = ModelSettings(args.language, args.cfg_weight, args.exaggeration)
    items = read_script(lines, text_settings(args), args.speed, of_model)
    started_s = time.monotonic()
    bar = ProgressBar(started_s, live=sys.stderr.isatty() and not args.quiet)
    with OutputDir(args.output, args.subtitles) as output_dir:
        async with connect(args.server.split(",")) as client:
            speaker, policy = ClientSpeaker(client, args.subtitles, args.word_guard), RetryPolicy(args.retry_s)
            progress = await run_batch(
                items, output_dir, speaker, jobs=args.jobs, retry_policy=policy, on_progress=bar.show
            )
    bar.end()
    _write_failures(args.output / FAILED, progress)
    if not args.quiet:
        line = summary(progress, time.monotonic() - started_s)
        print(f"mynah: {line}; {args.output / MANIFEST}", file=sys.stderr)
    if progress.failed:
        message = f"{len(progress.failed)} of {progress.total} lines could not be spoken; see {args.output / FAILED}."
        raise ServerError(f"{message} Run the same command again to retry them.", reason="BATCH_INCOMPLETE")


class ClientSpeaker:
    """A Speaker over the client, which balances the load between its servers."""

    def __init__(self, client: Client, subtitle_format: str | None = None, word_guard: bool | None = None) -> None:
        self._client, self._subtitle_format, self._word_guard = client, subtitle_format, word_guard

    async def speak(self, item: Item) -> Spoken:
        stream = self._client.stream(
            voice=item.voice,
            audio_format="pcm_s16le",
            sample_rate_hz=item.sample_rate_hz,
            sampling=item.sampling,
            text_settings=item.text_settings,
            speed=item.speed,
            schedule="offline",
            word_times=True if self._subtitle_format else None,
            word_guard=self._word_guard,
            language=item.model_settings.language,
            cfg_weight=item.model_settings.cfg_weight,
            exaggeration=item.model_settings.exaggeration,
        )
        async with stream:
            rate_hz = stream.opened.settings.sample_rate_hz
            assert rate_hz is not None
            stats, pcm, subtitles = StreamStats(rate_hz), bytearray(), Subtitles(rate_hz)
            stats.text_sent(time.monotonic())
            try:
                async with asyncio.TaskGroup() as tasks:
                    sending = tasks.create_task(_send(stream, item.text))
                    async for event in stream.events():
                        subtitles.add(event)
                        if isinstance(event, AudioChunk):
                            stats.chunk_received(event, time.monotonic())
                            pcm += event.data
                    sending.cancel()
            except BaseExceptionGroup as group:  # both sides raise the same error
                raise group.exceptions[0] from None
        if stats.ttfa_s is None or stats.rtf is None:
            message = "The text contains nothing to speak; send some words."
            raise InvalidArgument(message, reason="TEXT_EMPTY", field="text")
        text = subtitles.in_format(self._subtitle_format) if self._subtitle_format else ""
        return Spoken(bytes(pcm), rate_hz, stats.ttfa_s, stats.rtf * stats.audio_s, text)


async def _send(stream: SpeechStream, text: str) -> None:
    await stream.send_long(text)
    await stream.end()


class ProgressBar:
    """One line on standard error that is overwritten; silent if standard error is not a terminal."""

    def __init__(self, started_s: float, *, live: bool) -> None:
        self._started_s, self._live = started_s, live

    def show(self, progress: Progress) -> None:
        if self._live:
            print(f"\r{bar(progress, time.monotonic() - self._started_s)}\x1b[K", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._live:
            print(file=sys.stderr)


def bar(progress: Progress, wall_s: float) -> str:
    """Returns the progress bar with the speed and the time left."""
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
    parts += [f"{progress.already} were already spoken"] if progress.already else []
    parts += [f"{progress.retries} retries"] if progress.retries else []
    return ", ".join(parts)


def _write_failures(path: Path, progress: Progress) -> None:
    """Write the lines that failed and their errors, or remove the file if none failed."""
    path.unlink(missing_ok=True)
    if progress.failed:
        lines = [_failure(name, error) + "\n" for name, error in progress.failed.items()]
        path.write_text("".join(lines), encoding="utf-8")


def _failure(name: str, error: MynahError) -> str:
    return json.dumps({"name": name, "reason": error.reason, "message": str(error)})
