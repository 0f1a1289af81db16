"""What an engine is built from: its configuration, and how T3 draws speech tokens.

Frozen values only; nothing here reads files, the environment or a device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from engines.errors import invalid_value
from engines.model_spec import SPEECH_VOCAB


@dataclass(frozen=True)
class Sampling:
    """How T3 draws speech tokens; the defaults and the order of operations are upstream's.

    Raises InvalidInput naming the field when a value is outside its range.
    """

    temperature: float = 0.8  # 0 picks the likeliest token
    top_k: int = 1000  # 0 switches it off
    top_p: float = 0.95  # 1 switches it off
    repetition_penalty: float = 1.2  # 1 switches it off
    seed: int = 0
    max_speech_tokens: int = 1000  # per segment
    # Cut windows by token counts alone, so that the seed decides every byte; otherwise hops follow the listener's
    # buffer and the load, which carries more streams, and a repeated seed gives the same speech rendered a little
    # differently.
    repeatable: bool = True

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0.0, 5.0)
        _check("top_k", self.top_k, 0, SPEECH_VOCAB)
        _check("top_p", self.top_p, 0.0, 1.0, open_low=True)
        _check("repetition_penalty", self.repetition_penalty, 0.1, 10.0)
        _check("seed", self.seed, 0, 2**64 - 1)
        _check("max_speech_tokens", self.max_speech_tokens, 1, 1000)


def _check(field: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    inside = math.isfinite(value) and (low < value if open_low else low <= value) and value <= high
    if not inside:
        bracket = "(" if open_low else "["
        raise invalid_value(f"sampling.{field}", value, f"{bracket}{low}, {high}]", "SAMPLING_OUT_OF_RANGE")


SCHEDULE_NAMES = ("lowest_latency", "balanced", "throughput")  # when to decode windows; see s3gen/streaming/windows.py
DECODE_MODES = ("reference", "cached")  # whether every window recomputes the voice's prompt and its left context


# auto: on a GPU vllm where it is installed; on a CPU onnx for a single stream; else torch
T3_BACKENDS = ("auto", "torch", "onnx", "vllm")
# auto: torch; torch_graphs: torch on CUDA streams, captured into graphs
S3GEN_RUNTIMES = ("auto", "torch", "torch_graphs", "onnx", "tensorrt")
DTYPES = ("auto", "float32", "float16", "bfloat16")
T3_DTYPES = (*DTYPES, "int8")
S3GEN_DTYPES = ("auto", "float32", "float16")


@dataclass(frozen=True)
class EngineConfig:
    """Everything `engines.load` needs. Read once at the edge, never changed."""

    model: str = "auto"  # auto | turbo | nano | tiny | FOLDER | random:turbo | random:nano | random:tiny
    device: str = "auto"  # auto | cpu | cuda | cuda:N
    threads: int | None = None  # intra-op CPU threads; None leaves the library's choice
    max_streams: int = 16  # streams decoded at once; T3's KV cache is sized for it
    max_text_chars_per_segment: int = 1000
    cache_dir: Path | None = None  # where downloads and random checkpoints lie; None: ~/.cache/mynah
    weights_seed: int = 0  # for random:* only
    schedule: str = "balanced"  # one of SCHEDULE_NAMES
    decode: str = "reference"  # one of DECODE_MODES
    t3: str = "auto"  # one of T3_BACKENDS
    # one of T3_DTYPES. auto: float16 for vLLM on a GPU and for torch on a CPU (its weights; arithmetic is in float32),
    # else float32; onnx knows float32 and int8
    t3_dtype: str = "auto"
    max_positions: int = 2048  # prefix, text and speech of one segment
    cuda_graphs: bool = True  # vLLM only, on a GPU
    gpu_memory_utilization: float | None = None  # vLLM's share of the GPU; None: computed from what both stages need
    s3gen: str = "auto"  # one of S3GEN_RUNTIMES
    s3gen_dtype: str = "auto"  # one of S3GEN_DTYPES. auto: float16 for tensorrt, else float32; torch knows float32 only
    strict: bool = False  # refuse to start where an S3Gen runtime fails its gate, instead of falling back
    providers: tuple[str, ...] = ("cpu",)  # ONNX Runtime's, in order of preference: tensorrt, cuda, cpu
    provider_fp16: bool = False  # lets ONNX Runtime's TensorRT provider choose fp16 where the graph says fp32
    provider_cache_dir: Path | None = None  # where that provider keeps its engines; None: beside the exported graphs
