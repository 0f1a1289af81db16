"""The run of `mynah batch --ray`: it plans what is missing, reads the stage's rows, and lists what is complete."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mynah.batch.journal import Journal
from mynah.batch.ray import Engines, HowToSpeak, room_for, speak
from mynah.batch.ray_blocks import blocks_of
from mynah.batch.run import FAILED, Progress, failures_as_lines
from mynah.batch.script import Item
from mynah.batch.store import Store, open_store
from mynah.client.errors import InvalidArgument, ServerError, Unavailable, of_code

LOCAL = "local"  # as an address: a cluster of this machine, for this run
_STARTS = 4  # of a local cluster, which Ray gives up after half a minute on a busy machine
_OBJECT_STORE_BYTES = 200_000_000  # of a local cluster: text and records are small


def run_on_ray(
    items: Sequence[Item],
    output: str,
    engines: Engines,
    how: HowToSpeak,
    on_progress: Callable[[Progress, dict[str, str]], None] = lambda progress, row: None,
) -> Progress:
    """Speak the items that are missing in the output, on the cluster to which this process is connected.

    `on_progress` gets each row of the stage. However the run ends, what is complete is listed, and the next one goes
    on with the rest. Blocks. Raises AlreadyExists, WrongState, ServerError if the run cannot go on, OSError.
    """
    output = output if "://" in output else str(Path(output).absolute())  # actors may work elsewhere
    store = open_store(output)
    with store.lock():
        journal = Journal(store)
        missing = journal.missing(items, how.subtitles)
        progress = Progress(len(items), len(items) - len(missing))
        if missing:
            journal.plan(missing)
            try:
                for row in _rows(missing, output, engines, how):
                    _take(row, progress, journal)
                    on_progress(progress, row)
            finally:
                journal.flush()
        journal.close()
        _write_failures(store, progress)
    return progress


def _rows(items: Sequence[Item], output: str, engines: Engines, how: HowToSpeak) -> Iterator[dict[str, str]]:
    import ray.data
    from ray.exceptions import RayError

    longest_first = sorted(items, key=lambda item: -len(item.text))  # so that no long one is left for the end
    blocks = blocks_of(len(items), engines.count or room_for(engines), engines.jobs)
    lines = ray.data.from_items([{"line": item.line} for item in longest_first], override_num_blocks=blocks.count)
    try:
        done = speak(lines, output, engines, how, blocks_at_once=blocks.at_once)
        # nothing is fetched ahead: a block would be read when the one behind it is done, and polled for meanwhile
        for block in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from block.to_pylist()
    except RayError as error:
        message = f"Ray ended the run: {str(error).strip().splitlines()[-1]} Run the same command again to go on."
        raise ServerError(message, reason="RAY_FAILED") from error


def _take(row: dict[str, str], progress: Progress, journal: Journal) -> None:
    """Raises ServerError if the run cannot go on."""
    if row["error"]:
        error = json.loads(row["error"])
        if error["code"] == "STOP":
            message = f"{row['worker']}: {error['message']} Run the same command again to go on."
            raise ServerError(message, reason=error["reason"])
        progress.failed[row["name"]] = of_code(error["code"], error["message"], reason=error["reason"])
        return
    record = json.loads(row["record"])
    journal.note(record)
    progress.spoken += 1
    progress.retries += record["tries"] - 1
    progress.audio_s += record["audio_s"]


@contextmanager
def connected(address: str, cpus: int | None = None) -> Iterator[None]:
    """Inside, this process drives a Ray cluster: "local", "auto", HOST:PORT or ray://HOST:PORT.

    `cpus`: of a local cluster; by default the machine's.
    Raises InvalidArgument if Ray is not installed, Unavailable if no cluster answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a local cluster would report itself to Ray's authors
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        message = f"The package {error.name!r} is missing here: pip install 'mynah-speech[ray]'."
        raise InvalidArgument(message, reason="RAY_MISSING", field="ray") from error
    _start(address, cpus)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _start(address: str, cpus: int | None) -> None:
    import ray

    own = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES, "num_cpus": cpus}
    for starts_left in reversed(range(_STARTS)):
        try:
            ray.init(address, logging_level="error", log_to_driver=False, **(own if address == LOCAL else {}))
            return
        except Exception as error:  # Ray raises all kinds, also Exception itself
            ray.shutdown()
            if address != LOCAL or not starts_left:
                message = f"No Ray cluster answers at {address}: {error}"
                raise Unavailable(message, reason="RAY_UNAVAILABLE", retry_after_s=1.0) from error


def disconnect() -> None:
    """Leave the cluster: a run on another thread ends with an error. Does nothing if there is none."""
    import ray

    ray.shutdown()


def _write_failures(store: Store, progress: Progress) -> None:
    store.delete(FAILED)
    if progress.failed:
        store.write(FAILED, failures_as_lines(progress).encode())
