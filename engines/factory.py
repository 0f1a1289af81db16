"""Puts an engine together: checkpoint, text, T3, S3Gen and voices. Imports model libraries by way of the stages."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from engines.api import NULL_OBSERVER, EngineInfo, Limits, Observer
from engines.checkpoints.checkpoint import Checkpoint, default_cache_dir, open_checkpoint, verify
from engines.checkpoints.hub import HuggingFaceHub
from engines.checkpoints.weights import Shape
from engines.conditioning import speaker, tokenizer, xvector
from engines.conditioning.builder import VoiceBuilder
from engines.conditioning.builtin import load_builtin
from engines.config import (
    DECODE_MODES,
    DTYPES,
    S3GEN_DTYPES,
    S3GEN_RUNTIMES,
    T3_BACKENDS,
    T3_DTYPES,
    EngineConfig,
)
from engines.device import cpu_threads, device_memory, resolve_device, use_threads
from engines.errors import invalid_value
from engines.health import Health
from engines.kernels.dense import fp16_supported
from engines.pipeline import Encoder, Pipeline, Stages
from engines.published.engine import assemble_published
from engines.published.graphs import find_published
from engines.s3gen.nets import flow, vocoder_weights
from engines.s3gen.select_runtime import select_runtime
from engines.s3gen.streaming.batcher import WindowBatcher
from engines.s3gen.streaming.schedule import SCHEDULES
from engines.t3 import model as t3_model
from engines.t3.backend import T3Backend
from engines.t3.guidance import check_guidance
from engines.t3.local_backend import TorchT3Backend
from engines.t3.onnx_backend import OnnxT3Backend
from engines.t3.vllm import backend
from engines.text import TextTokenizer, normalize

# The batcher shares a call only where that has been seen to pay; this bounds its memory.
_MAX_BATCH = {"cpu": 8, "cuda": 16}
_T3_DTYPES_OF = {"torch": ("auto", "float32", "float16"), "onnx": ("auto", "float32", "int8"), "vllm": DTYPES}


def build_engine(config: EngineConfig, observer: Observer = NULL_OBSERVER) -> Pipeline:
    """The engine that `config` describes. Errors as `engines.load`."""
    _check_choices(config)
    check_guidance(os.environ)
    hub = HuggingFaceHub((config.cache_dir or default_cache_dir()) / "hub")
    if (folder := find_published(config.model, hub)) is not None:
        return assemble_published(config, folder, observer)
    device = resolve_device(config.device)
    use_threads(config.threads)
    checkpoint = open_checkpoint(config.model, cache_dir=config.cache_dir, seed=config.weights_seed, device=device)
    verify(checkpoint, tensor_tables(checkpoint))
    health = Health()
    t3 = _make_t3(config, checkpoint, device, health, observer)
    s3gen = select_runtime(config, checkpoint, device)
    most = _MAX_BATCH[device.split(":")[0]]
    batcher = WindowBatcher(s3gen.runtime, max_batch=most, reference=s3gen.reference, observer=observer)
    stages = Stages(_make_encoder(config, checkpoint), t3, batcher, SCHEDULES[config.schedule], observer)
    info = EngineInfo(
        model=checkpoint.spec.name,
        device=device,
        t3_runtime=t3.name,
        s3gen_runtime=s3gen.runtime.name,
        limits=Limits(config.max_text_chars_per_segment, 1000, config.max_streams),
        random_weights=checkpoint.random_weights,
        notice=checkpoint.notice,
        refused_runtimes=s3gen.refused,
    )
    default_voice = load_builtin(checkpoint.conds_path) if checkpoint.conds_path else None
    return Pipeline(info, stages, VoiceBuilder(checkpoint), default_voice, health, partial(device_memory, device))


def _make_encoder(config: EngineConfig, checkpoint: Checkpoint) -> Encoder:
    tokenizer = TextTokenizer(checkpoint.folder, checkpoint.spec.t3.text_vocab)

    def encode(text: str) -> tuple[int, ...]:
        return tokenizer.encode(normalize(text, config.max_text_chars_per_segment))

    return encode


def _make_t3(
    config: EngineConfig, checkpoint: Checkpoint, device: str, health: Health, observer: Observer
) -> T3Backend:
    name = _t3_name(config, device)
    if name == "torch":
        return TorchT3Backend(
            checkpoint,
            device=device,
            max_streams=config.max_streams,
            max_positions=config.max_positions,
            halves=_halves(config, device),
            observer=observer,
        )
    if name == "onnx":
        return OnnxT3Backend(
            checkpoint,
            max_streams=config.max_streams,
            max_positions=config.max_positions,
            threads=config.threads or cpu_threads(),
            precision="int8" if config.t3_dtype == "int8" else "fp32",
            cache_dir=config.cache_dir,
            observer=observer,
        )
    return backend.VllmT3Backend(
        checkpoint,
        device=device,
        max_streams=config.max_streams,
        max_positions=config.max_positions,
        dtype=config.t3_dtype,
        cuda_graphs=config.cuda_graphs,
        gpu_memory_utilization=config.gpu_memory_utilization,
        on_health=health.set,
        observer=observer,
    )


def _t3_name(config: EngineConfig, device: str) -> str:
    """The backend that is meant. Raises InvalidInput when it knows no such precision or device."""
    on_gpu = device.startswith("cuda")
    name = _automatic_t3(config, on_gpu) if config.t3 == "auto" else config.t3
    if config.t3_dtype not in _T3_DTYPES_OF[name]:
        allowed = f"{', '.join(_T3_DTYPES_OF[name])} under {name}"
        raise invalid_value("t3_dtype", config.t3_dtype, allowed, "T3_DTYPE_UNSUPPORTED")
    if name == "onnx" and on_gpu:
        raise invalid_value("t3", name, "vllm or torch on a GPU: T3's ONNX graphs are for CPUs", "T3_UNSUPPORTED")
    return name


def _automatic_t3(config: EngineConfig, on_gpu: bool) -> str:
    """On a CPU our own kernels under torch read weights in float16, once for all streams. Where they are missing, one
    stream's step is shorter on ONNX Runtime; from two streams on torch reads the weights once for all of them."""
    if on_gpu:
        return "vllm" if backend.installed() else "torch"
    if config.t3_dtype == "int8" or (config.max_streams == 1 and not fp16_supported()):
        return "onnx"
    return "torch"


def _halves(config: EngineConfig, device: str) -> bool:
    """Whether T3 on torch keeps its weights in float16. Raises InvalidInput where that is asked for in vain."""
    possible = device == "cpu" and fp16_supported()
    if config.t3_dtype == "float16" and not possible:
        allowed = "float32 under torch on a GPU, or where the compiled kernels or the CPU's f16c are missing"
        raise invalid_value("t3_dtype", config.t3_dtype, allowed, "T3_DTYPE_UNSUPPORTED")
    return possible and config.t3_dtype != "float32"


def tensor_tables(checkpoint: Checkpoint) -> dict[Path, list[tuple[str, dict[str, Shape]]]]:
    """Every tensor that the nets will read: by file, for each net its prefix there and its names and shapes."""
    spec = checkpoint.spec
    in_s3gen_file = (flow, vocoder_weights, tokenizer, xvector)
    return {
        checkpoint.t3_path: [("", t3_model.expected_tensors(spec))],
        checkpoint.s3gen_path: [(part.PREFIX, part.expected_tensors(spec)) for part in in_s3gen_file],
        checkpoint.voice_encoder_path: [("", speaker.expected_tensors(spec))],
    }


def _check_choices(config: EngineConfig) -> None:
    choices = {
        "schedule": tuple(SCHEDULES),
        "decode": DECODE_MODES,
        "t3": T3_BACKENDS,
        "t3_dtype": T3_DTYPES,
        "s3gen": S3GEN_RUNTIMES,
        "s3gen_dtype": S3GEN_DTYPES,
    }
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise invalid_value(name, getattr(config, name), ", ".join(allowed), f"{name.upper()}_UNKNOWN")
    in_torch = config.s3gen in ("auto", "torch")
    if config.decode == "cached" and config.s3gen in ("torch_graphs", "tensorrt"):
        raise invalid_value("decode", "cached", f"reference with S3Gen on {config.s3gen}", "DECODE_UNSUPPORTED")
    if config.s3gen_dtype == "float16" and (in_torch or config.decode == "cached"):
        in_full = "auto or float32 with S3Gen on torch, or with cached decoding"
        raise invalid_value("s3gen_dtype", "float16", in_full, "S3GEN_DTYPE_UNSUPPORTED")
