"""What an engine is built from: its configuration and the dimensions of the models it can run.

Frozen values only; nothing here reads files, the environment or a device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from engines.errors import InvalidInput

# One time base for everything: 25 speech tokens, 50 mel frames and 24 000 samples a second.
SAMPLE_RATE_HZ = 24_000
SPEECH_TOKENS_PER_S = 25
MEL_FRAMES_PER_TOKEN = 2
MEL_HOP_SAMPLES = 480
SAMPLES_PER_TOKEN = MEL_FRAMES_PER_TOKEN * MEL_HOP_SAMPLES
assert SAMPLES_PER_TOKEN * SPEECH_TOKENS_PER_S == SAMPLE_RATE_HZ
MEL_BANDS = 80

# Speech vocabulary: codes 0..6560, then the two marks that T3 alone uses.
SPEECH_CODES = 3**8
START_SPEECH_TOKEN = SPEECH_CODES
STOP_SPEECH_TOKEN = SPEECH_CODES + 1
SPEECH_VOCAB = SPEECH_CODES + 2
SILENCE_SPEECH_TOKEN = 4299  # upstream's S3GEN_SIL; three of them close every segment
SILENCE_TAIL_TOKENS = 3

# What a voice may carry at most (upstream: 15 s for T3, 10 s for S3Gen).
MAX_T3_PROMPT_TOKENS = 375
MAX_S3GEN_PROMPT_TOKENS = 250
SPEAKER_EMBEDDING_DIM = 256
X_VECTOR_DIM = 192


@dataclass(frozen=True)
class T3Spec:
    """GPT-2 over [speaker][prompt speech tokens][text][start of speech][speech tokens]."""

    layers: int
    width: int
    heads: int
    positions: int
    text_vocab: int


@dataclass(frozen=True)
class FlowSpec:
    """Flow encoder (conformer, width `width`) and CFM U-Net (width `channels`)."""

    width: int
    heads: int
    feed_forward: int
    encoder_layers: int
    up_layers: int
    channels: int
    mid_stages: int
    blocks_per_stage: int
    cfm_heads: int
    cfm_head_dim: int


@dataclass(frozen=True)
class VocoderSpec:
    """HiFT: `base_channels` is halved at each of the three upsamplings (8, 5, 3); then an iSTFT of hop 4."""

    base_channels: int
    f0_channels: int


@dataclass(frozen=True)
class ConditioningSpec:
    """The nets that turn reference audio into a Voice; used once per voice, never while speaking."""

    speaker_hidden: int  # voice encoder: 3-layer LSTM
    tokenizer_width: int  # S3 tokenizer v2
    tokenizer_heads: int
    tokenizer_layers: int
    xvector_init_channels: int  # CAMPPlus; its block depths 12, 24, 16 never change
    xvector_growth: int


@dataclass(frozen=True)
class ModelSpec:
    """Dimensions of one family member. Turbo and Nano differ in T3 only."""

    name: str
    t3: T3Spec
    flow: FlowSpec
    vocoder: VocoderSpec
    conditioning: ConditioningSpec

    @property
    def t3_file(self) -> str:
        """File name of T3's weights in the checkpoint folder; it also tells the models apart."""
        return f"t3_{self.name}_v1.safetensors"


_FULL_FLOW = FlowSpec(
    width=512, heads=8, feed_forward=2048, encoder_layers=6, up_layers=4,
    channels=256, mid_stages=12, blocks_per_stage=4, cfm_heads=8, cfm_head_dim=64,
)  # fmt: skip
_FULL_VOCODER = VocoderSpec(base_channels=512, f0_channels=512)
_FULL_CONDITIONING = ConditioningSpec(
    speaker_hidden=256, tokenizer_width=1280, tokenizer_heads=20, tokenizer_layers=6,
    xvector_init_channels=128, xvector_growth=32,
)  # fmt: skip

TURBO = ModelSpec("turbo", T3Spec(24, 1024, 16, 8196, 50276), _FULL_FLOW, _FULL_VOCODER, _FULL_CONDITIONING)
NANO = ModelSpec("nano", T3Spec(12, 768, 12, 8196, 50276), _FULL_FLOW, _FULL_VOCODER, _FULL_CONDITIONING)
# The CFM needs more channels than there are mel bands, or it cannot take the noise out; the text vocabulary is words.
TINY = ModelSpec(
    "tiny",
    T3Spec(layers=4, width=192, heads=4, positions=2048, text_vocab=28_672),
    FlowSpec(
        width=128, heads=2, feed_forward=256, encoder_layers=2, up_layers=2,
        channels=128, mid_stages=2, blocks_per_stage=1, cfm_heads=2, cfm_head_dim=32,
    ),
    VocoderSpec(base_channels=128, f0_channels=64),
    ConditioningSpec(
        speaker_hidden=64, tokenizer_width=128, tokenizer_heads=2, tokenizer_layers=2,
        xvector_init_channels=32, xvector_growth=8,
    ),
)  # fmt: skip
MODELS = {spec.name: spec for spec in (TURBO, NANO, TINY)}


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
        raise InvalidInput(f"sampling.{field}", value, f"{bracket}{low}, {high}]", "SAMPLING_OUT_OF_RANGE")


SCHEDULE_NAMES = ("lowest_latency", "balanced", "throughput")  # when to decode windows; see s3gen/windows.py
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
