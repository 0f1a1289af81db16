"""`mynah-engines prepare`: verified weights and TensorRT engines on this machine, before a server starts.

Knows the order of these steps; each of them is the work of another file. A second run only looks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from engines.checkpoints.checkpoint import Checkpoint, open_checkpoint, verify
from engines.device import resolve_device
from engines.factory import tensor_tables
from engines.s3gen.export.export import PRECISIONS
from engines.s3gen.gpu import build
from engines.s3gen.gpu.trt import ARCHITECTURES
from engines.s3gen.runtimes.onnx import cpu_graphs

_THIS_GPU, _NONE = "here", "none"


def main(arguments: Sequence[str] | None = None) -> None:
    """Raises EngineError saying what is missing, wrong or unreachable; nothing half-made keeps a final name."""
    given = _parser().parse_args(arguments)
    began_s = time.monotonic()
    checkpoint = _weights(given)
    print(f"weights: {checkpoint.spec.name} in {checkpoint.folder}, verified ({time.monotonic() - began_s:.0f} s)")
    if given.engines == _NONE:
        return
    began_s = time.monotonic()
    architecture = _architecture_here() if given.engines == _THIS_GPU else given.engines
    _engines(given, checkpoint, architecture)
    print(f"engines: {architecture}, {given.precision} ({time.monotonic() - began_s:.0f} s)")


def _weights(given: argparse.Namespace) -> Checkpoint:
    """Fetched if need be, then every tensor's name and shape is compared with what the nets will read."""
    device = resolve_device(given.device)
    checkpoint = open_checkpoint(given.model, cache_dir=given.cache_dir, device=device)
    verify(checkpoint, tensor_tables(checkpoint))
    return checkpoint


def _engines(given: argparse.Namespace, checkpoint: Checkpoint, architecture: str) -> None:
    arguments = ["--model", str(checkpoint.folder), "--precision", given.precision, "--arch", architecture]
    if given.cache_dir is not None:
        arguments += ["--cache-dir", str(given.cache_dir)]
    if given.flavour is not None:
        arguments += ["--flavour", given.flavour]
    build.main(arguments)
    cpu_graphs(checkpoint, cache_dir=given.cache_dir)  # what the engines are judged by at every start


def _architecture_here() -> str:
    from engines.s3gen.gpu import cuda

    return cuda.probe().architecture


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mynah-engines prepare", description="Weights and TensorRT engines, before a server starts"
    )
    parser.add_argument("--model", default="auto", help="as of mynah-serve")
    parser.add_argument("--device", default="auto", help="only decides what --model auto is")
    parser.add_argument("--cache-dir", type=Path, help="where they lie; default as of mynah-serve")
    engines = f"{_THIS_GPU}: for the GPU of this machine, {_NONE}, or one of {', '.join(ARCHITECTURES)}"
    parser.add_argument("--engines", choices=(_THIS_GPU, _NONE, *ARCHITECTURES), default=_NONE, help=engines)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp16", help="of the engines")
    parser.add_argument("--flavour", choices=("tensorrt", "tensorrt_rtx"), help="default: whichever is installed")
    return parser
