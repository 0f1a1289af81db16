"""Compares ways to decode speech with trained weights: word error rate, distance, seams and cost.

All rows decode the same speech tokens of the same sentences and voice. The first row decodes each in one pass.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import engines
from bench.report import publish, table
from bench.seams import find_seams
from engines.checkpoints.checkpoint import open_checkpoint
from engines.config import EngineConfig
from engines.pipeline import Pipeline
from engines.s3gen.nets import cfm
from engines.s3gen.runtime import Runtime
from engines.s3gen.runtimes.onnx import OnnxRuntime
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime
from engines.s3gen.streaming.schedule import SCHEDULES, Schedule, ScheduleStep
from tests.speech.model import rate
from tests.speech.speaking import OFFLINE, Rendering, mel_distance, render, speech_tokens_of
from tests.speech.texts import ALL, Text

TEXTS = ALL["agent"] + ALL["questions"] + ALL["balanced"]


@dataclass(frozen=True)
class Way:
    """A way to decode: a runtime, a schedule and a number of Euler steps."""

    name: str
    runtime: str  # a key of `_runtimes`
    schedule: Schedule
    steps: int = 2


def _ways() -> Iterator[Way]:
    yield Way("one pass", "torch", OFFLINE)
    for schedule in SCHEDULES.values():
        yield Way(schedule.name, "torch", schedule)
        yield Way(f"{schedule.name}, cached", "cached", schedule)
    hop = Schedule("hops of 25", (ScheduleStep(25),))
    for left in (0, 12, 25, 50, 100):
        yield Way(f"hop 25, left context {left}", "torch", replace(hop, left_context_tokens=left))
    for right in (5, 7, 12):
        yield Way(f"hop 25, lookahead {right}", "torch", Schedule("right", (ScheduleStep(25, right),)))
    yield Way("one pass, one Euler step", "torch", OFFLINE, steps=1)
    yield Way("balanced, ONNX", "onnx", SCHEDULES["balanced"])
    yield Way("balanced, ONNX fp16", "onnx fp16", SCHEDULES["balanced"])


@contextmanager
def _euler_steps(count: int) -> Iterator[None]:
    """Limits the CFM sampler to its first `count` steps."""
    times = cfm.EULER_TIMES
    cfm.EULER_TIMES = times[: count + 1]
    try:
        yield
    finally:
        cfm.EULER_TIMES = times


def _runtimes(model: str, threads: int) -> dict[str, Callable[[], Runtime]]:
    checkpoint = open_checkpoint(model, cache_dir=None, device="cpu")
    torch_runtime = TorchRuntime(checkpoint, device="cpu")
    return {
        "torch": lambda: torch_runtime,
        "cached": lambda: TorchCachedRuntime(torch_runtime),
        "onnx": lambda: OnnxRuntime(checkpoint, threads=threads),
        "onnx fp16": lambda: OnnxRuntime(checkpoint, precision="fp16", threads=threads),
    }


async def measure(model: str, sentences: int, threads: int, only: str) -> dict[str, dict[str, float]]:
    engine = await asyncio.to_thread(
        engines.load, EngineConfig(model=model, device="cpu", threads=threads, strict_reference=True)
    )
    assert isinstance(engine, Pipeline)
    voice = engine.default_voice
    assert voice is not None
    texts = TEXTS[:sentences]
    speech_tokens = await speech_tokens_of(engine.stages.t3, engine, [text.text for text in texts], voice)
    await engine.close()
    runtimes = _runtimes(model, threads)
    results: dict[str, dict[str, float]] = {}
    reference: list[Rendering] = []
    first, *others = _ways()
    for way in (first, *(other for other in others if only in other.name)):
        runtime = runtimes[way.runtime]()
        with _euler_steps(way.steps):
            render(runtime, speech_tokens[0], voice, way.schedule)  # warm-up
            renderings = [render(runtime, one, voice, way.schedule) for one in speech_tokens]
        reference = reference or renderings
        results[way.name] = _scores(texts, renderings, reference)
        print(way.name, results[way.name], flush=True)
    return results


def _scores(texts: list[Text], renderings: list[Rendering], reference: list[Rendering]) -> dict[str, float]:
    seconds = sum(one.duration_s for one in renderings)
    distances = [mel_distance(one.samples, whole.samples) for one, whole in zip(renderings, reference, strict=True)]
    return {
        "wer": rate(texts, [one.samples for one in renderings]),
        "mel_distance": sum(distances) / len(distances),
        "seams": sum(len({seam.sample for seam in find_seams(one.samples, one.joins)}) for one in renderings),
        "joins": sum(len(one.joins) for one in renderings),
        "decode_s_per_s": sum(one.decode_s for one in renderings) / seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", default="auto", help="model, as for mynah-serve (default auto); random weights make noise"
    )
    parser.add_argument("--only", default="", help="only ways whose name contains this, and one pass")
    parser.add_argument("--sentences", type=int, default=len(TEXTS))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    results = asyncio.run(measure(arguments.model, arguments.sentences, arguments.threads, arguments.only))
    header = ["", "WER", "mel distance", "seams", "joins", "decoding, s per s"]
    rows = [[name, *result.values()] for name, result in results.items()]
    publish("speech", table(header, rows), {"sentences": arguments.sentences, "ways": results})


if __name__ == "__main__":
    main()
