"""`python -m bench.sampler`: CPU time of a step of T3, and of the sampler in it, with the compiled draws and torch's.

One thread; the two take turns at each step of the same sequences, behind 450 positions of one voice, and must draw the
same tokens. Expected for 8 rows of random:tiny: torch's sampler takes 7.4 of 25.6 ms of CPU (29 %) on a busy machine;
the kernel a tenth of that, so a step 0.75 as long. On random:nano the sampler is 2 % of a step with one row: no change.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import torch
from torch import Tensor

from bench.report import publish, table
from engines.checkpoints.checkpoint import open_checkpoint
from engines.kernels.library import simd_widths
from engines.t3.kv_cache import KvSlot
from engines.t3.model import T3Net
from engines.t3.net import Span
from engines.t3.sampler import Sampler

ROWS, POSITIONS, WARM_UP = (1, 4, 8, 16), 450, 5


class Side:
    """Sequences of one sampler, stepped together. Times are milliseconds of this thread's CPU."""

    def __init__(self, net: T3Net, prefix: Tensor, rows: int, simd_width: int) -> None:
        self._net, self._slots = net, [KvSlot(net.spec, 1024, net.device) for _ in range(rows)]
        self._sampler = Sampler(rows, net.device, simd_width=simd_width)
        for index, slot in enumerate(self._slots):
            slot.load(prefix)
            self._sampler.begin(index, replace(net.family.sampling, seed=index))
        self.tokens = [1] * rows
        self.step_ms: list[float] = []
        self.sampler_ms: list[float] = []

    def step(self) -> None:
        started_s = time.thread_time()
        for slot in self._slots:
            slot.reserve(slot.length + 1)
        spans = [Span(slot, slot.length, 1) for slot in self._slots]
        logits = self._net.speech_logits(self._net.forward(self._net.embed_speech(self.tokens), spans))
        drawing_s = time.thread_time()
        self.tokens = self._sampler.sample(range(len(spans)), logits)
        ended_s = time.thread_time()
        self.step_ms.append(1000 * (ended_s - started_s))
        self.sampler_ms.append(1000 * (ended_s - drawing_s))
        for slot in self._slots:
            slot.length += 1


def measure(net: T3Net, rows: int, steps: int) -> dict[str, float]:
    """Medians."""
    first = KvSlot(net.spec, 1024, net.device)
    first.reserve(POSITIONS)
    net.forward(net.embed_speech([1] * POSITIONS), [Span(first, 0, POSITIONS)])
    prefix = first.copy_out(POSITIONS)
    sides = {"torch": Side(net, prefix, rows, 0), "kernel": Side(net, prefix, rows, simd_widths()[0])}
    for _ in range(WARM_UP + steps):
        for side in sides.values():
            side.step()
        assert sides["torch"].tokens == sides["kernel"].tokens, "the kernel drew another token than torch"
    figures = {}
    for name, side in sides.items():
        figures[f"{name}_step_ms"] = round(median(side.step_ms[WARM_UP:]), 2)
        figures[f"{name}_sampler_ms"] = round(median(side.sampler_ms[WARM_UP:]), 3)
    return figures


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="random:tiny", help="Turbo, Nano or one of their shape")
    parser.add_argument("--steps", type=int, default=41)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    checkpoint = open_checkpoint(chosen.model, cache_dir=None, device="cpu")
    net = T3Net.load(checkpoint.t3_path, checkpoint.spec, "cpu")
    figures = {rows: measure(net, rows, chosen.steps) for rows in ROWS}
    names = list(figures[ROWS[0]])
    text = table(["rows", *(name.replace("_", " ") for name in names)], [(r, *figures[r].values()) for r in ROWS])
    publish("sampler", text, {"model": chosen.model, "threads": 1, "rows": {str(r): figures[r] for r in ROWS}})


if __name__ == "__main__":
    main()
