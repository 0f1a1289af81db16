"""The plan of a GPU's memory for T3 under vLLM and S3Gen, in bytes, before anything is loaded.

vLLM takes T3's share as a fraction of the GPU, `gpu_memory_utilization`. The part of the share that weights and work
leave becomes KV cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from engines.errors import InvalidInput
from engines.model_spec import FlowSpec
from engines.t3.vllm.family import VllmFamily

_MB = 1_000_000
# Activations of a prefill chunk and of the sampler (32 rows x 8194 x 8 B, a dozen times over), cuBLAS's workspaces and
# the kernels that are loaded while vLLM measures what its model needs.
_WORK_BYTES = 400 * _MB
_BLOCK_POSITIONS = 16
# Piecewise graphs of up to `max_streams` rows, captured after vLLM has taken its share.
_CUDA_GRAPH_BYTES = 300 * _MB
# CUDA context with cuBLAS and cuDNN, and what the caching allocator loses to fragmentation.
CONTEXT_BYTES = 700 * _MB
# S3Gen: 600 MB of weights in float32 (flow encoder 197, CFM 311, vocoder 92, as TensorRT measures them). Its widest
# call is 16 windows of 360 tokens, 720 frames: the CFM's attention holds 16 x 8 x 720 x 720 scores twice (530 MB)
# beside some ten maps of 16 x 1024 x 720 (470 MB). The rest covers the vocoder and cuDNN's workspaces.
S3GEN_BYTES = 2_500 * _MB
_GUIDANCE_BYTES = 1_000 * _MB  # the second lanes' scores and maps in that call


def s3gen_bytes(flow: FlowSpec) -> int:
    """S3Gen's share: with guidance, a call has two lanes of every row."""
    return S3GEN_BYTES + (flow.lanes - 1) * _GUIDANCE_BYTES


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by purpose. `t3` is vLLM's share; the rest of `total` is outside it.

    words  what reading words beside T3 takes
    """

    weights: int
    kv_cache: int
    work: int
    cuda_graphs: int
    s3gen: int
    context: int
    words: int = 0

    @property
    def t3(self) -> int:
        return self.weights + self.kv_cache + self.work

    @property
    def total(self) -> int:
        return self.t3 + self.cuda_graphs + self.s3gen + self.context + self.words

    def utilization(self, gpu_bytes: int) -> float:
        """vLLM's `gpu_memory_utilization` on a GPU of this size."""
        return self.t3 / gpu_bytes

    def __str__(self) -> str:
        parts = {
            "T3 weights": self.weights, "KV cache": self.kv_cache, "T3 work": self.work,
            "CUDA graphs": self.cuda_graphs, "S3Gen": self.s3gen, "CUDA context": self.context, "words": self.words,
        }  # fmt: skip
        summands = " + ".join(f"{name} {size / _MB:.0f}" for name, size in parts.items())
        return f"{summands} = {self.total / _MB:.0f} MB"


def memory_plan(
    family: VllmFamily,
    *,
    max_streams: int,
    max_positions: int,
    bytes_per_value: int,
    s3gen: int = S3GEN_BYTES,
    words: int = 0,
) -> MemoryPlan:
    """The plan for `max_streams` streams, each with up to `max_positions` positions in T3.

    s3gen  as `s3gen_bytes`
    words  as `alignment.memory.words_bytes`
    """
    # vLLM refuses to start without room for one sequence of the greatest length, the last token drawn included
    one_sequence = max_positions + 1 + _BLOCK_POSITIONS
    positions = max(max_streams * min(family.provisioned_positions, max_positions), one_sequence)
    return MemoryPlan(
        weights=family.weight_bytes(bytes_per_value),
        kv_cache=positions * family.kv_bytes_per_position(bytes_per_value),
        work=_WORK_BYTES,
        cuda_graphs=_CUDA_GRAPH_BYTES,
        s3gen=s3gen,
        context=CONTEXT_BYTES,
        words=words,
    )


def check_fits(plan: MemoryPlan, max_streams: int, gpu_bytes: int) -> None:
    """Raises InvalidInput naming the number of streams that a GPU of this size can serve."""
    if plan.total <= gpu_bytes:
        return
    spare = gpu_bytes - (plan.total - plan.kv_cache)
    possible = max(0, spare) * max_streams // plan.kv_cache
    allowed = f"at most {possible}"
    message = (
        f"max_streams is {max_streams}; it can be {allowed} with {gpu_bytes / _MB:.0f} MB of GPU memory. "
        f"{max_streams} streams need {plan}."
    )
    if plan.words:
        message += f" Without word times (word_times off) they need {plan.words / _MB:.0f} MB less."
    raise InvalidInput("max_streams", message, "GPU_TOO_SMALL", value=max_streams, allowed=allowed)
