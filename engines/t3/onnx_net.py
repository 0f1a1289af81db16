"""T3's net on ONNX Runtime: the same slots and rows as the torch net, its blocks and head in sessions.

Knows how a span becomes a call; the graphs are onnx_graph.py's, embeddings and positions stay with the torch net's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor

from engines.checkpoint import Checkpoint, default_cache_dir
from engines.errors import InvalidInput
from engines.export_cache import MANIFEST, cached_folder, sha256
from engines.onnx_session import BoundSession, SessionSettings, open_session
from engines.t3 import onnx_graph
from engines.t3.cache import KvSlot
from engines.t3.model import Span, T3Net, expected_tensors, outer_tensors
from engines.t3.onnx_graph import F32, blocks_graph, head_graph, past_names, present_names
from engines.weights import load_tensors

PRECISIONS = ("fp32", "int8")
# Each 32 inputs of an output share a scale. Beside one scale per tensor or per output (dynamic quantization with
# reduced range, which AVX2 needs) this halves the logits' error at the same speed, and has no range to reduce.
_BLOCK = 32
_BITS = 8
_INT8_ACCUMULATION = 4  # ONNX Runtime's "accuracy level": activations become int8 too, by row and block
_CPU = torch.device("cpu")


class OnnxT3Net(T3Net):
    """T3Net on ONNX Runtime's CPU provider, weights in fp32 or, but for the head, in 8 bits.

    Spans are read one after the other: a slot's cache is memory of its own, which attention writes in place.
    """

    def __init__(self, checkpoint: Checkpoint, *, precision: str, threads: int, cache_dir: Path | None = None) -> None:
        """Makes the graphs if they are not in the cache. Raises CheckpointError as `load_tensors`, InvalidInput."""
        spec = checkpoint.spec.t3
        settings = SessionSettings(("cpu",), threads)
        folder = export_t3(checkpoint, precision, cache_dir=cache_dir)
        super().__init__(load_tensors(checkpoint.t3_path, outer_tensors(spec)), [], spec, _CPU)
        del self._head  # the session's
        self._blocks_session = BoundSession(open_session(folder / "blocks.onnx", settings), settings)
        self._head_session = BoundSession(open_session(folder / "head.onnx", settings), settings)
        self._caches: weakref.WeakKeyDictionary[KvSlot, _BoundCache] = weakref.WeakKeyDictionary()

    def forward(self, embeddings: Tensor, spans: Sequence[Span]) -> Tensor:
        """As T3Net.forward."""
        outputs, first = [], 0
        for span in spans:
            outputs.append(self._read(embeddings[first : first + span.rows], span))
            first += span.rows
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _read(self, rows: Tensor, span: Span) -> Tensor:
        stop, put = span.start + span.rows, self._blocks_session.put
        hidden = rows + self._position_embedding[span.start : stop]
        cache = self._cache(span.slot)
        inputs = {
            "hidden": put(hidden.numpy()[None]),
            "last_position": put(np.array([stop - 1], np.int32)),
            "total_positions": put(np.array(stop, np.int32)),
            **cache.past,
        }
        output: F32 = self._blocks_session(inputs, cache.present)[0].numpy()
        return torch.from_numpy(output[0])

    def _cache(self, slot: KvSlot) -> _BoundCache:
        """The slot's memory as inputs and outputs; bound anew whenever the slot has moved to larger memory."""
        known = self._caches.get(slot)
        if known is None or known.address != slot.memory.data_ptr():
            known = self._caches[slot] = _BoundCache(slot.memory, self._blocks_session)
        return known

    def speech_logits(self, hidden: Tensor) -> Tensor:
        """As T3Net.speech_logits."""
        session = self._head_session
        logits: F32 = session({"hidden": session.put(hidden.numpy())})[0].numpy()
        return torch.from_numpy(logits)


class _BoundCache:
    """OrtValues over a slot's keys and values, read and written in place."""

    def __init__(self, memory: Tensor, session: BoundSession) -> None:
        self.address = memory.data_ptr()
        self.past: dict[str, ort.OrtValue] = {}
        self.present: dict[str, ort.OrtValue] = {}
        for layer, kv in enumerate(memory):  # (2, heads, capacity, head dim)
            for part, past, present in zip(kv, past_names(layer), present_names(layer), strict=True):
                value = session.put(part[None].numpy())
                self.past[past] = self.present[present] = value


def export_t3(checkpoint: Checkpoint, precision: str, *, cache_dir: Path | None = None) -> Path:
    """The folder with blocks.onnx and head.onnx, from the cache or made now (seconds)."""
    if precision not in PRECISIONS:
        raise InvalidInput("precision", precision, " or ".join(PRECISIONS))
    root = (cache_dir or default_cache_dir()) / "onnx"
    sources = b"".join(Path(str(file)).read_bytes() for file in (onnx_graph.__file__, __file__))
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
        (folder / MANIFEST).write_text(json.dumps({**identity, "opset": onnx_graph.OPSET}, indent=2) + "\n")

    return cached_folder(root, f"t3-{checkpoint.spec.name}-{precision}", identity, make)


def _write(checkpoint: Checkpoint, tensors: Mapping[str, F32], precision: str, folder: Path) -> None:
    spec = checkpoint.spec.t3
    onnx.save(head_graph(spec, tensors), folder / "head.onnx")
    blocks = blocks_graph(spec, tensors)
    onnx.save(to_int8(blocks) if precision == "int8" else blocks, folder / "blocks.onnx")


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
