"""GPU memory of T3 on fixed memory: what the cache of all streams needs beside S3Gen."""

from __future__ import annotations

from engines.model_spec import SPEECH_VOCAB, T3Spec
from engines.t3.gpu.cache import capacity_for
from engines.t3.vllm.family import transformer_values
from engines.t3.vllm.memory import CONTEXT_BYTES, S3GEN_BYTES, MemoryPlan, check_fits

_MB = 1_000_000
# A prefill chunk of 512 rows (its widest activation is 4 x width), the sampler's sort and float64 sums over 6563
# tokens a row, cuBLAS's workspaces, and the prefixes of voices that are kept.
_WORK_BYTES = 300 * _MB
_PREFIX_BYTES = 512 << 20
# Graphs of all sizes hold their activations in one pool, as large as the largest needs.
_CUDA_GRAPH_BYTES = 150 * _MB


def static_plan(
    spec: T3Spec,
    *,
    max_streams: int,
    max_positions: int,
    bytes_per_value: int,
    s3gen: int = S3GEN_BYTES,
    words: int = 0,
) -> MemoryPlan:
    """The plan for `max_streams` streams: every slot has room for the longest sequence from the start."""
    positions = max_streams * (capacity_for(max_positions) + 1)
    rows = spec.text_vocab + SPEECH_VOCAB + spec.positions + SPEECH_VOCAB  # embeddings, positions, head
    return MemoryPlan(
        weights=(transformer_values(spec) + rows * spec.width + SPEECH_VOCAB) * bytes_per_value,
        kv_cache=positions * 2 * spec.layers * spec.width * bytes_per_value,
        work=_WORK_BYTES + _PREFIX_BYTES,
        cuda_graphs=_CUDA_GRAPH_BYTES,
        s3gen=s3gen,
        context=CONTEXT_BYTES,
        words=words,
    )


def check_static_fits(
    spec: T3Spec,
    gpu_bytes: int,
    *,
    max_streams: int,
    max_positions: int,
    bytes_per_value: int,
    s3gen: int = S3GEN_BYTES,
    words: int = 0,
) -> None:
    """Raises InvalidInput naming the number of streams that a GPU of this size can serve. `s3gen` and `words`: as
    of `vllm.memory.memory_plan`."""
    sizes = {"max_positions": max_positions, "bytes_per_value": bytes_per_value, "s3gen": s3gen, "words": words}
    check_fits(static_plan(spec, max_streams=max_streams, **sizes), max_streams, gpu_bytes)
