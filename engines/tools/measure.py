"""`mynah-engines check`, `profile` and `bench`. Each prints a table and writes a file below build/engines."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from engines.checkpoints.checkpoint import Checkpoint, open_checkpoint
from engines.conditioning.builtin import load_builtin
from engines.config import EngineConfig
from engines.device import resolve_device, use_threads
from engines.errors import EngineError, EngineFailure
from engines.s3gen.export.export import PRECISIONS
from engines.s3gen.gpu.cuda import CudaUnavailable
from engines.s3gen.gpu.tensorrt import TensorRTRuntime
from engines.s3gen.gpu.torch_graphed import TorchGraphedRuntime
from engines.s3gen.parity_check import COMPOSITIONS, GPU_COMPOSITIONS, validate
from engines.s3gen.runtime import Runtime
from engines.s3gen.runtimes.onnx import OnnxRuntime
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.t3.vllm.backend import VllmT3Backend
from engines.tools import report
from engines.tools.arguments import above_0, at_least
from engines.tools.engine_times import s3gen_calls, stage_calls, t3_backend_call
from engines.tools.s3gen_times import WINDOWS
from engines.tools.torch_profiler import profiled
from engines.tools.validate import FAILED, Checklist

_OUTPUT = Path("build/engines")
PROFILED = ("torch", "torch_graphs", "onnx", "tensorrt", "vllm", "all")
_OPTIONS = {option.name: option for option in dataclasses.fields(EngineConfig)}
_TYPES: dict[str, Any] = {
    "threads": int,
    "max_streams": int,
    "cache_dir": Path,
    "providers": lambda text: tuple(text.split(",")),
}


def check(arguments: Sequence[str]) -> int:
    """Compare a runtime with the fp32 ONNX graphs on the CPU. Returns the exit status."""
    parser = _parser("check", "Compare a runtime with the fp32 ONNX graphs on the CPU, as before serving.")
    parser.add_argument("--runtime", choices=("torch", "onnx", "tensorrt"), default="onnx", help="default onnx")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the runtime (default fp32)")
    args = parser.parse_args(arguments)
    checkpoint = _checkpoint(args)
    on_gpu = args.runtime == "tensorrt" or args.device != "cpu" or args.providers != ("cpu",)
    result = validate(
        _runtime(args.runtime, checkpoint, args),
        _runtime("onnx", checkpoint, argparse.Namespace(**{**vars(args), "providers": ("cpu",), "precision": "fp32"})),
        precision=args.precision,
        compositions=GPU_COMPOSITIONS if on_gpu else COMPOSITIONS,
    )
    print(f"{args.runtime} {args.precision}: {'passed' if result.passed else 'REFUSED'}: {result}")
    _write("check", {"runtime": args.runtime, "passed": result.passed, **vars(result)})
    return 0 if result.passed else 1


def profile(arguments: Sequence[str]) -> int:
    """Write torch.profiler's table and Chrome trace and the peak memory of each stage of each runtime."""
    parser = _parser(
        "profile",
        "Write torch.profiler's table and Chrome trace and the peak memory of each stage. Steps of vLLM and calls of "
        "TensorRT are ranges of their traces. Runtimes that are not here are named with the reason.",
    )
    parser.add_argument("--rows", type=at_least(1), default=12, help="rows of each table (default 12)")
    parser.add_argument(
        "--runtimes", nargs="+", choices=PROFILED, default=["torch"], help="runtimes, or all of them (default torch)"
    )
    _add_windows(parser)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of S3Gen (default fp32)")
    args = parser.parse_args(arguments)
    _OUTPUT.mkdir(parents=True, exist_ok=True)
    checkpoint = _checkpoint(args)
    peaks, absent = {}, {}
    for runtime in PROFILED[:-1] if "all" in args.runtimes else args.runtimes:
        try:
            with _profiled_calls(runtime, checkpoint, args) as calls:
                for name, call in calls:
                    file = name if runtime == "torch" else f"{runtime}-{name}"
                    table, peaks[file] = profiled(call, _OUTPUT / f"profile-{file}.json", args.rows, file)
                    print(file, table, sep="\n")
        except (EngineError, CudaUnavailable, ImportError) as why:
            absent[runtime] = str(why)
            print(f"{runtime}: absent: {why}")
    for name, peak in peaks.items():
        print(f"{name:22} peak memory {', '.join(f'{key} {value:.0f}' for key, value in peak.items())}")
    traces = [f"profile-{name}.json" for name in peaks]
    _write("profile", {"peak_memory": peaks, "traces": traces, "absent": absent})
    return 0 if peaks else 1


@contextlib.contextmanager
def _profiled_calls(
    name: str, checkpoint: Checkpoint, args: argparse.Namespace
) -> Iterator[Iterable[tuple[str, Callable[[], object]]]]:
    """The calls of a runtime. Raises EngineError, CudaUnavailable or ImportError if it is not here."""
    if name == "torch":
        yield stage_calls(checkpoint, _runtime(name, checkpoint, args), args.device, args.windows)
    elif name == "vllm":
        backend = VllmT3Backend(checkpoint, device=args.device, max_streams=1, work_dir=args.cache_dir)
        voice = load_builtin(checkpoint.conds_path) if checkpoint.conds_path else None
        if voice is None:
            raise EngineFailure("The model has no built-in voice to speak with.")
        with t3_backend_call(backend, backend.decoder, voice) as call:
            yield [("t3-first-tokens", call)]
        asyncio.run(backend.close())
    else:
        yield s3gen_calls(_runtime(name, checkpoint, args), args.windows)


def bench(arguments: Sequence[str]) -> int:
    """Measure every stage of an engine per window and bucket. Returns 1 if a GPU misses a goal."""
    parser = _parser(
        "bench",
        "Measure every stage per window and bucket: p50, p90, its share, rooflines, and the goals for an A10G.",
    )
    parser.add_argument("--repeats", type=at_least(1), default=10, help="measurements per stage (default 10)")
    _add_windows(parser)
    parser.add_argument("--gflops", type=above_0, help="this machine's peak; default: measured with a matrix product")
    _add_options(parser, "t3", "t3_dtype", "s3gen", "s3gen_dtype")
    args = parser.parse_args(arguments)
    options = {name: value for name, value in vars(args).items() if name in _OPTIONS}
    # a fallback would be measured under the wrong name, and so would what is chosen by speed
    config = EngineConfig(**options, strict=True, strict_reference=args.t3_dtype != "int8")
    windows = {name: WINDOWS[name] for name in args.windows}
    text, result = report.bench(config, windows, args.repeats, args.gflops)
    print(text)
    _write("bench", result)
    return 1 if result["missed"] else 0


def checklist(arguments: Sequence[str]) -> int:
    """Run the checklist of a build. Returns 1 if a line failed."""
    parser = _parser(
        "validate",
        "Check a build: whether it loads, its graphs build, its audio is valid, its quality, latency, memory, "
        "streaming and batches. One line each: passed, FAILED, or absent with the reason. Exits with 1 if one failed.",
    )
    parser.add_argument("--repeats", type=at_least(1), default=5, help="measurements per time (default 5)")
    _add_options(parser, "t3", "t3_dtype", "s3gen", "s3gen_dtype", "max_streams")
    args = parser.parse_args(arguments)
    options = {name: value for name, value in vars(args).items() if name in _OPTIONS}
    options["device"] = resolve_device(args.device)
    config = EngineConfig(**options, strict=True, strict_reference=args.t3_dtype != "int8")  # as in `bench`
    lines = Checklist(config, args.repeats).run()
    for line in lines:
        print(f"{line.name:12} {line.status:7} {line.note}")
    _write("validate", {"lines": [dataclasses.asdict(line) for line in lines]})
    return 1 if any(line.status == FAILED for line in lines) else 0


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"mynah-engines {command}", description=description)
    _add_options(parser, "model", "cache_dir", "providers", "device", "threads", device="cpu", threads=2)
    return parser


def _add_options(parser: argparse.ArgumentParser, *names: str, **defaults: object) -> None:
    """Flags for options of EngineConfig, in its words."""
    for name in names:
        option, default = _OPTIONS[name], defaults.get(name, _OPTIONS[name].default)
        words = option.metadata["help"] if name not in defaults else option.metadata["help"].split("; default:")[0]
        shown = "" if default is None else f" (default {','.join(default) if isinstance(default, tuple) else default})"
        parser.add_argument(
            "--" + name.replace("_", "-"),
            type=_TYPES.get(name, str),
            choices=None if isinstance(option.default, tuple) else option.metadata["choices"],
            metavar=option.metadata["metavar"],
            default=default,
            help=words + shown,
        )


def _add_windows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--windows", nargs="+", choices=sorted(WINDOWS), default=list(WINDOWS), help="sizes of window (default: all)"
    )


def _checkpoint(args: argparse.Namespace) -> Checkpoint:
    use_threads(args.threads)
    args.device = resolve_device(args.device)
    return open_checkpoint(args.model, cache_dir=args.cache_dir, device=args.device)


def _runtime(name: str, checkpoint: Checkpoint, args: argparse.Namespace) -> Runtime:
    if name == "onnx":
        return OnnxRuntime(
            checkpoint,
            providers=args.providers,
            threads=args.threads,
            cache_dir=args.cache_dir,
            precision=args.precision,
        )
    if name == "torch_graphs":
        graphed = TorchGraphedRuntime(checkpoint, dtype=torch.float16 if args.precision == "fp16" else torch.float32)
        graphed.prepare()
        return graphed
    if name == "tensorrt":
        return TensorRTRuntime(checkpoint, cache_dir=args.cache_dir, precision=args.precision)
    dtype = torch.float16 if args.precision == "fp16" else torch.float32
    return TorchRuntime(checkpoint, device=args.device, dtype=dtype)


def _write(name: str, result: Mapping[str, object]) -> None:
    _OUTPUT.mkdir(parents=True, exist_ok=True)
    path = _OUTPUT / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"-> {path}")
