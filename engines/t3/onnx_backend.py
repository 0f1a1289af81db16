"""T3 on ONNX Runtime behind the same scheduler, sampler and thread as the torch backend; only the net differs."""

from __future__ import annotations

from pathlib import Path

from engines.api import NULL_OBSERVER, Observer
from engines.checkpoints.checkpoint import Checkpoint
from engines.t3.decoder import DecoderLimits, T3Decoder
from engines.t3.local_backend import TorchT3Backend
from engines.t3.onnx.export import open_onnx_net
from engines.t3.step_loop import StepLoop

_MAX_POSITIONS = 2048
_PREFILL_CHUNK_POSITIONS = 64
_PREFIX_CACHE_BYTES = 512 << 20


class OnnxT3Backend(TorchT3Backend):
    """T3Backend on the CPU. Limits as TorchT3Backend's; `precision` is fp32 or int8 (weights and products, the
    head too). Raises CheckpointError when the weights do not fit the spec.
    """

    name = "onnx"

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        max_streams: int,
        threads: int,
        precision: str = "fp32",
        cache_dir: Path | None = None,
        max_positions: int = _MAX_POSITIONS,
        prefill_chunk_positions: int = _PREFILL_CHUNK_POSITIONS,
        prefix_cache_bytes: int = _PREFIX_CACHE_BYTES,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        self._spec = checkpoint.spec.t3
        self._max_positions = min(max_positions, self._spec.positions)
        net = open_onnx_net(checkpoint, precision, threads=threads, cache_dir=cache_dir)
        limits = DecoderLimits(max_streams, self._max_positions, prefill_chunk_positions, prefix_cache_bytes)
        self._steps = StepLoop(T3Decoder(net, limits), observer)
