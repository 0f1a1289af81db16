"""`python -m bench.gpu --out DIR --budget 520`: every step in a process of its own with a time limit.

The processes are forked from one that has loaded torch and has not touched the GPU, so that loading is paid for once.
An error that ends a process, or one that every later CUDA call returns, ends one step. Exit status: 0, 1 if a check
failed, 2 for wrong arguments. It needs torch and the source tree, no network, and nothing else of the GPU's libraries.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.context import ForkProcess
from pathlib import Path

from bench.gpu import steps
from bench.gpu.results import FAILED, FILE, Recorder, Result, read, table

# step -> its share of the budget
STEPS = {
    "facts": 0.05, "driver": 0.06, "weights": 0.1, "s3gen": 0.2, "t3": 0.12, "vllm": 0.35, "tensorrt": 0.2,
    "speed": 0.15, "together": 0.08, "engine": 0.16, "traces": 0.06,
}  # fmt: skip
_LEAST_S = 20.0
_FORK = multiprocessing.get_context("fork")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps and print the table. Returns the exit status."""
    args = _parser().parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / FILE).unlink(missing_ok=True)
    ends_s = time.monotonic() + args.budget
    for step in args.only or STEPS:
        left_s = ends_s - time.monotonic()
        if left_s < _LEAST_S:
            Recorder(args.out, step).check("time", False, "the budget is spent")
            continue
        _run_step(step, args, min(left_s, max(_LEAST_S, STEPS[step] * args.budget * args.patience)))
    results = list(read(args.out))
    text = table(results)
    (args.out / "gpu.txt").write_text(text + "\n")
    print(text)
    failed = [result for result in results if result.status == FAILED]
    print(f"{len(results)} results, {len(failed)} failed -> {args.out / FILE}")
    return 1 if failed else 0


def _run_step(step: str, args: argparse.Namespace, limit_s: float) -> None:
    recorder, began_s = Recorder(args.out, step), time.monotonic()
    process = _FORK.Process(target=_step, args=(step, args.device, args.model, args.out), name=step)
    process.start()
    process.join(limit_s)
    if process.is_alive():
        _end(process)
        recorder.check("time", False, f"it took longer than {limit_s:.0f} s")
        return
    _end(process)  # what it started, if it did not end it
    if process.exitcode:
        recorder.check("process", False, f"it ended with {process.exitcode}; see {step}.log")
    status = FAILED if process.exitcode else "done"
    _print(Result(step, "seconds", status, time.monotonic() - began_s, "s"))


def _step(step: str, device: str, model: str, folder: Path) -> None:
    """A step's process: the leader of a group, with its output in a file."""
    os.setsid()
    log = (folder / f"{step}.log").open("w", buffering=1)  # until the process ends
    for stream in (1, 2):  # of libraries, which do not know Python's
        os.dup2(log.fileno(), stream)
    sys.stdout = sys.stderr = log
    steps.run(step, Recorder(folder, step), device, model, folder)


def _end(process: ForkProcess) -> None:
    """Kill the process and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        assert process.ident
        os.killpg(process.ident, signal.SIGKILL)
    process.kill()
    process.join()


def _print(result: Result) -> None:
    print(table([result]), file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="Check the engine on this machine's GPU.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--budget", type=float, default=520, help="seconds for everything (default 520)")
    parser.add_argument("--patience", type=float, default=1.0, help="factor on every step's share (default 1)")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal (default cuda)")
    parser.add_argument("--model", default="random:turbo", help="checkpoint (default random:turbo)")
    parser.add_argument("--only", nargs="+", choices=list(STEPS), help="steps (default: all)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
