"""Puts an engine together: checkpoint, text, T3, S3Gen and voices. Imports model libraries by way of the stages."""

from __future__ import annotations

from pathlib import Path

from engines.api import EngineInfo, Limits
from engines.checkpoint import Checkpoint, open_checkpoint, verify
from engines.config import DECODE_MODES, DTYPES, S3GEN_RUNTIMES, T3_BACKENDS, EngineConfig
from engines.errors import InvalidInput
from engines.pipeline import Encoder, Pipeline, Stages
from engines.s3gen import flow, vocoder_weights
from engines.s3gen.batcher import WindowBatcher
from engines.s3gen.device import cpu_threads, resolve_device, use_threads
from engines.s3gen.runtime import Runtime
from engines.s3gen.runtimes.onnx import OnnxRuntime
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime
from engines.s3gen.windows import SCHEDULES
from engines.t3 import model as t3_model
from engines.t3 import vllm_backend
from engines.t3.backend import T3Backend
from engines.t3.torch_backend import TorchT3Backend
from engines.text import TextTokenizer, normalize
from engines.voice import speaker, tokenizer, xvector
from engines.voice.builder import VoiceBuilder
from engines.voice.builtin import load_builtin
from engines.weights import Shape

# A GPU is filled by many windows at once; a CPU is full with one, and a batch would only make the first one wait.
_MAX_BATCH = {"cpu": 2, "cuda": 16}


def assemble(config: EngineConfig) -> Pipeline:
    """The engine that `config` describes. Errors as `engines.load`."""
    _check_choices(config)
    device = resolve_device(config.device)
    use_threads(config.threads)
    checkpoint = open_checkpoint(config.model, cache_dir=config.cache_dir, seed=config.weights_seed, device=device)
    verify(checkpoint, tensor_tables(checkpoint))
    t3 = _make_t3(config, checkpoint, device)
    batcher, s3gen_name = _make_s3gen(config, checkpoint, device)
    stages = Stages(_make_encoder(config, checkpoint), t3, batcher, SCHEDULES[config.schedule])
    info = EngineInfo(
        model=checkpoint.spec.name,
        device=device,
        t3_runtime=t3.name,
        s3gen_runtime=s3gen_name,
        limits=Limits(config.max_text_chars_per_segment, 1000, config.max_streams),
        random_weights=checkpoint.random_weights,
        notice=checkpoint.notice,
    )
    default_voice = load_builtin(checkpoint.conds_path) if checkpoint.conds_path else None
    return Pipeline(info, stages, VoiceBuilder(checkpoint), default_voice)


def _make_encoder(config: EngineConfig, checkpoint: Checkpoint) -> Encoder:
    tokenizer = TextTokenizer(checkpoint.folder, checkpoint.spec.t3.text_vocab)

    def encode(text: str) -> tuple[int, ...]:
        return tokenizer.encode(normalize(text, config.max_text_chars_per_segment))

    return encode


def _make_t3(config: EngineConfig, checkpoint: Checkpoint, device: str) -> T3Backend:
    if config.t3 == "torch" or (config.t3 == "auto" and not (device.startswith("cuda") and vllm_backend.installed())):
        return TorchT3Backend(
            checkpoint, device=device, max_streams=config.max_streams, max_positions=config.max_positions
        )
    return vllm_backend.VllmT3Backend(
        checkpoint,
        device=device,
        max_streams=config.max_streams,
        max_positions=config.max_positions,
        dtype=config.t3_dtype,
        cuda_graphs=config.cuda_graphs,
        gpu_memory_utilization=config.gpu_memory_utilization,
    )


def _make_s3gen(config: EngineConfig, checkpoint: Checkpoint, device: str) -> tuple[WindowBatcher, str]:
    """The batcher and the name of what it runs. torch in float32 is the reference path of every runtime."""
    reference = TorchRuntime(checkpoint, device=device)
    runtime: Runtime = reference
    if config.decode == "cached":
        runtime = TorchCachedRuntime(reference)
    elif config.s3gen == "onnx":
        threads = config.threads or cpu_threads()
        runtime = OnnxRuntime(checkpoint, providers=config.providers, threads=threads, cache_dir=config.cache_dir)
    batcher = WindowBatcher(runtime, max_batch=_MAX_BATCH[device.split(":")[0]], reference=reference)
    return batcher, runtime.name


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
        "t3_dtype": DTYPES,
        "s3gen": S3GEN_RUNTIMES,
    }
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise InvalidInput(name, getattr(config, name), ", ".join(allowed), f"{name.upper()}_UNKNOWN")
    if config.decode == "cached" and config.s3gen == "onnx":
        raise InvalidInput("decode", "cached", "reference with the ONNX runtime", "DECODE_UNSUPPORTED")
