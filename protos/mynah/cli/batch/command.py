"""The `mynah batch` command: its connection, its progress bar and its summary."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mynah.batch.output_dir import MANIFEST, OutputDir
from mynah.batch.run import FAILED, Progress, RetryPolicy, failures_as_lines, run_batch
from mynah.batch.script import Item, ModelSettings, read_script
from mynah.batch.store import read_bytes
from mynah.batch.stream_speaker import StreamSpeaker
from mynah.cli.text_input import lines_of
from mynah.cli.text_settings import text_settings
from mynah.client.client import Client
from mynah.client.errors import InvalidArgument, ServerError
from mynah.client.settings import TextSettings

_JOBS, _JOBS_OF_ENGINE = 4, 16
_BAR_CELLS = 24


async def batch(args: argparse.Namespace, connect: Callable[[list[str]], Client]) -> None:
    """Speak the script into the output folder, except the lines that were already spoken.

    Raises InvalidArgument for a bad script before anything is spoken, ServerError if lines could not be spoken.
    """
    if args.jobs is not None and args.jobs < 1:
        raise InvalidArgument(f"--jobs is {args.jobs}; it must be at least 1.", reason="JOBS_INVALID", field="jobs")
    settings = text_settings(args)
    lines = lines_of(await asyncio.to_thread(read_bytes, args.script), args.script)
    items = read_script(lines, settings, args.speed, _of_model(args))
    started_s = time.monotonic()
    bar = ProgressBar(started_s, live=sys.stderr.isatty() and not args.quiet)
    if args.ray is None:
        progress = await _on_servers(args, connect, items, bar)
    else:
        progress = await _on_ray(args, items, settings, bar)
    bar.end()
    where = args.output.rstrip("/")
    if not args.quiet:
        line = summary(progress, time.monotonic() - started_s)
        print(f"mynah: {line}; {where}/{MANIFEST}", file=sys.stderr)
    if progress.failed:
        message = f"{len(progress.failed)} of {progress.total} lines could not be spoken; see {where}/{FAILED}."
        raise ServerError(f"{message} Run the same command again to retry them.", reason="BATCH_INCOMPLETE")


async def _on_servers(
    args: argparse.Namespace, connect: Callable[[list[str]], Client], items: list[Item], bar: ProgressBar
) -> Progress:
    folder = Path(args.output)
    with OutputDir(folder, args.subtitles) as output_dir:
        async with connect(args.server.split(",")) as client:
            speaker, policy = StreamSpeaker(client.stream, args.subtitles, args.word_guard), RetryPolicy(args.retry_s)
            progress = await run_batch(
                items, output_dir, speaker, jobs=args.jobs or _JOBS, retry_policy=policy, on_progress=bar.show
            )
    _write_failures(folder / FAILED, progress)
    return progress


async def _on_ray(args: argparse.Namespace, items: list[Item], settings: TextSettings, bar: ProgressBar) -> Progress:
    """Ray blocks, so it runs on a thread. A signal that comes meanwhile closes the connection, which ends it."""
    from mynah.batch import ray_run
    from mynah.batch.ray import Engines, HowToSpeak

    engines = Engines(
        args.workers, args.jobs or _JOBS_OF_ENGINE, args.worker_cpus, args.worker_gpus, _options(args.engine)
    )
    how = HowToSpeak(settings, args.speed, args.subtitles, args.word_guard, args.retry_s, _of_model(args))

    def run() -> Progress:
        with ray_run.connected(args.ray):
            return ray_run.run_on_ray(items, args.output, engines, how, lambda progress, _: bar.show(progress))

    running = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        ray_run.disconnect()
        await asyncio.wait([running])
        raise


def _of_model(args: argparse.Namespace) -> ModelSettings:
    return ModelSettings(args.language, args.cfg_weight, args.exaggeration, args.continuity, args.model)


def _options(given: list[str]) -> tuple[tuple[str, str], ...]:
    """The engines' options by their names. Raises InvalidArgument."""
    pairs = []
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            message = f"--engine is {each!r}; it must be NAME=VALUE, such as model=nano."
            raise InvalidArgument(message, reason="OPTION_INVALID", field="engine", value=each, allowed="NAME=VALUE")
        pairs.append((name.replace("-", "_"), value))
    return tuple(pairs)


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
        path.write_text(failures_as_lines(progress), encoding="utf-8")
