"""Puts an engine together: checkpoint, text, T3, S3Gen and voices. Imports model libraries by way of the stages."""

from __future__ import annotations

from pathlib import Path

from engines.api import EngineInfo, Limits
from engines.checkpoint import Checkpoint, open_checkpoint, verify
from engines.config import DECODE_MODES, EngineConfig
from engines.errors import InvalidInput
from engines.pipeline import Pipeline, Stages
from engines.s3gen import flow, vocoder_weights
from engines.s3gen.batcher import WindowBatcher
from engines.s3gen.device import resolve_device, use_threads
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime
from engines.s3gen.windows import SCHEDULES, Schedule
from engines.t3 import model as t3_model
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
    schedule = _schedule(config.schedule)
    _check_decode(config.decode)
    device = resolve_device(config.device)
    use_threads(config.threads)
    checkpoint = open_checkpoint(config.model, cache_dir=config.cache_dir, seed=config.weights_seed, device=device)
    verify(checkpoint, tensor_tables(checkpoint))
    t3 = TorchT3Backend(checkpoint, device=device, max_streams=config.max_streams)
    reference = TorchRuntime(checkpoint, device=device)
    runtime = TorchCachedRuntime(reference) if config.decode == "cached" else reference
    text_tokenizer = TextTokenizer(checkpoint.folder, checkpoint.spec.t3.text_vocab)

    def encode_text(text: str) -> tuple[int, ...]:
        return text_tokenizer.encode(normalize(text, config.max_text_chars_per_segment))

    batcher = WindowBatcher(runtime, max_batch=_MAX_BATCH[device.split(":")[0]], reference=reference)
    default_voice = load_builtin(checkpoint.conds_path) if checkpoint.conds_path else None
    info = EngineInfo(
        model=checkpoint.spec.name,
        device=device,
        t3_runtime=t3.name,
        s3gen_runtime=runtime.name,
        limits=Limits(config.max_text_chars_per_segment, 1000, config.max_streams),
        random_weights=checkpoint.random_weights,
        notice=checkpoint.notice,
    )
    return Pipeline(info, Stages(encode_text, t3, batcher, schedule), VoiceBuilder(checkpoint), default_voice)


def tensor_tables(checkpoint: Checkpoint) -> dict[Path, list[tuple[str, dict[str, Shape]]]]:
    """Every tensor that the nets will read: by file, for each net its prefix there and its names and shapes."""
    spec = checkpoint.spec
    in_s3gen_file = (flow, vocoder_weights, tokenizer, xvector)
    return {
        checkpoint.t3_path: [("", t3_model.expected_tensors(spec))],
        checkpoint.s3gen_path: [(part.PREFIX, part.expected_tensors(spec)) for part in in_s3gen_file],
        checkpoint.voice_encoder_path: [("", speaker.expected_tensors(spec))],
    }


def _schedule(name: str) -> Schedule:
    if name not in SCHEDULES:
        raise InvalidInput("schedule", name, ", ".join(SCHEDULES), "SCHEDULE_UNKNOWN")
    return SCHEDULES[name]


def _check_decode(name: str) -> None:
    if name not in DECODE_MODES:
        raise InvalidInput("decode", name, ", ".join(DECODE_MODES), "DECODE_UNKNOWN")
