"""`mynah-engines export` and `build`: checked ONNX graphs of a model, and TensorRT engines made from them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from engines.checkpoints.checkpoint import Checkpoint, open_checkpoint
from engines.config import S3GEN_STEPS
from engines.onnx.export_cache import MANIFEST, ExportError
from engines.s3gen.export.block_graphs import BLOCK_GRAPHS
from engines.s3gen.export.export import PRECISIONS, ExportSettings, graphs_of
from engines.s3gen.export.export import export as export_s3gen
from engines.s3gen.export.graphs import GRAPHS
from engines.s3gen.flow_steps import with_steps
from engines.s3gen.gpu.build import BuildSettings, build_engines, engine_folder, engine_graphs
from engines.s3gen.gpu.cuda import probe
from engines.s3gen.gpu.engine_file import slug
from engines.s3gen.gpu.trt import architecture, load_tensorrt
from engines.t3.onnx.export import PRECISIONS as T3_PRECISIONS
from engines.t3.onnx.export import export_t3
from engines.tools.arguments import at_least, worded

FLAVOURS = ("tensorrt", "tensorrt_rtx")
_WORKSPACE_MB = 2048


def export(arguments: Sequence[str]) -> None:
    """Export S3Gen's graphs, and T3's in each precision of `--t3`."""
    parser = _parser("export", "Export S3Gen and T3 to checked ONNX graphs.")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of S3Gen's graphs (default fp32)")
    parser.add_argument("--unpadded", action="store_true", help="export the variant without masks that CPUs run")
    parser.add_argument(
        "--graphs",
        nargs="+",
        choices=sorted((*GRAPHS, *BLOCK_GRAPHS)),
        help=f"S3Gen's graphs (default {' '.join(GRAPHS)}; models with guided steps have no cfm)",
    )
    parser.add_argument("--threads", type=at_least(1), default=2, help="CPU threads of the check (default 2)")
    parser.add_argument(
        "--t3",
        nargs="*",
        choices=T3_PRECISIONS,
        default=None,
        help=f"precisions of T3's graphs; without a value, T3 is not exported (default {' '.join(T3_PRECISIONS)}; "
        "standard and multilingual have none)",
    )
    args = parser.parse_args(arguments)
    checkpoint = _checkpoint(args)
    of_model = graphs_of(checkpoint.spec)
    if impossible := [name for name in args.graphs or () if name not in of_model]:
        parser.error(f"{checkpoint.spec.name} has no graph {', '.join(impossible)}; it has {', '.join(of_model)}.")
    graphs = tuple(args.graphs or (name for name in GRAPHS if name in of_model))
    settings = ExportSettings(graphs, not args.unpadded, args.precision, args.threads)
    _print_graphs(export_s3gen(checkpoint, settings, cache_dir=args.cache_dir).folder)
    if args.t3 and checkpoint.spec.is_llama:
        parser.error(f"T3 of {checkpoint.spec.name} has no graphs; give --t3 without a value.")
    for precision in () if checkpoint.spec.is_llama else T3_PRECISIONS if args.t3 is None else args.t3:
        _print_graphs(export_t3(checkpoint, precision, cache_dir=args.cache_dir))


def build(arguments: Sequence[str]) -> None:
    """Build S3Gen's TensorRT engines for a GPU, which need not be in this machine."""
    parser = _parser("build", "Build TensorRT engines from S3Gen's graphs, which are exported first if need be.")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp16", help="of the engines (default fp16)")
    parser.add_argument(
        "--arch", type=worded(architecture), default="sm86", help="target GPU, e.g. sm90 (default sm86)"
    )
    parser.add_argument("--flavour", choices=FLAVOURS, help="default: the one that is installed")
    parser.add_argument(
        "--workspace-mb",
        type=at_least(1),
        default=_WORKSPACE_MB,
        help=f"scratch memory that a kernel may use, in MB (default {_WORKSPACE_MB})",
    )
    args = parser.parse_args(arguments)
    checkpoint = _checkpoint(args)
    build_for(
        checkpoint,
        args.arch,
        precision=args.precision,
        cache_dir=args.cache_dir,
        flavour=args.flavour,
        workspace_mb=args.workspace_mb,
    )


def build_for(
    checkpoint: Checkpoint,
    architecture: str,
    *,
    precision: str,
    cache_dir: Path | None,
    flavour: str | None = None,
    workspace_mb: int = _WORKSPACE_MB,
) -> None:
    """Build and list the engines of a checkpoint for an architecture; existing engines are kept.

    Raises ExportError if a graph fails its check or an engine cannot be built, and CudaUnavailable if standard TensorRT
    has no GPU, as it builds on the GPU that it builds for.
    """
    trt, graphs = load_tensorrt(flavour), engine_graphs(checkpoint.spec.flow)
    gpu = "any" if trt.portable else _builds_for(architecture)
    made = export_s3gen(checkpoint, ExportSettings(graphs, True, precision, 2), cache_dir=cache_dir)
    folder = engine_folder(cache_dir)
    timing_cache = folder / f"timing-{architecture if gpu == 'any' else slug(gpu)}.cache"
    settings = BuildSettings(architecture, workspace_mb << 20, timing_cache, gpu, graphs)
    for name, path in build_engines(made, folder, settings, trt).items():
        print(f"{name:10} {path.stat().st_size / 1e6:8.1f} MB  {path}")


def _builds_for(architecture: str) -> str:
    """The name of this machine's GPU. Raises ExportError if it is of another architecture."""
    gpu = probe()
    if gpu.architecture != architecture:
        raise ExportError(
            f"The architecture is {architecture}, but standard TensorRT builds for the GPU that it runs on, and "
            f"{gpu.name} is {gpu.architecture}. Use --arch {gpu.architecture}, or --flavour tensorrt_rtx."
        )
    return gpu.name


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"mynah-engines {command}", description=description)
    parser.add_argument("--model", default="auto", help="model, as for mynah-serve (default auto)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda: which model auto is (default cpu)")
    parser.add_argument("--s3gen-steps", choices=S3GEN_STEPS, default="auto", help="as for mynah-serve (default auto)")
    parser.add_argument("--cache-dir", type=Path, help="folder of exports and engines; default as for mynah-serve")
    return parser


def _checkpoint(args: argparse.Namespace) -> Checkpoint:
    opened = open_checkpoint(args.model, cache_dir=args.cache_dir, device=args.device)
    return with_steps(opened, args.s3gen_steps)


def _print_graphs(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    print(folder)
    for name, entry in manifest["graphs"].items():
        print(f"  {name:10} {entry['bytes'] / 1e6:8.1f} MB  {entry.get('check') or manifest['check']}")
