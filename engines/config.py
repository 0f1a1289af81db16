"""The configuration of an engine, and the sampling parameters of a stream.

Frozen values only; nothing here reads files, the environment or a device.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import InvalidInput, quoted
from engines.model_spec import SPEECH_VOCAB

SCHEDULE_NAMES = ("lowest_latency", "balanced", "throughput", "crowd")  # see s3gen/streaming/schedule.py
OFFLINE = "offline"  # the schedule of a stream without a listener
STREAM_SCHEDULES = (*SCHEDULE_NAMES, OFFLINE)  # that a stream may name
MAX_CFG_WEIGHT = 2.0
EXAGGERATION = (0.25, 2.0)  # least and most


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters of T3. The defaults are Turbo's; those of the loaded model are in `EngineInfo.sampling`.

    Raises InvalidInput naming the field if a value is out of range.
    """

    temperature: float = 0.8  # 0 to 5; 0 is greedy decoding
    top_k: int = 1000  # 0 disables it
    top_p: float = 0.95  # above 0, at most 1; 1 disables it
    repetition_penalty: float = 1.2  # 0.1 to 10; 1 disables it
    min_p: float = 0.0  # 0 to 1: tokens less likely than this share of the likeliest are dropped; 0 disables it
    # 0 to 2, for models with `EngineInfo.guidance`: how far the text steers the speech; 0 computes no second pass
    cfg_weight: float = 0.0
    exaggeration: float = 0.5  # 0.25 to 2, for models with `EngineInfo.has_exaggeration`; 0.5 is neutral
    seed: int = 0
    max_speech_tokens: int = 1000  # of one segment, 1 to 1000
    # Windows are cut by token counts alone, so seed and schedule determine every byte. If False, hops follow the
    # listener's buffer and the load, and a repeated seed gives the same speech tokens but slightly different samples.
    repeatable: bool = True
    schedule: str = ""  # of a repeatable stream, one of STREAM_SCHEDULES; empty: the engine's own

    def __post_init__(self) -> None:
        if self.schedule and self.schedule not in STREAM_SCHEDULES:
            allowed = ", ".join(STREAM_SCHEDULES)
            message = f"sampling.schedule is {quoted(self.schedule)}; it must be one of {allowed}."
            raise InvalidInput(
                "sampling.schedule", message, "SCHEDULE_UNKNOWN", value=quoted(self.schedule), allowed=allowed
            )
        _check("temperature", self.temperature, 0.0, 5.0)
        _check("top_k", self.top_k, 0, SPEECH_VOCAB)
        _check("top_p", self.top_p, 0.0, 1.0, open_low=True)
        _check("repetition_penalty", self.repetition_penalty, 0.1, 10.0)
        _check("min_p", self.min_p, 0.0, 1.0)
        _check("cfg_weight", self.cfg_weight, 0.0, MAX_CFG_WEIGHT, reason="CFG_WEIGHT_OUT_OF_RANGE")
        _check("exaggeration", self.exaggeration, *EXAGGERATION, reason="EXAGGERATION_OUT_OF_RANGE")
        _check("seed", self.seed, 0, 2**64 - 1)
        _check("max_speech_tokens", self.max_speech_tokens, 1, 1000)


def _check(
    name: str,
    value: float,
    low: float,
    high: float,
    *,
    open_low: bool = False,
    reason: str = "SAMPLING_OUT_OF_RANGE",
) -> None:
    if math.isfinite(value) and (low < value if open_low else low <= value) and value <= high:
        return
    field = f"sampling.{name}"
    allowed = f"{'above' if open_low else 'at least'} {_number(low)} and at most {_number(high)}"
    message = f"{field} is {_number(value)}; it must be {allowed}."
    raise InvalidInput(field, message, reason, value=value, allowed=allowed)


def _number(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)


_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def split_model(value: str) -> tuple[str, str]:
    """The name that a value of --model gives, or an empty one, and the model: "de=owner/pack" is "de", "owner/pack"."""
    name, equals, model = value.partition("=")
    return (name, model) if equals and _MODEL_NAME.fullmatch(name) else ("", value)


DECODE_MODES = ("auto", "reference", "cached")
T3_BACKENDS = ("auto", "torch", "torch_graphs", "onnx", "vllm")
S3GEN_RUNTIMES = ("auto", "torch", "torch_graphs", "onnx", "tensorrt")
DTYPES = ("auto", "float32", "float16", "bfloat16")
T3_DTYPES = (*DTYPES, "int8")
S3GEN_DTYPES = ("auto", "float32", "float16")
S3GEN_STEPS = ("auto", "2", "10")
WORD_TIMES = ("auto", "off")
ATTENTION = ("free", "constrained")
ONNX_PROVIDERS = ("tensorrt", "cuda", "cpu")


def option(default: Any, help: str, *, choices: tuple[str, ...] | None = None, metavar: str | None = None) -> Any:
    """A dataclass field whose metadata holds the words of its command-line flag: `help`, `choices` and `metavar`.

    `help` is a phrase for `--help`. It does not repeat the default, except where that is None. `choices` are the
    allowed values, or the allowed elements of a tuple; None where the type and the help text say what is allowed.
    """
    return dataclasses.field(default=default, metadata={"help": help, "metavar": metavar, "choices": choices})


@dataclass(frozen=True)
class EngineConfig:
    """The options of `engines.load`. Each field's metadata documents it; see `option`."""

    model: str = option(
        "auto",
        "model to load: auto (turbo on a GPU, else nano), turbo, nano, standard, multilingual, multilingual-v2, "
        "turbo-onnx, tiny, random: and one of these, OWNER/NAME of a hub repository, or a folder that holds a "
        "checkpoint; a name is one commit of the hub, NAME@REVISION another, and MODEL:OWNER/NAME or "
        "MODEL:FOLDER chooses one of several there",
        metavar="MODEL",
    )
    lora: tuple[Path, ...] = option(
        (),
        "folder of a LoRA adapter in PEFT's layout that is merged into T3's weights, for standard and multilingual; "
        "the flag may be given several times, and they are merged in that order",
        metavar="FOLDER",
    )
    device: str = option(
        "auto", "device of the model: auto (a GPU if there is one), cpu, cuda or cuda:N", metavar="DEVICE"
    )
    threads: int | None = option(
        None, "CPU threads per operation, at least 1; default: one per physical core", metavar="COUNT"
    )
    max_streams: int = option(
        16, "streams decoded at the same time, at least 1; T3's KV cache is sized for them", metavar="COUNT"
    )
    max_text_chars_per_segment: int = option(
        1000, "longest text of one segment, in characters, at least 1; longer segments are refused", metavar="CHARS"
    )
    cache_dir: Path | None = option(
        None,
        "folder for downloads, random checkpoints and exported graphs; default: $MYNAH_CACHE_DIR, else "
        "$XDG_CACHE_HOME/mynah, else ~/.cache/mynah",
        metavar="FOLDER",
    )
    weights_seed: int = option(0, "seed of the weights of random:* models, at least 0", metavar="SEED")
    schedule: str = option(
        "balanced",
        "how many speech tokens are collected before audio is made: lowest_latency (small first chunks), balanced, "
        "throughput (large chunks) or crowd (large from the first on); streams with a seed get a larger one under load",
        choices=SCHEDULE_NAMES,
    )
    decode: str = option(
        "auto",
        "how S3Gen decodes a window: auto (on a CPU the more faithful of the two that speaks in real time, measured at "
        "start; else reference), reference (recomputes the voice's prompt and the left context) or cached (keeps their "
        "keys and values: faster)",
        choices=DECODE_MODES,
    )
    t3: str = option(
        "auto",
        "backend of T3, which generates speech tokens: auto (on a GPU vllm if it is installed, else torch_graphs, or "
        "torch for models with guidance; on a CPU torch, or onnx for a single stream without compiled kernels), "
        "torch, torch_graphs (torch with a static cache and CUDA graphs; on a CPU without graphs, for tests), onnx "
        "(CPU only) or vllm",
        choices=T3_BACKENDS,
    )
    t3_dtype: str = option(
        "auto",
        "precision of T3: auto (float16 for vllm and torch_graphs on a GPU and for torch's weights on a CPU, else "
        "float32; on a CPU int8 if nothing else speaks in real time, measured at start), float32, float16 (vllm, "
        "torch_graphs; torch on a CPU), bfloat16 (vllm) or int8 (torch on a CPU; onnx)",
        choices=T3_DTYPES,
    )
    max_positions: int = option(
        2048,
        "longest sequence of T3 in positions: voice prompt, text tokens and speech tokens of one segment; bounded by "
        "the model's own limit",
        metavar="POSITIONS",
    )
    cuda_graphs: bool = option(True, "replay T3 under vllm and torch_graphs as CUDA graphs; no effect on a CPU")
    gpu_memory_utilization: float | None = option(
        None,
        "fraction of the GPU's memory for T3's weights and KV cache under vllm, above 0 and at most 1; default: "
        "computed from max_streams, beside what S3Gen needs",
        metavar="FRACTION",
    )
    s3gen: str = option(
        "auto",
        "runtime of S3Gen, which turns speech tokens into audio: auto (torch_graphs on a GPU, else torch), torch, "
        "torch_graphs (torch with CUDA graphs, on a GPU), onnx or tensorrt",
        choices=S3GEN_RUNTIMES,
    )
    s3gen_dtype: str = option(
        "auto",
        "precision of S3Gen: auto (float16 for tensorrt and torch_graphs, else float32), float32, or float16 (not "
        "torch; cached on torch_graphs alone)",
        choices=S3GEN_DTYPES,
    )
    s3gen_steps: str = option(
        "auto",
        "steps in which S3Gen makes a mel out of noise: auto (as published: 10 with guidance for standard and "
        "multilingual, else 2; 2 on a CPU that is found at start not to speak in real time with 10, if the model's "
        "folder also holds s3gen_meanflow.safetensors), 2 (the nets of that file) or 10",
        choices=S3GEN_STEPS,
    )
    max_batch: int | None = option(
        None,
        "windows of several streams that share a call of S3Gen, at most; with 1 no other stream changes how samples "
        "are rounded; default: 8 on a CPU, where only small nets share calls, and 16 on a GPU",
        metavar="COUNT",
    )
    strict_reference: bool = option(
        False,
        "where decode, t3, t3_dtype or s3gen_steps is auto, stay as near to the published model as possible, however "
        "slow that is, and measure nothing at start: reference, T3's weights not in int8, the published steps",
    )
    word_times: str = option(
        "auto",
        "times of words: auto (where an attention head of T3 follows the text; under vllm they are "
        "read with its weights; beside onnx, and elsewhere on a GPU, the first layers of T3 are loaded once more for "
        "it) or off",
        choices=WORD_TIMES,
    )
    attention: str = option(
        "free",
        "what T3's heads that follow the text look at in segments with word_guard: free, or constrained to the place "
        "that is being spoken (T3 on torch)",
        choices=ATTENTION,
    )
    strict: bool = option(
        False, "refuse to start if the S3Gen runtime fails its parity check, instead of falling back to the next one"
    )
    providers: tuple[str, ...] = option(
        ("cpu",),
        "execution providers of ONNX Runtime for S3Gen, in order of preference, separated by commas",
        choices=ONNX_PROVIDERS,
        metavar="NAME[,NAME...]",
    )
    provider_fp16: bool = option(False, "let ONNX Runtime's TensorRT provider use fp16 where the graph says fp32")
    provider_cache_dir: Path | None = option(
        None,
        "folder for the engines of ONNX Runtime's TensorRT provider; default: beside the exported graphs",
        metavar="FOLDER",
    )
