"""`mynah-engines prepare`: downloads and verifies weights and builds TensorRT engines before a server starts.

A second run finds everything in place and changes nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from engines.checkpoints.checkpoint import Checkpoint, default_cache_dir, open_checkpoint, verify
from engines.checkpoints.file_lock import locked
from engines.config import split_model
from engines.device import resolve_device
from engines.factory import tensor_tables
from engines.s3gen.export.export import PRECISIONS
from engines.s3gen.gpu.trt import architecture
from engines.tools.arguments import worded
from engines.tools.export import FLAVOURS, build_for

_THIS_GPU, _NONE = "here", "none"


def prepare(arguments: Sequence[str]) -> None:
    """Prepare this machine. Raises EngineError if weights are missing or wrong, or engines cannot be built."""
    args = _parser().parse_args(arguments)
    folder: Path = args.cache_dir or default_cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    # pods that share a volume start together: the first downloads and builds, the others find everything in place
    with locked(folder / "prepare.lock", lambda: print(f"waiting: another process prepares {folder}", flush=True)):
        for model in args.model.split(","):
            _prepare(args, split_model(model.strip())[1])


def _prepare(args: argparse.Namespace, model: str) -> None:
    began_s = time.monotonic()
    checkpoint = _verified_checkpoint(args, model)
    print(f"weights: {checkpoint.spec.name} in {checkpoint.folder}, verified ({time.monotonic() - began_s:.0f} s)")
    if args.engines == _NONE:
        return
    began_s = time.monotonic()
    target = _local_architecture() if args.engines == _THIS_GPU else args.engines
    build_for(checkpoint, target, precision=args.precision, cache_dir=args.cache_dir, flavour=args.flavour)
    print(f"engines: {target}, {args.precision} ({time.monotonic() - began_s:.0f} s)")


def _verified_checkpoint(args: argparse.Namespace, model: str) -> Checkpoint:
    device = resolve_device(args.device)
    checkpoint = open_checkpoint(model, cache_dir=args.cache_dir, device=device)
    verify(checkpoint, tensor_tables(checkpoint))
    return checkpoint


def _local_architecture() -> str:
    from engines.s3gen.gpu import cuda

    return cuda.probe().architecture


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mynah-engines prepare",
        description="Download and verify weights, and build TensorRT engines, before a server starts.",
    )
    parser.add_argument("--model", default="auto", help="models, as MYNAH_MODEL of mynah-serve (default auto)")
    parser.add_argument("--device", default="auto", help="cpu or cuda: which model auto is (default auto)")
    parser.add_argument("--cache-dir", type=Path, help="folder of weights and engines; default as for mynah-serve")
    parser.add_argument(
        "--engines",
        type=worded(lambda name: name if name in (_THIS_GPU, _NONE) else architecture(name)),
        default=_NONE,
        metavar="ARCHITECTURE",
        help=f"engines to build: {_THIS_GPU} (for the GPU of this machine), {_NONE}, or an architecture, e.g. sm86 "
        f"(default {_NONE})",
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp16", help="of the engines (default fp16)")
    parser.add_argument("--flavour", choices=FLAVOURS, help="default: the one that is installed")
    return parser
