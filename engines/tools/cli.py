"""`mynah-engines`: one command each to export, build, prepare, check, profile and measure what an engine runs on.

Translates arguments; the work is done by engines/s3gen and engines/t3. Every command prints a table and leaves a file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engines.config import S3GEN_DTYPES, S3GEN_RUNTIMES, T3_BACKENDS, T3_DTYPES, EngineConfig
from engines.errors import EngineError

if TYPE_CHECKING:
    from engines.checkpoints.checkpoint import Checkpoint
    from engines.s3gen.runtime import Runtime

Command = Callable[[Sequence[str]], int | None]
_OUTPUT = Path("build/engines")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, 1 when a check fails or an engine error was told, 2 for wrong arguments."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] not in COMMANDS:
        print(f"usage: mynah-engines {{{' | '.join(COMMANDS)}}} [--help]", file=sys.stderr)
        return 0 if given[:1] in (["-h"], ["--help"]) else 2
    try:
        return COMMANDS[given[0]](given[1:]) or 0
    except EngineError as error:
        print(f"mynah-engines {given[0]}: {error}", file=sys.stderr)
        return 1


def _export(arguments: Sequence[str]) -> None:
    """S3Gen's graphs, and T3's in the precisions that `--t3` names."""
    from engines.s3gen.export.export import main as export_s3gen
    from engines.t3.onnx.export import PRECISIONS
    from engines.t3.onnx.export import main as export_t3

    parser = argparse.ArgumentParser(prog="mynah-engines export", add_help=False)
    parser.add_argument("--t3", nargs="*", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--model", default="auto")
    parser.add_argument("--cache-dir")
    given, _ = parser.parse_known_args(arguments)
    export_s3gen(_without(arguments, "--t3"))
    if given.t3:
        place = ["--cache-dir", given.cache_dir] if given.cache_dir else []
        export_t3(["--model", given.model, *place, "--precision", *given.t3])


def _without(arguments: Sequence[str], flag: str) -> list[str]:
    """The arguments less one flag and its values."""
    kept, dropping = [], False
    for argument in arguments:
        dropping = argument == flag or (dropping and not argument.startswith("-"))
        if not dropping:
            kept.append(argument)
    return kept


def _build(arguments: Sequence[str]) -> None:
    from engines.s3gen.gpu.build import main as build_main

    build_main(arguments)


def _prepare(arguments: Sequence[str]) -> None:
    from engines.tools.prepare import main as prepare_main

    prepare_main(arguments)


def _check(arguments: Sequence[str]) -> int:
    """A runtime against the fp32 ONNX graphs on this machine, as before serving."""
    from engines.s3gen.parity_check import COMPOSITIONS, GPU_COMPOSITIONS, validate

    parser = argparse.ArgumentParser(
        prog="mynah-engines check",
        description="Compare a runtime with the fp32 ONNX graphs on the CPU, as the gate does before serving",
    )
    parser.add_argument("--runtime", choices=("torch", "onnx", "tensorrt"), default="onnx")
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32")
    options = _add_common(parser).parse_args(arguments)
    checkpoint = _checkpoint(options)
    on_gpu = options.runtime == "tensorrt" or options.device != "cpu" or options.providers != "cpu"
    report = validate(
        _runtime(options.runtime, checkpoint, options),
        _runtime("onnx", checkpoint, argparse.Namespace(**{**vars(options), "providers": "cpu", "precision": "fp32"})),
        precision=options.precision,
        compositions=GPU_COMPOSITIONS if on_gpu else COMPOSITIONS,
    )
    print(f"{options.runtime} {options.precision}: {'passed' if report.passed else 'REFUSED'}: {report}")
    _write("check", {"runtime": options.runtime, "passed": report.passed, **vars(report)})
    return 0 if report.passed else 1


def _profile(arguments: Sequence[str]) -> None:
    """Where torch's time goes, per stage: a table, a Chrome trace and the peak memory."""
    from engines.tools.s3gen_times import WINDOWS
    from engines.tools.stage_calls import stages
    from engines.tools.torch_profiler import profiled

    parser = argparse.ArgumentParser(
        prog="mynah-engines profile", description="torch.profiler's table and Chrome trace per stage, and peak memory"
    )
    parser.add_argument("--rows", type=int, default=12, help="of each table")
    parser.add_argument("--windows", nargs="+", choices=sorted(WINDOWS), default=list(WINDOWS))
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32")
    options = _add_common(parser).parse_args(arguments)
    _OUTPUT.mkdir(parents=True, exist_ok=True)
    checkpoint = _checkpoint(options)
    runtime = _runtime("torch", checkpoint, options)
    peaks = {}
    for name, call in stages(checkpoint, runtime, options.device, options.windows):
        table, peaks[name] = profiled(call, _OUTPUT / f"profile-{name}.json", options.rows)
        print(name, table, sep="\n")
    for name, peak in peaks.items():
        print(f"{name:22} peak memory {', '.join(f'{key} {value:.0f}' for key, value in peak.items())}")
    _write("profile", {"peak_memory": peaks, "traces": [f"profile-{name}.json" for name in peaks]})


def _bench(arguments: Sequence[str]) -> None:
    """p50 and p90 of each stage per window and bucket, its share, rooflines, the A10G's targets."""
    from engines.tools.report import bench
    from engines.tools.s3gen_times import WINDOWS

    parser = argparse.ArgumentParser(
        prog="mynah-engines bench",
        description="p50 and p90 of every stage per window and bucket, its share, rooflines, the goals for an A10G",
    )
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--windows", nargs="+", choices=sorted(WINDOWS), default=list(WINDOWS))
    parser.add_argument("--gflops", type=float, help="this machine's peak; default: measured with a matrix product")
    parser.add_argument("--t3", choices=T3_BACKENDS, default="auto")
    parser.add_argument("--t3-dtype", choices=T3_DTYPES, default="auto")
    parser.add_argument("--s3gen", choices=S3GEN_RUNTIMES, default="auto")
    parser.add_argument("--s3gen-dtype", choices=S3GEN_DTYPES, default="auto")
    options = _add_common(parser).parse_args(arguments)
    config = EngineConfig(
        model=options.model,
        device=options.device,
        threads=options.threads,
        cache_dir=options.cache_dir,
        t3=options.t3,
        t3_dtype=options.t3_dtype,
        s3gen=options.s3gen,
        s3gen_dtype=options.s3gen_dtype,
        providers=tuple(options.providers.split(",")),
        strict=True,  # what is measured is what was asked for
    )
    text, result = bench(config, {name: WINDOWS[name] for name in options.windows}, options.repeats, options.gflops)
    print(text)
    _write("bench", result)


def _add_common(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--model", default="auto", help="as of mynah-serve")
    parser.add_argument("--cache-dir", type=Path, help="default as of mynah-serve")
    parser.add_argument("--providers", default="cpu", help="of ONNX Runtime: tensorrt,cuda,cpu")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=2)
    return parser


def _checkpoint(options: argparse.Namespace) -> Checkpoint:
    from engines.checkpoints.checkpoint import open_checkpoint
    from engines.device import use_threads

    use_threads(options.threads)
    return open_checkpoint(options.model, cache_dir=options.cache_dir, device=options.device)


def _runtime(name: str, checkpoint: Checkpoint, options: argparse.Namespace) -> Runtime:
    if name == "onnx":
        from engines.s3gen.runtimes.onnx import OnnxRuntime

        return OnnxRuntime(
            checkpoint,
            providers=tuple(options.providers.split(",")),
            threads=options.threads,
            cache_dir=options.cache_dir,
            precision=options.precision,
        )
    if name == "tensorrt":
        from engines.s3gen.gpu.tensorrt import TensorRTRuntime

        return TensorRTRuntime(checkpoint, cache_dir=options.cache_dir, precision=options.precision)
    import torch

    from engines.s3gen.runtimes.torch import TorchRuntime

    dtype = torch.float16 if options.precision == "fp16" else torch.float32
    return TorchRuntime(checkpoint, device=options.device, dtype=dtype)


def _write(name: str, result: Mapping[str, object]) -> None:
    _OUTPUT.mkdir(parents=True, exist_ok=True)
    path = _OUTPUT / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"-> {path}")


COMMANDS: dict[str, Command] = {
    "export": _export,
    "build": _build,
    "prepare": _prepare,
    "check": _check,
    "profile": _profile,
    "bench": _bench,
}

if __name__ == "__main__":
    raise SystemExit(main())
