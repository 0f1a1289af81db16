"""`python -m bench.gpu --out DIR --budget 520`: every step in a process of its own with a time limit.

The processes are forked from one that has loaded torch and has not touched the GPU, so that loading is paid for once.
An error that ends a process, or one that every later CUDA call returns, ends one step. Exit status: 0, 1 if a check
failed, 2 for wrong arguments, 128 and the signal's number if it was interrupted; the step's process then ends too. It
needs torch and the source tree, no network, and nothing else of the GPU's libraries.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import FrameType

from bench.gpu.results import FAILED, FILE, Recorder, Result, read, table

try:
    from bench.gpu import steps
    from engines.tools.arguments import above_0
except ModuleNotFoundError as missing:
    needed = "torch, safetensors and tokenizers"
    sys.exit(f"The check needs {needed}, and {missing.name} is not installed. Install it and run the check again.")

# step -> its share of the budget
STEPS = {
    "facts": 0.05, "driver": 0.06, "weights": 0.1, "s3gen": 0.2, "t3": 0.12, "vllm": 0.35, "tensorrt": 0.2,
    "speed": 0.15, "together": 0.08, "engine": 0.16, "traces": 0.06,
}  # fmt: skip
_LEAST_S = 20.0
_TABLE = "gpu.txt"
_SAID_WHY = 3  # exit status of a step that has recorded its error
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FORK = multiprocessing.get_context("fork")


class _Interrupted(BaseException):
    """A signal that ends the check."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps and print the table. Returns the exit status."""
    parser = _parser()
    args = parser.parse_args(arguments)
    try:
        _clear(args.out)
    except OSError as error:
        parser.error(f"argument --out: {_unwritable(args.out, error)}")
    status = 0
    with _ended_by_signals():
        try:
            _run_steps(args)
        except _Interrupted as interrupted:
            status = interrupted.status
            print(f"The check was interrupted by {interrupted}; the steps behind it did not run.", file=sys.stderr)
        except OSError as error:
            status = 1
            print(_unwritable(args.out, error), file=sys.stderr)
    failed = _report(args.out)
    return status or failed


def _run_steps(args: argparse.Namespace) -> None:
    ends_s = time.monotonic() + args.budget
    for step in args.only or STEPS:
        left_s = ends_s - time.monotonic()
        if left_s < _LEAST_S:
            Recorder(args.out, step).check("time", False, "the budget is spent")
            continue
        _run_step(step, args, min(left_s, max(_LEAST_S, STEPS[step] * args.budget * args.patience)))


def _report(folder: Path) -> int:
    """Print and write the table of the results so far. Returns 1 if one failed."""
    results = list(read(folder))
    text = table(results)
    print(text)
    failed = [result for result in results if result.status == FAILED]
    print(f"{len(results)} results, {len(failed)} failed -> {folder / FILE}")
    try:
        (folder / _TABLE).write_text(text + "\n")
    except OSError as error:
        print(_unwritable(folder, error), file=sys.stderr)
        return 1
    return 1 if failed else 0


def _clear(folder: Path) -> None:
    """Make the folder and remove what an earlier check left there, but for its cache. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / FILE).exists():  # else the folder's files are somebody else's
        for path in (folder / _TABLE, *(folder / f"{step}.log" for step in STEPS), *folder.glob("trace-*.json*")):
            path.unlink(missing_ok=True)
    (folder / FILE).write_text("")


def _unwritable(folder: Path, error: OSError) -> str:
    return (
        f"The folder {folder} cannot be written: {error.strerror or error}. Name one that can be made and written, "
        "with room for the results and for the engines that are built."
    )


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Within it, signals that would end this process raise _Interrupted, so that no step is left behind on the GPU."""

    def interrupt(number: int, _: FrameType | None) -> None:
        raise _Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _held_back_signals() -> Iterator[None]:
    """Within it signals wait: a process that was forked is known before one can end the check."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _run_step(step: str, args: argparse.Namespace, limit_s: float) -> None:
    recorder, began_s = Recorder(args.out, step), time.monotonic()
    process = _FORK.Process(target=_step, args=(step, args.device, args.model, args.out), name=step)
    try:
        with _held_back_signals():
            process.start()
        process.join(limit_s)
        late = process.is_alive()
    finally:
        _end(process)  # and what it started, if it did not end it
    if late:
        recorder.check("time", False, f"it took longer than {limit_s:.0f} s")
        return
    if process.exitcode and process.exitcode != _SAID_WHY:
        recorder.check("process", False, f"it ended with {process.exitcode}; see {step}.log")
    status = FAILED if process.exitcode else "done"
    _print(Result(step, "seconds", status, time.monotonic() - began_s, "s"))


def _step(step: str, device: str, model: str, folder: Path) -> None:
    """A step's process: the leader of a group, with its output in a file."""
    os.setsid()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    log = (folder / f"{step}.log").open("w", buffering=1)  # until the process ends
    for stream in (1, 2):  # of libraries, which do not know Python's
        os.dup2(log.fileno(), stream)
    sys.stdout = sys.stderr = log
    recorder = Recorder(folder, step)
    try:
        steps.run(step, recorder, device, model, folder)
    except Exception as error:
        traceback.print_exc()
        recorder.check("process", False, f"{type(error).__name__}: {error}"[:400] + f"; see {step}.log")
        sys.exit(_SAID_WHY)


def _end(process: ForkProcess) -> None:
    """Kill the process and all that it started."""
    if process.ident is None:  # it was not started
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.ident, signal.SIGKILL)
    process.kill()
    process.join()


def _print(result: Result) -> None:
    print(table([result]), file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="Check the engine on this machine's GPU.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--budget", type=above_0, default=520, help="seconds for everything (default 520)")
    parser.add_argument("--patience", type=above_0, default=1.0, help="factor on every step's share (default 1)")
    parser.add_argument(
        "--device", type=_device, default="cuda", help="cuda, cuda:N, or cpu for a rehearsal (default cuda)"
    )
    parser.add_argument("--model", default="random:turbo", help="checkpoint (default random:turbo)")
    parser.add_argument("--only", nargs="+", choices=list(STEPS), help="steps (default: all)")
    return parser


def _device(text: str) -> str:
    if re.fullmatch(r"cpu|cuda(:\d+)?", text) is None:
        raise argparse.ArgumentTypeError(f"the device is {text!r}; it must be cuda, cuda:N or cpu")
    return text


if __name__ == "__main__":
    sys.exit(main())
