"""`make bench-t3-weights`: what T3's weights in float16 and in 8 bits change in its draws, and how long a step takes.

Against float32, over the logits of a sequence of random speech tokens: the sampler's total variation, and how often the
likeliest token is the same. The bounds of a default are 0.02 and 0.99. A step has one row behind 500 positions, or
four: of streams of one voice, which share its prefix of 376 positions, or of four voices. Expected for 8 bits: a step
half as long as in float16, four rows at most 1.5 times one, a total variation of 0.04 on random:nano, whose logits are
as close as can be.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import torch

from bench.report import median_s, publish, table
from engines.checkpoints.checkpoint import open_checkpoint
from engines.config import Sampling
from engines.kernels.dense import WeightFormat
from engines.model_spec import SPEECH_CODES
from engines.t3.kv_cache import KvSlot
from engines.t3.model import T3Net
from engines.t3.net import Span
from engines.t3.sampler import Sampler

THREADS, POSITIONS, PREFIX_POSITIONS = 2, 500, 376
FORMATS: tuple[WeightFormat, ...] = ("float32", "float16", "int8")


def slot_of(net: T3Net, speech_tokens: list[int]) -> tuple[KvSlot, torch.Tensor]:
    """A slot that has read the tokens, and the logits behind each of them."""
    slot = net.new_slot(len(speech_tokens) + 64)
    slot.reserve(len(speech_tokens) + 64)
    hidden = net.forward(net.embed_speech(speech_tokens), [Span(slot, 0, len(speech_tokens))])
    return slot, net.speech_logits(hidden)


def step_s(net: T3Net, slots: Sequence[KvSlot], repeats: int) -> float:
    """A step of sequences behind POSITIONS positions."""
    spans = [Span(slot, POSITIONS, 1) for slot in slots]

    def step() -> None:
        net.speech_logits(net.forward(net.embed_speech([1] * len(slots)), spans))

    return median_s(step, repeats=repeats, warm_up=3)


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    """The sampler's, with its default settings."""
    sampler = Sampler(1, torch.device("cpu"))
    sampler.begin(0, Sampling())
    return sampler.probabilities([0] * len(logits), logits)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="random:nano")
    parser.add_argument("--repeats", type=int, default=21)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
    torch.set_num_threads(THREADS)
    checkpoint = open_checkpoint(arguments.model, cache_dir=None, device="cpu")
    draw = torch.Generator().manual_seed(1)
    speech_tokens = torch.randint(0, SPEECH_CODES, (POSITIONS,), generator=draw).tolist()
    figures: dict[str, dict[str, float]] = {}
    exact = torch.zeros(0)
    for weights in FORMATS:
        net = T3Net.load(checkpoint.t3_path, checkpoint.spec, "cpu", weights=weights)
        slot, logits = slot_of(net, speech_tokens)
        exact = logits if weights == "float32" else exact
        variation = 0.5 * (probabilities(logits) - probabilities(exact)).abs().sum(-1).mean()
        greedy = (logits.argmax(-1) == exact.argmax(-1)).float().mean()
        slots = [slot, *(slot_of(net, speech_tokens)[0] for _ in range(3))]
        one_s, voices_s = (step_s(net, some, arguments.repeats) for some in (slots[:1], slots))
        prefix = slot.copy_out(PREFIX_POSITIONS)
        for each in slots:
            each.prefix = prefix
        four_s = step_s(net, slots, arguments.repeats)
        figures[weights] = {
            "total_variation": round(float(variation), 4),
            "greedy": round(float(greedy), 4),
            "step_ms": round(1000 * one_s, 2),
            "four_rows_of_a_voice": round(four_s / one_s, 2),
            "four_voices": round(voices_s / one_s, 2),
        }
    rows = [(weights, *values.values()) for weights, values in figures.items()]
    text = table(["weights", "total variation", "greedy", "step ms", "4 of a voice / 1", "4 voices / 1"], rows)
    over_float16 = round(figures["int8"]["step_ms"] / figures["float16"]["step_ms"], 3)
    text += f"\na step in 8 bits over one in float16: {over_float16}"
    result = {"model": arguments.model, "threads": THREADS, "weights": figures, "int8_over_float16": over_float16}
    publish("t3_weights", text, result)


if __name__ == "__main__":
    main()
