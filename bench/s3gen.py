"""`make bench-s3gen`: S3Gen's and T3's runtimes side by side on one checkpoint, same threads, same inputs, in one run.

Calls of the runtimes alternate, so that whatever else the machine does falls on all of them alike. Each runtime's
`ratio` is its median over torch's. `--upstream` adds the published package's single pass where it is installed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from bench.report import publish, table
from engines.checkpoint import Checkpoint, open_checkpoint
from engines.s3gen.runtime import Runtime
from engines.s3gen.runtimes.onnx import OnnxRuntime
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.timing import flow_batch, vocoder_batch
from engines.t3.cache import KvSlot
from engines.t3.model import Span, T3Net
from engines.t3.onnx_net import OnnxT3Net

# name: (prompt, new tokens) of the flow, frames of the vocoder
WINDOWS = {
    "first window, 12 tokens": (250, 15, 38),
    "hop 25, context 50": (250, 78, 62),
    "offline, 10 s": (250, 253, 506),
}
PREFILL_POSITIONS, STEP_POSITIONS = 417, 500
Calls = Mapping[str, Callable[[], object]]


def alternate(calls: Calls, repeats: int) -> dict[str, float]:
    """Median seconds of each call; they take turns, after one unmeasured turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def s3gen_cases(checkpoint: Checkpoint, threads: int) -> dict[str, Calls]:
    runtimes: dict[str, Runtime] = {"torch": TorchRuntime(checkpoint), "onnx": OnnxRuntime(checkpoint, threads=threads)}
    cases: dict[str, Calls] = {}
    for name, (prompt, new, frames) in WINDOWS.items():
        flow, mel = flow_batch(1, prompt + new), vocoder_batch(1, frames)
        cases[f"flow: {name}"] = {key: (lambda r=r, b=flow: r.flow(b)) for key, r in runtimes.items()}
        cases[f"vocoder: {name}"] = {key: (lambda r=r, b=mel: r.vocoder(b)) for key, r in runtimes.items()}
    return cases


def t3_cases(checkpoint: Checkpoint, threads: int) -> dict[str, Calls]:
    nets: dict[str, T3Net] = {"torch": T3Net.load(checkpoint.t3_path, checkpoint.spec, torch.device("cpu"))}
    nets |= {f"onnx {p}": OnnxT3Net(checkpoint, precision=p, threads=threads) for p in ("fp32", "int8")}
    codes = np.random.default_rng(0).integers(0, 6561, PREFILL_POSITIONS).tolist()
    slots = {name: KvSlot(net.spec, 2048, net.device) for name, net in nets.items()}
    for slot in slots.values():
        slot.reserve(STEP_POSITIONS + 1)
        slot.memory.zero_()
    return {
        f"T3 step at {STEP_POSITIONS}": {
            n: (lambda net=net, n=n: step(net, slots[n], [7], STEP_POSITIONS)) for n, net in nets.items()
        },
        f"T3 prefill of {PREFILL_POSITIONS}": {
            n: (lambda net=net, n=n: step(net, slots[n], codes, 0)) for n, net in nets.items()
        },
    }


@torch.inference_mode()
def step(net: T3Net, slot: KvSlot, codes: list[int], start: int) -> torch.Tensor:
    """Read codes from position `start` on in chunks of 64, and the last one's logits."""
    for first in range(0, len(codes), 64):
        chunk = codes[first : first + 64]
        hidden = net.forward(net.embed_speech(chunk), [Span(slot, start + first, len(chunk))])
    return net.speech_logits(hidden[-1:])


def upstream_cases(checkpoint: Checkpoint) -> dict[str, Calls]:
    """The published package's offline pass and one step of its T3 (transformers' GPT-2 with its cache)."""
    from bench.engine import Upstream

    upstream = Upstream(checkpoint)
    return {"upstream S3Gen offline, 10 s": {"upstream": upstream.s3gen_offline}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="random:nano")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stage", choices=("s3gen", "t3", "all"), default="all")
    parser.add_argument("--upstream", action="store_true")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(given.threads))
    torch.set_num_threads(given.threads)
    checkpoint = open_checkpoint(given.model, cache_dir=None, device="cpu")
    cases: dict[str, Calls] = {}
    if given.stage in ("s3gen", "all"):
        cases |= s3gen_cases(checkpoint, given.threads)
    if given.stage in ("t3", "all"):
        cases |= t3_cases(checkpoint, given.threads)
    if given.upstream:
        cases |= upstream_cases(checkpoint)
    report(cases, given)


def report(cases: Mapping[str, Calls], given: argparse.Namespace) -> None:
    rows, result = [], {}
    for name, calls in cases.items():
        seconds = alternate(calls, given.repeats)
        base = seconds.get("torch")
        result[name] = {key: round(value, 4) for key, value in seconds.items()}
        rows += [(name, key, 1000 * s, s / base if base else float("nan")) for key, s in seconds.items()]
    text = table(["case", "runtime", "median ms", "over torch"], rows)
    publish("s3gen", text, {"model": given.model, "threads": given.threads, "seconds": result})


if __name__ == "__main__":
    main()
