"""`mynah-engines plan`: what a GPU should do with a model, by arithmetic, and on which assumptions."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence

from engines.config import S3GEN_STEPS, SCHEDULE_NAMES, WORD_TIMES
from engines.model_spec import MEANFLOW_STEPS, MODELS, with_guided_flow, with_meanflow
from engines.planning.gpus import GPUS
from engines.planning.plan import Plan, Planner
from engines.planning.times import S3GEN, T3, Assumptions, Times
from engines.tools.arguments import at_least, not_negative

_STREAMS = 32
_MODELS = sorted(name for name, spec in MODELS.items() if not spec.is_llama)  # whose T3 runs on the backends below


def plan(arguments: Sequence[str]) -> int:
    """Print the plan. Returns 0, or 1 if the GPU cannot carry the streams."""
    args = _parser().parse_args(arguments)
    given = Assumptions(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Assumptions)})
    spec = MODELS[args.model]
    if args.s3gen_steps != "auto":
        spec = with_meanflow(spec) if args.s3gen_steps == str(MEANFLOW_STEPS) else with_guided_flow(spec)
    given.check(spec)
    times = Times(spec, GPUS[args.gpu], args.t3, args.s3gen, given)
    made = Planner(times, args.schedule, args.word_times != "off").plan(args.streams, args.usd_per_hour)
    print(json.dumps(made.as_json(), indent=2) if args.json else text(made))
    return 1 if made.problems else 0


def text(made: Plan) -> str:
    """The plan as tables."""
    gpu = made.gpu
    title = f"{made.model}, {made.streams} streams on {gpu.name}; T3 on {made.t3}, S3Gen on {made.s3gen}, "
    lines = [title + f"schedule {made.schedule}. Arithmetic, not a measurement.", "", "time by stage, ms"]
    lines += [f"  {name:38} {value:8.2f}" for name, value in made.stages_ms.items()]
    lines += ["", "time to first audio, all streams at once, ms"]
    lines += ["  {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}".format("streams", "T3", "S3Gen", "rest", "median", "slowest")]
    lines += [
        f"  {first.streams:8} {first.t3_ms:8.0f} {first.s3gen_ms:8.0f} {first.rest_ms:8.0f} {first.median_ms:8.0f} "
        f"{first.slowest_ms:8.0f}"
        for first in made.first_audio
    ]
    lines += [
        "",
        f"streams that speak without a gap; {made.streams} of them keep GPU and host busy for the shares shown",
    ]
    lines += ["  {:>8} {:>8} {:>6} {:>6} {:>14}  {}".format("hop", "streams", "GPU", "host", "USD per hour", "limits")]
    lines += [
        f"  {load.hop_tokens:8} {load.carried:8} {load.gpu_busy:6.0%} {load.host_busy:6.0%} "
        f"{load.usd_per_speech_hour:6.3f} / {load.usd_per_speech_hour_full:.3f}  "
        + ", ".join(f"{name} {most}" for name, most in load.limits.items())
        for load in made.loads
    ]
    parts = ", ".join(f"{name.replace('_', ' ')} {value:.0f}" for name, value in made.memory_mb.items())
    lines += [
        f"  USD for an hour of speech with {made.streams} streams / with as many as are carried",
        "",
        f"memory, MB: {made.memory_total_mb:.0f} of {1000 * gpu.memory_gb:.0f} ({parts})",
        "",
        *_assumptions(made),
        *(f"PROBLEM: {problem}; {made.streams} are planned" for problem in made.problems),
    ]
    return "\n".join(lines)


def _assumptions(made: Plan) -> list[str]:
    gpu = made.gpu
    named = [f"{name} {value:g}" for name, value in dataclasses.asdict(made.assumptions).items()]
    return [
        f"assumed: {gpu.fp16_tflops:g} TFLOP/s in fp16, {gpu.fp32_tflops:g} in fp32, {gpu.gb_per_s:g} GB/s, "
        f"{gpu.memory_gb:g} GB ({gpu.source})",
        f"  {made.usd_per_hour:g} USD an hour ({gpu.instance}, {made.prices_date})",
        *(f"  {', '.join(named[first : first + 4])}" for first in range(0, len(named), 4)),
        "  voices with full prompts, known to the server; operations counted on the nets, each as long as the longest",
        "  of its arithmetic, its memory traffic and its launch",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mynah-engines plan",
        description="Compute what a GPU should do with a model: times, streams, memory and cost. Exits with 1 if it "
        "cannot carry the streams. Needs no GPU and no weights.",
    )
    parser.add_argument("--gpu", type=str.lower, choices=sorted(GPUS), required=True, help="the GPU")
    parser.add_argument(
        "--streams", type=at_least(1), default=_STREAMS, help=f"concurrent streams (default {_STREAMS})"
    )
    parser.add_argument("--model", choices=_MODELS, default="turbo", help="default turbo")
    parser.add_argument("--t3", choices=sorted(T3), default="vllm", help="backend of T3 (default vllm)")
    parser.add_argument("--s3gen", choices=sorted(S3GEN), default="tensorrt", help="runtime (default tensorrt)")
    parser.add_argument(
        "--s3gen-steps", choices=S3GEN_STEPS, default="auto", help="of S3Gen's flow (default auto: as published)"
    )
    parser.add_argument(
        "--schedule", choices=SCHEDULE_NAMES, default="balanced", help="window sizes (default balanced)"
    )
    parser.add_argument(
        "--word-times", choices=WORD_TIMES, default="auto", help="off: no net that reads words is beside T3"
    )
    parser.add_argument("--usd-per-hour", type=not_negative, help="price of the GPU; default: on demand, dated")
    parser.add_argument("--json", action="store_true", help="print JSON")
    assumed = parser.add_argument_group("assumptions")
    for field in dataclasses.fields(Assumptions):
        kind = int if field.type == "int" else float
        flag = "--" + field.name.replace("_", "-")
        assumed.add_argument(flag, type=kind, default=field.default, help=f"default {field.default:g}", metavar="N")
    return parser
