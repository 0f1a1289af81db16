"""T3 as checked ONNX graphs in a folder with a manifest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch

from engines.checkpoints.checkpoint import Checkpoint, default_cache_dir
from engines.checkpoints.weights import load_tensors
from engines.errors import InvalidInput
from engines.onnx.export_cache import MANIFEST, ExportError, cached_folder, sha256
from engines.t3.kv_cache import KvSlot
from engines.t3.model import T3Net, expected_tensors
from engines.t3.net import Span
from engines.t3.onnx import graph, net
from engines.t3.onnx.graph import F32, blocks_graph, head_graph
from engines.t3.onnx.net import OnnxT3Net

PRECISIONS = ("fp32", "int8")
# Each 64 inputs of an output share a scale. Compared with one scale per tensor or per output (dynamic quantization with
# reduced range, which AVX2 needs) this halves the logits' error. Blocks of 32 are a little slower and a little more
# exact (docs/experiments.md has both).
_BLOCK = 64
_BITS = 8
_INT8_ACCUMULATION = 4  # ONNX Runtime's "accuracy level": activations become int8 too, by row and block


def export_t3(checkpoint: Checkpoint, precision: str, *, cache_dir: Path | None = None) -> Path:
    """The folder with blocks.onnx and head.onnx, from the cache or exported and checked now (seconds).

    Raises InvalidInput for an unknown precision, CheckpointError, and ExportError if the graphs' logits differ from the
    torch net's.
    """
    if precision not in PRECISIONS:
        allowed = " or ".join(PRECISIONS)
        message = f"precision is {precision!r}; it must be {allowed}."
        raise InvalidInput("precision", message, value=precision, allowed=allowed)
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
    """The model with the stored weights of its matrix products in 8 bits. Changes `model`."""
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
    """Restores the process's root logger, which importing the quantizer configures."""
    root, quantization = logging.getLogger(), logging.getLogger("onnxruntime.quantization")
    handlers, level = list(root.handlers), root.level
    quantization.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


# Largest error of a row of logits relative to the row, both as root mean squares. The bound of int8 only tells a
# working graph from a broken one.
TOLERANCE = {"fp32": 1e-4, "int8": 0.2}
_CHECK_ROWS = (37, 20, 1, 1, 1)  # a prompt in two chunks, then steps
_LOUD = 30.0


def check_t3(checkpoint: Checkpoint, folder: Path, precision: str) -> dict[str, object]:
    """Run ONNX's checker, then compare the graphs with the torch net over a prompt in chunks and single steps.

    Returns the figures for the manifest. Raises ExportError naming the bound that was missed, or if logits are not
    finite on loud inputs.
    """
    for name in ("blocks", "head"):
        onnx.checker.check_model(str(folder / f"{name}.onnx"), full_check=precision == "fp32")
    ours = OnnxT3Net(checkpoint, folder, threads=1)
    theirs = T3Net.load(checkpoint.t3_path, checkpoint.spec, torch.device("cpu"))
    speech_tokens = np.random.default_rng(0).integers(0, 6561, sum(_CHECK_ROWS)).tolist()
    actual = _logits(ours, ours.embed_speech(speech_tokens))
    expected = _logits(theirs, theirs.embed_speech(speech_tokens))
    worst = float(((actual - expected).square().mean(-1) / expected.square().mean(-1)).sqrt().max())
    if not worst <= TOLERANCE[precision]:  # written so that NaN fails
        raise ExportError(f"T3 ({precision}) is off by {worst:.2g} of a row of logits, allowed {TOLERANCE[precision]}")
    if not torch.isfinite(_logits(ours, _LOUD * ours.embed_speech(speech_tokens))).all():
        raise ExportError(f"T3 ({precision}) gives NaN or infinity on finite inputs")
    return {"rows": len(speech_tokens), "logit_error": worst, "tolerance": TOLERANCE[precision], "finite": True}


@torch.inference_mode()
def _logits(net: T3Net, embeddings: torch.Tensor) -> torch.Tensor:
    """Logits after every row, read in the chunks of `_CHECK_ROWS`, (rows, 6563)."""
    slot, rows, start = KvSlot(net.spec, len(embeddings), net.device), [], 0
    slot.reserve(len(embeddings))
    for count in _CHECK_ROWS:
        rows.append(net.forward(embeddings[start : start + count], [Span(slot, start, count)]))
        start += count
        slot.length = start
    return net.speech_logits(torch.cat(rows))


def open_onnx_net(checkpoint: Checkpoint, precision: str, *, threads: int, cache_dir: Path | None = None) -> OnnxT3Net:
    """The net on the graphs of `export_t3`. Raises as that does."""
    return OnnxT3Net(checkpoint, export_t3(checkpoint, precision, cache_dir=cache_dir), threads=threads)


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
