"""T3's net on ONNX Runtime: blocks and head are sessions on the graphs of graph.py, embeddings stay in torch."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor

from engines.checkpoints.checkpoint import Checkpoint
from engines.checkpoints.weights import load_tensors
from engines.onnx.session import BoundSession, SessionSettings, open_session
from engines.t3.kv_cache import KvSlot
from engines.t3.model import Maker, T3Net, outer_tensors
from engines.t3.net import Span
from engines.t3.onnx.graph import F32, past_names, present_names

_CPU = torch.device("cpu")


class OnnxT3Net(T3Net):
    """T3Net on ONNX Runtime's CPU provider.

    Spans are read one after the other: a slot's cache is memory of its own, which attention writes in place.
    """

    name = "onnx"

    def __init__(self, checkpoint: Checkpoint, folder: Path, *, threads: int) -> None:
        """`folder` holds blocks.onnx and head.onnx of this checkpoint. Raises CheckpointError as `load_tensors`."""
        spec = checkpoint.spec.t3
        settings = SessionSettings(("cpu",), threads)
        super().__init__(load_tensors(checkpoint.t3_path, outer_tensors(spec)), [], spec, Maker(_CPU))
        del self._head  # the session replaces it
        self._blocks_session = BoundSession(open_session(folder / "blocks.onnx", settings), settings)
        self._head_session = BoundSession(open_session(folder / "head.onnx", settings), settings)
        self._caches: weakref.WeakKeyDictionary[KvSlot, _BoundCache] = weakref.WeakKeyDictionary()

    def forward(self, embeddings: Tensor, spans: Sequence[Span[KvSlot]]) -> Tensor:
        """As T3Net.forward."""
        outputs, first = [], 0
        for span in spans:
            outputs.append(self._read(embeddings[first : first + span.rows], span))
            first += span.rows
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _read(self, rows: Tensor, span: Span[KvSlot]) -> Tensor:
        stop, put = span.start + span.rows, self._blocks_session.put
        hidden = rows + self.position_embedding[span.start : stop]
        cache = self._cache(span.slot)
        inputs = {
            "hidden": put(hidden.numpy()),
            "last_position": put(np.array([stop - 1], np.int32)),
            "total_positions": put(np.array(stop, np.int32)),
            **cache.past,
        }
        output: F32 = self._blocks_session(inputs, cache.present)[0].numpy()
        return torch.from_numpy(output)

    def _cache(self, slot: KvSlot) -> _BoundCache:
        """The slot's memory as inputs and outputs; bound again when the slot has moved to larger memory."""
        bound = self._caches.get(slot)
        if bound is None or bound.address != slot.memory.data_ptr():
            bound = self._caches[slot] = _BoundCache(slot.memory, self._blocks_session)
        return bound

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
