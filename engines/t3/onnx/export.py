"""`python -m engines.t3.onnx.export`: T3's prompt and step as checked ONNX graphs in a folder with a manifest.

Knows files, precisions and how far a graph may be from the torch net; what is in the graphs is graph.py's.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch

from engines.checkpoints.checkpoint import Checkpoint, default_cache_dir, open_checkpoint
from engines.checkpoints.weights import load_tensors
from engines.errors import invalid_value
from engines.onnx.export_cache import MANIFEST, ExportError, cached_folder, sha256
from engines.t3.kv_cache import KvSlot
from engines.t3.model import Span, T3Net, expected_tensors
from engines.t3.onnx import graph, net
from engines.t3.onnx.graph import F32, blocks_graph, head_graph
from engines.t3.onnx.net import OnnxT3Net

PRECISIONS = ("fp32", "int8")
# Each 64 inputs of an output share a scale. Beside one scale per tensor or per output (dynamic quantization with
# reduced range, which AVX2 needs) this halves the logits' error, and has no range to reduce. Blocks of 32 are a little
# slower and a little truer (docs/experiments.md has both).
_BLOCK = 64
_BITS = 8
_INT8_ACCUMULATION = 4  # ONNX Runtime's "accuracy level": activations become int8 too, by row and block


def export_t3(checkpoint: Checkpoint, precision: str, *, cache_dir: Path | None = None) -> Path:
    """The folder with blocks.onnx and head.onnx, from the cache or made now and checked (seconds).

    Raises InvalidInput, CheckpointError, and ExportError when the graphs do not say what the torch net says.
    """
    if precision not in PRECISIONS:
        raise invalid_value("precision", precision, " or ".join(PRECISIONS))
    root = (cache_dir or default_cache_dir()) / "onnx"
    sources = b"".join(Path(str(file)).read_bytes() for file in (graph.__file__, net.__file__, __file__))
    identity = {
        "weights": sha256(checkpoint.t3_path, memo_dir=root),
        "exporter": hashlib.sha256(sources).hexdigest(),
        "onnxruntime": ort.__version__,
        "precision": precision,
    }

    def make(folder: Path) -> None:
        tensors = {
            name: tensor.numpy()
            for name, tensor in load_tensors(checkpoint.t3_path, expected_tensors(checkpoint.spec)).items()
        }
        _write(checkpoint, tensors, precision, folder)
        check = check_t3(checkpoint, folder, precision)
        graphs = {name: _entry(folder / f"{name}.onnx") for name in ("blocks", "head")}
        manifest = {**identity, "model": checkpoint.spec.name, "opset": graph.OPSET, "graphs": graphs}
        (folder / MANIFEST).write_text(json.dumps({**manifest, "check": check}, indent=2) + "\n")

    return cached_folder(root, f"t3-{checkpoint.spec.name}-{precision}", identity, make)


def _write(checkpoint: Checkpoint, tensors: Mapping[str, F32], precision: str, folder: Path) -> None:
    spec = checkpoint.spec.t3
    for name, make in (("head", head_graph), ("blocks", blocks_graph)):
        model = make(spec, tensors)
        onnx.save(to_int8(model) if precision == "int8" else model, folder / f"{name}.onnx")


def to_int8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Matrix products with stored weights in 8 bits, everything else as it was. `model` is used up."""
    with _own_logging():
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantizer = MatMulNBitsQuantizer(
            model, bits=_BITS, block_size=_BLOCK, is_symmetric=True, accuracy_level=_INT8_ACCUMULATION
        )
        quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    """Importing the quantizer configures the process's root logger; that is not its to decide."""
    root, chatter = logging.getLogger(), logging.getLogger("onnxruntime.quantization")
    handlers, level = list(root.handlers), root.level
    chatter.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


# Largest error of a row of logits relative to the row, both as root mean squares. Eight bits are there to be fast;
# their bound only tells a working graph from a broken one.
TOLERANCE = {"fp32": 1e-4, "int8": 0.2}
_CHECK_ROWS = (37, 20, 1, 1, 1)  # a prompt in two chunks, then steps
_LOUD = 30.0


def check_t3(checkpoint: Checkpoint, folder: Path, precision: str) -> dict[str, object]:
    """ONNX's checker, then the graphs against the torch net over a prompt in chunks and single steps; what was found.

    Raises ExportError naming the bound that was missed, also for logits that are not finite on loud inputs.
    """
    for name in ("blocks", "head"):
        onnx.checker.check_model(str(folder / f"{name}.onnx"), full_check=precision == "fp32")
    ours = OnnxT3Net(checkpoint, folder, threads=1)
    theirs = T3Net.load(checkpoint.t3_path, checkpoint.spec, torch.device("cpu"))
    speech_tokens = np.random.default_rng(0).integers(0, 6561, sum(_CHECK_ROWS)).tolist()
    got, expected = _logits(ours, ours.embed_speech(speech_tokens)), _logits(theirs, theirs.embed_speech(speech_tokens))
    worst = float(((got - expected).square().mean(-1) / expected.square().mean(-1)).sqrt().max())
    if not worst <= TOLERANCE[precision]:  # written so that NaN fails
        raise ExportError(f"T3 ({precision}) is off by {worst:.2g} of a row of logits, allowed {TOLERANCE[precision]}")
    if not torch.isfinite(_logits(ours, _LOUD * ours.embed_speech(speech_tokens))).all():
        raise ExportError(f"T3 ({precision}) gives NaN or infinity on finite inputs")
    return {"rows": len(speech_tokens), "logit_error": worst, "tolerance": TOLERANCE[precision], "finite": True}


@torch.inference_mode()
def _logits(net: T3Net, embeddings: torch.Tensor) -> torch.Tensor:
    """Logits after every row, read as `_CHECK_ROWS` says, (rows, 6563)."""
    slot, rows, start = KvSlot(net.spec, len(embeddings), net.device), [], 0
    slot.reserve(len(embeddings))
    for count in _CHECK_ROWS:
        rows.append(net.forward(embeddings[start : start + count], [Span(slot, start, count)]))
        start += count
        slot.length = start
    return net.speech_logits(torch.cat(rows))


def open_onnx_net(checkpoint: Checkpoint, precision: str, *, threads: int, cache_dir: Path | None = None) -> OnnxT3Net:
    """The net on graphs that are exported first if need be. Raises as `export_t3`."""
    return OnnxT3Net(checkpoint, export_t3(checkpoint, precision, cache_dir=cache_dir), threads=threads)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="T3's prompt and step to checked ONNX graphs")
    parser.add_argument("--model", default="auto", help="as of mynah-serve")
    parser.add_argument("--cache-dir", type=Path, help="where exports lie; default as of mynah-serve")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    given = parser.parse_args(arguments)
    checkpoint = open_checkpoint(given.model, cache_dir=given.cache_dir, device="cpu")
    for precision in given.precision:
        folder = export_t3(checkpoint, precision, cache_dir=given.cache_dir)
        print(folder)
        manifest = json.loads((folder / MANIFEST).read_text())
        for name, entry in manifest["graphs"].items():
            print(f"  {name:10} {entry['bytes'] / 1e6:8.1f} MB  {manifest['check']}")


def _entry(path: Path) -> dict[str, object]:
    graph = onnx.load(path, load_external_data=False).graph
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256(path),
        "inputs": {value.name: _shape(value) for value in graph.input},
        "outputs": {value.name: _shape(value) for value in graph.output},
    }


def _shape(value: onnx.ValueInfoProto) -> list[str | int]:
    kind = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    return [dtype, *(axis.dim_param or axis.dim_value for axis in kind.shape.dim)]


if __name__ == "__main__":
    main()
