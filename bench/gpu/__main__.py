"""`python -m bench.gpu --out DIR --budget 520`: every step in a process of its own with a time limit.

An error that ends a process, or one that every later CUDA call returns, ends one step. Exit status: 0, 1 if a check
failed, 2 for wrong arguments. It needs torch and the source tree, no network, and nothing else of the GPU's libraries.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.gpu.results import FAILED, FILE, Recorder, Result, read, table

# step -> its share of the budget
STEPS = {
    "facts": 0.05, "driver": 0.06, "weights": 0.1, "s3gen": 0.2, "t3": 0.12, "vllm": 0.25, "tensorrt": 0.2,
    "speed": 0.15, "together": 0.08, "engine": 0.16, "traces": 0.06,
}  # fmt: skip
_LEAST_S = 20.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps and print the table. Returns the exit status."""
    args = _parser().parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.step:
        from bench.gpu import steps

        steps.run(args.step, Recorder(args.out, args.step), args.device, args.model, args.out)
        return 0
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
    command = [sys.executable, "-m", "bench.gpu", "--step", step, "--out", str(args.out)]
    command += ["--device", args.device, "--model", args.model]
    recorder, began_s = Recorder(args.out, step), time.monotonic()
    with (args.out / f"{step}.log").open("w") as log:
        try:
            status = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=limit_s).returncode
        except subprocess.TimeoutExpired:
            recorder.check("time", False, f"it took longer than {limit_s:.0f} s")
            return
    if status:
        recorder.check("process", False, f"it ended with {status}; see {step}.log")
    _print(Result(step, "seconds", "done" if status == 0 else FAILED, time.monotonic() - began_s, "s"))


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
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
