"""Builds an engine from its configuration: checkpoint, text tokenizer, T3, S3Gen and voices."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path

from engines.api import NULL_OBSERVER, EngineInfo, Limits, Observer
from engines.audio import Samples
from engines.checkpoints.checkpoint import Checkpoint, default_cache_dir, open_checkpoint, verify
from engines.checkpoints.hub import HuggingFaceHub
from engines.checkpoints.tensor_file import Shape
from engines.checkpoints.weights import check_finite
from engines.conditioning import speaker, tokenizer, xvector
from engines.conditioning.builder import VoiceBuilder
from engines.conditioning.builtin import load_builtin, load_others
from engines.config import DTYPES, EngineConfig, Sampling
from engines.continuity import Continuity
from engines.cuda_faults import is_sticky
from engines.device import (
    S3GEN_PRIORITY,
    T3_PRIORITY,
    DeviceThread,
    cpu_threads,
    device_memory,
    host_memory_bytes,
    resolve_device,
    use_own_stream,
    use_threads,
)
from engines.device_watch import DeviceWatch
from engines.errors import EngineError, InvalidInput, unsupported
from engines.exclusive import Exclusive
from engines.health import Health
from engines.kernels.dense import WeightFormat, fp16_supported, int8_supported
from engines.pipeline import Pipeline, Stages
from engines.published.graphs import find_published
from engines.realtime.ladder import Choice
from engines.realtime.settle import CpuNets, settle
from engines.s3gen.flow_steps import check_decode, own_steps, steps_notice, with_steps
from engines.s3gen.nets import flow, vocoder_weights
from engines.s3gen.runtime import Runtime
from engines.s3gen.select_runtime import Chosen, select_runtime
from engines.s3gen.streaming.batcher import WindowBatcher
from engines.s3gen.streaming.decode_times import CPU_CALIBRATION, GPU_CALIBRATION
from engines.s3gen.streaming.schedule import SCHEDULES
from engines.shared_device import SharedDevice
from engines.t3.alignment.lent import LentNet
from engines.t3.alignment.setup import find_alignment
from engines.t3.backend import T3Backend
from engines.t3.decoder import DecoderLimits
from engines.t3.family import Family, family_of
from engines.t3.gpu.net import open_static_net
from engines.t3.guidance import check_guidance, with_environments_weight
from engines.t3.load import check_weights, load_net
from engines.t3.load import expected_tensors as expected_t3_tensors
from engines.t3.local_backend import LocalT3Backend
from engines.t3.net import Net
from engines.t3.vllm import backend
from engines.text.character_tokenizer import CharacterTokenizer
from engines.text.encoder import TextEncoder
from engines.text.language_encoder import LanguageEncoder
from engines.text.tokenizer import TextTokenizer
from engines.voice import Voice

_log = logging.getLogger(__name__)
# Bounds the batcher's memory; it batches windows only where measurements show a gain.
_MAX_BATCH = {"cpu": 8, "cuda": 16}
_T3_DTYPES_OF = {
    "torch": ("auto", "float32", "float16", "int8"),
    "torch_graphs": ("auto", "float32", "float16"),
    "onnx": ("auto", "float32", "int8"),
    "vllm": DTYPES,
}
_CALLS_TAPS = ("torch", "torch-int8")  # nets whose steps can be observed; beside the others a net of its own is run
# modules of backends and runtimes whose packages may be missing
_NEEDS_PACKAGES = {
    ("t3", "onnx"): "engines.t3.onnx.export",
    ("s3gen", "onnx"): "engines.s3gen.runtimes.onnx",
}
# tried if T3 is chosen automatically and the one before does not start
_T3_FALLBACK = {"vllm": "torch_graphs", "torch_graphs": "torch"}
_LLAMA_FALLBACK = {"vllm": "torch"}


def build_engine(
    config: EngineConfig, observer: Observer = NULL_OBSERVER, shared: SharedDevice | None = None
) -> Pipeline:
    """Build the engine that `config` describes. Raises the errors of `engines.load`."""
    _check_choices(config)
    shared = shared or SharedDevice([config])
    shared.check(partial(_check_model, shared=shared))
    hub = HuggingFaceHub((config.cache_dir or default_cache_dir()) / "hub")
    if (folder := find_published(config.model, hub)) is not None:
        from engines.published.engine import build_published_engine  # needs ONNX, as it alone does

        return build_published_engine(config, folder, observer)
    use_threads(config.threads)
    config, published, checkpoint, device = _opened(config, shared)
    family = family_of(checkpoint.spec.t3)
    sampling = _defaults(family, beside_guided=shared.guided)
    health, exclusive = Health(), Exclusive()
    watch = DeviceWatch(health.lose)
    if device != "cpu":
        watch.start()

    @contextmanager
    def working(name: str) -> Iterator[None]:
        with exclusive.shared(), watch.call(name):
            yield

    def on_device(priority: int, working: Callable[[str], AbstractContextManager[None]]) -> DeviceThread:
        return DeviceThread(partial(use_own_stream, device, priority), working, health.report)

    nets = CpuNets(checkpoint, lambda dtype: _local_net(replace(config, t3_dtype=dtype), checkpoint, device))
    settled, choice = settle(config, checkpoint, device, nets)
    checkpoint = with_steps(checkpoint, settled.s3gen_steps)
    encoder = _encoder(checkpoint, config.max_text_chars_per_segment)
    default_voice = load_builtin(checkpoint.conds_path) if checkpoint.conds_path else None
    alignment = find_alignment(settled, checkpoint, device, encoder, default_voice)
    t3_spec = checkpoint.spec.t3
    positions = min(config.max_positions, t3_spec.positions)
    lent = alignment.lendable()

    def words_bytes(lent: bool) -> int:
        return alignment.beside_bytes(t3_spec, positions, lent=lent) if device != "cpu" else 0

    setting = _T3Setting(health, observer, on_device(T3_PRIORITY, watch.call), exclusive, words_bytes, lent)
    t3 = _make_t3(settled, checkpoint, device, setting, nets)
    constrained, observes = config.attention == "constrained", _observes_steps(t3.name, device)
    aligner = alignment.aligner(
        observes,
        positions,
        on_device(T3_PRIORITY, working),
        lent=lent if isinstance(t3, backend.VllmT3Backend) else None,
        constrained=constrained,
    )
    loaded = nets.take_s3gen(settled.s3gen_steps) if device == "cpu" else None

    def make_s3gen() -> tuple[Chosen, WindowBatcher]:
        chosen = select_runtime(settled, checkpoint, device, loaded)
        return chosen, WindowBatcher(
            chosen.runtime,
            max_batch=config.max_batch or _MAX_BATCH[device.split(":")[0]],
            reference=chosen.reference,
            observer=observer,
            on_device=on_device(S3GEN_PRIORITY, working),
            calibration=CPU_CALIBRATION if device == "cpu" else GPU_CALIBRATION,
        )

    s3gen, batcher = shared.s3gen(checkpoint, settled, device, make_s3gen)
    stages = Stages(
        encoder,
        t3,
        batcher,
        SCHEDULES[config.schedule],
        observer,
        encoder.count_tokens,
        # random weights never stop by themselves: their speech has no relation to the text
        _no_bound if checkpoint.random_weights else encoder.max_speech_tokens,
        encoder.words,
        aligner,
        family.end.silence_tokens,
        encoder.load_language,
        Continuity() if isinstance(t3, LocalT3Backend) and not family.guided else None,
        encoder.slow_languages,
    )
    info = EngineInfo(
        model=checkpoint.spec.name,
        device=device,
        t3_runtime=t3.name,
        s3gen_runtime=s3gen.runtime.name,
        limits=Limits(
            config.max_text_chars_per_segment, 1000, config.max_streams, checkpoint.spec.longest_segment_text_tokens
        ),
        random_weights=checkpoint.random_weights,
        clones_speakers=checkpoint.spec.clones_speakers,
        notice=_notice(published, own_steps(checkpoint.spec), choice),
        refused_runtimes=(*setting.refused, *s3gen.refused),
        failed_captures=_failed_captures(t3, s3gen.runtime),
        tags=encoder.tags,
        voice_models=checkpoint.voice_models,
        decode=settled.decode,
        setting_reason="" if choice is None else choice.reason,
        load=None if choice is None else choice.load,
        word_times=aligner is not None,
        word_times_notice=alignment.notice,
        sampling=sampling,
        guidance=family.guided,
        has_exaggeration=family.guided,
        has_min_p=family.guided,
        languages=checkpoint.spec.languages,
        missing_languages=encoder.missing_languages,
        continuity=stages.continuity is not None,
    )
    memory, others = partial(device_memory, device), load_others(checkpoint.other_voice_paths)
    builder = _QuietBuilder(VoiceBuilder(checkpoint), exclusive)
    streams = shared.active_streams
    return Pipeline(info, stages, builder, default_voice, health, memory, others, watch.close, streams)


def _opened(config: EngineConfig, shared: SharedDevice) -> tuple[EngineConfig, Checkpoint, Checkpoint, str]:
    """The options for a model's family, its checkpoint as published and with the steps of S3Gen, and the device.

    Raises CheckpointError and InvalidInput as far as options and the heads of files tell that it cannot be built.
    """
    device = resolve_device(config.device)
    published = open_checkpoint(config.model, cache_dir=config.cache_dir, seed=config.weights_seed, device=device)
    guided = family_of(published.spec.t3).guided
    config = _for_family(shared.without_vllm(config, device, guided=guided), published, device)
    checkpoint = with_steps(published, config.s3gen_steps)
    check_decode(checkpoint, config.decode, device, host_memory_bytes())
    verify(checkpoint, tensor_tables(checkpoint))
    check_finite(checkpoint.voice_encoder_path)  # used at the first upload only; damage in the others is heard at once
    return config, published, checkpoint, device


def _check_model(config: EngineConfig, *, shared: SharedDevice) -> str:
    """Check all of a model that is quickly checked, before the first of several is built. Returns the model's own name.

    Raises as build_engine, and ModuleNotFoundError for a package that an option needs.
    """
    _check_choices(config)
    hub = HuggingFaceHub((config.cache_dir or default_cache_dir()) / "hub")
    if (folder := find_published(config.model, hub)) is not None:
        from engines.published.engine import check_published

        return check_published(config, folder)
    config, _, checkpoint, device = _opened(config, shared)
    t3 = _t3_name(config, device)
    if t3 == "torch":
        _t3_weights(config, device)
    for module in {_NEEDS_PACKAGES.get(("t3", t3)), _NEEDS_PACKAGES.get(("s3gen", config.s3gen))} - {None}:
        importlib.import_module(str(module))
    check_weights(checkpoint, config.lora)
    _encoder(checkpoint, config.max_text_chars_per_segment)
    if checkpoint.conds_path:
        load_builtin(checkpoint.conds_path)
    return checkpoint.spec.name


@dataclass(frozen=True)
class _QuietBuilder:
    """A voice builder that waits while T3's engine is being built."""

    builder: VoiceBuilder
    exclusive: Exclusive

    def build(self, audio: bytes, name: str, *, normalize_loudness: bool = True) -> Voice:
        """As pipeline.Builder.build."""
        with self.exclusive.shared():
            return self.builder.build(audio, name, normalize_loudness=normalize_loudness)

    def similarity(self, voice: Voice, speech: Samples) -> float | None:
        """As pipeline.Builder.similarity."""
        with self.exclusive.shared():
            return self.builder.similarity(voice, speech)


def _failed_captures(*runtimes: T3Backend | Runtime) -> tuple[tuple[str, int], ...]:
    counts = [(runtime.name, int(getattr(runtime, "failed_captures", 0))) for runtime in runtimes]
    return tuple((name, count) for name, count in counts if count)


def _observes_steps(t3_name: str, device: str) -> bool:
    """Whether words come from T3's own steps. On a GPU they do not: what the step thread's stream has not computed yet
    cannot be read by another thread."""
    return t3_name in _CALLS_TAPS and device == "cpu"


def _notice(published: Checkpoint, s3gen_steps: str, choice: Choice | None) -> str:
    sentences = [published.notice, steps_notice(published, s3gen_steps)]
    if choice is not None and not choice.keeps_real_time:
        sentences.append("Measured at its start, this server does not speak in real time: speech will pause.")
    said = [sentence for sentence in sentences if sentence]
    return " ".join([*(f"{sentence.rstrip('.')}." for sentence in said[:-1]), *said[-1:]])


def _no_bound(*_: str) -> None:
    return None


def _defaults(family: Family, *, beside_guided: bool) -> Sampling:
    """The family's sampling, with the guidance that the environment asks for: of this model or of one beside it.

    Raises InvalidInput if there is none that has guidance.
    """
    if family.guided:
        return with_environments_weight(family.sampling, os.environ)
    if not beside_guided:
        check_guidance(os.environ)
    return family.sampling


def _encoder(checkpoint: Checkpoint, max_chars: int) -> TextEncoder | LanguageEncoder:
    spec, folder = checkpoint.spec, checkpoint.folder
    if spec.tokenizer_name:
        tokenizer = CharacterTokenizer(folder / spec.tokenizer_name, spec.t3.text_vocab)
        return LanguageEncoder(tokenizer, spec, max_chars, folder)
    return TextEncoder(TextTokenizer(folder, spec.t3.text_vocab), spec, max_chars)


@dataclass(frozen=True)
class _T3Setting:
    """What a T3 backend reports to, and its part in the use of the device."""

    health: Health
    observer: Observer
    on_device: DeviceThread
    exclusive: Exclusive
    words_bytes: Callable[[bool], int]  # of a GPU, left for reading words: by a net that T3 lends, or not
    lent: LentNet | None = None  # what T3 lends it to, for words
    refused: list[tuple[str, str]] = field(default_factory=list)


def _local_net(config: EngineConfig, checkpoint: Checkpoint, device: str, words: int = 0) -> Net:
    """T3's net in this process, beside `words` bytes of a GPU.

    Raises InvalidInput if it does not support the precision or the device.
    """
    name = _t3_name(config, device)
    if name == "onnx":
        from engines.t3.onnx.export import open_onnx_net

        precision, threads = "int8" if config.t3_dtype == "int8" else "fp32", config.threads or cpu_threads()
        return open_onnx_net(checkpoint, precision, threads=threads, cache_dir=config.cache_dir)
    if name == "torch_graphs":
        half = config.t3_dtype == "float16" or (config.t3_dtype == "auto" and device != "cpu")
        limits = DecoderLimits(config.max_streams, config.max_positions)
        return open_static_net(checkpoint, device, limits, half=half, captures=config.cuda_graphs, words=words)
    weights = _t3_weights(config, device)
    return load_net(checkpoint, device, weights=weights, loras=config.lora)


def _make_t3(
    config: EngineConfig, checkpoint: Checkpoint, device: str, setting: _T3Setting, nets: CpuNets
) -> T3Backend:
    """The backend of `config`, or the next that starts if it was chosen automatically."""
    name = _t3_name(config, device)
    try:
        if name == "vllm":
            return _vllm(config, checkpoint, device, setting)
        # a net that was measured is the one that serves; on a GPU none is, and none that follows another
        measured = device == "cpu" and not setting.refused
        words = setting.words_bytes(False)
        net = nets.take_t3(config.t3_dtype) if measured else _local_net(config, checkpoint, device, words)
        limits = DecoderLimits(config.max_streams, config.max_positions)
        return LocalT3Backend(net, limits, setting.observer, setting.on_device)
    except (EngineError, RuntimeError, MemoryError) as error:
        following = (_LLAMA_FALLBACK if checkpoint.spec.is_llama else _T3_FALLBACK).get(name)
        given = config.t3 != "auto" and not setting.refused
        if isinstance(error, InvalidInput) or following is None or given or config.strict or is_sticky(error):
            raise
        _log.error("%s; T3 falls back to %s", error, following)
        setting.refused.append((name, str(error)))
        return _make_t3(replace(config, t3=following, t3_dtype="auto"), checkpoint, device, setting, nets)


def _vllm(config: EngineConfig, checkpoint: Checkpoint, device: str, setting: _T3Setting) -> T3Backend:
    return backend.VllmT3Backend(
        checkpoint,
        device=device,
        max_streams=config.max_streams,
        max_positions=config.max_positions,
        dtype=config.t3_dtype,
        cuda_graphs=config.cuda_graphs,
        gpu_memory_utilization=config.gpu_memory_utilization,
        on_health=setting.health.set,
        observer=setting.observer,
        on_device=setting.on_device,
        alone=setting.exclusive.alone,
        words=setting.words_bytes(True),
        lent=setting.lent,
        loras=config.lora,
    )


def _t3_name(config: EngineConfig, device: str) -> str:
    """Returns the name of the T3 backend. Raises InvalidInput if it does not support the precision or the device."""
    on_gpu = device.startswith("cuda")
    name = _automatic_t3(config, on_gpu) if config.t3 == "auto" else config.t3
    if config.t3_dtype not in _T3_DTYPES_OF[name]:
        raise unsupported("t3_dtype", config.t3_dtype, f"T3 on {name}", ", ".join(_T3_DTYPES_OF[name]))
    if name == "onnx" and on_gpu:
        raise unsupported("t3", name, "a GPU", "vllm, torch_graphs or torch")
    return name


def _automatic_t3(config: EngineConfig, on_gpu: bool) -> str:
    """Returns the fastest backend.

    On a CPU, the compiled kernels under torch read weights in float16, once for all streams. Without them, a single
    stream's step is shorter on ONNX Runtime; for two streams or more, torch reads the weights once for all.
    """
    if on_gpu:
        return "vllm" if backend.installed() else "torch_graphs"
    if config.t3_dtype == "int8":
        return "torch" if int8_supported() else "onnx"
    if config.max_streams == 1 and not fp16_supported():
        return "onnx"
    return "torch"


def _t3_weights(config: EngineConfig, device: str) -> WeightFormat:
    """How T3 on torch keeps its weights. Raises InvalidInput if what is required is not possible."""
    dtype = config.t3_dtype
    on_cpu = device == "cpu"
    possible = {"float16": on_cpu and fp16_supported(), "int8": on_cpu and int8_supported()}
    if not possible.get(dtype, True):
        needs = "the compiled kernels" if dtype == "int8" else "the compiled kernels or the CPU's f16c"
        where = f"torch without {needs}" if on_cpu else "torch on a GPU"
        raise unsupported("t3_dtype", dtype, where, "auto or float32")
    if dtype == "int8":
        return "int8"
    return "float16" if possible["float16"] and dtype != "float32" else "float32"


def tensor_tables(checkpoint: Checkpoint) -> dict[Path, list[tuple[str, dict[str, Shape]]]]:
    """Returns, by file, each net's prefix there and the names and shapes of its tensors."""
    spec = checkpoint.spec
    in_s3gen_file = (flow, vocoder_weights, tokenizer, xvector)
    return {
        checkpoint.t3_path: [("", expected_t3_tensors(spec))],
        checkpoint.s3gen_path: [(part.PREFIX, part.expected_tensors(spec)) for part in in_s3gen_file],
        checkpoint.voice_encoder_path: [("", speaker.expected_tensors(spec))],
    }


def _for_family(config: EngineConfig, checkpoint: Checkpoint, device: str) -> EngineConfig:
    """The configuration with the T3 backend of the model's family, if it has one alone on this device.

    Raises InvalidInput for options that the family does not support.
    """
    spec = checkpoint.spec
    if not spec.is_llama:
        if config.lora:
            raise unsupported("lora", str(config.lora[0]), spec.name, "no adapter")
        return config
    if config.t3 not in ("auto", "torch", "vllm"):
        raise unsupported("t3", config.t3, spec.name, "auto, torch or vllm")
    if config.attention != "free":
        raise unsupported("attention", config.attention, spec.name, "free")
    on_vllm = device.startswith("cuda") and backend.installed() and config.t3_dtype in ("auto", "float16")
    if config.t3 == "auto" and not on_vllm:
        return replace(config, t3="torch")
    return config


def _check_choices(config: EngineConfig) -> None:
    """Raises InvalidInput for an unknown name, and for options that cannot be combined."""
    for option in fields(config):
        name, value, choices = option.name, getattr(config, option.name), option.metadata["choices"]
        if choices is not None and isinstance(value, str) and value not in choices:
            allowed = ", ".join(choices)
            message = f"{name} is {value!r}; it must be one of {allowed}."
            raise InvalidInput(name, message, f"{name.upper()}_UNKNOWN", value=repr(value), allowed=allowed)
    on_gpu = (resolve_device("auto") if config.device == "auto" else config.device).startswith("cuda")
    in_torch = config.s3gen == "torch" or (config.s3gen == "auto" and not on_gpu)
    if config.strict_reference and config.decode == "cached":
        raise unsupported("decode", "cached", "strict_reference", "auto or reference")
    if config.strict_reference and config.t3_dtype == "int8":
        raise unsupported("t3_dtype", "int8", "strict_reference", "auto, float32 or float16")
    graphed = on_gpu and config.s3gen in ("auto", "torch_graphs")
    if config.decode == "cached" and config.s3gen in ("torch_graphs", "tensorrt") and not graphed:
        where = f"S3Gen on {config.s3gen}" + ("" if on_gpu else " without a GPU")
        raise unsupported("decode", "cached", where, "reference")
    if config.s3gen_dtype == "float16" and (in_torch or (config.decode == "cached" and not graphed)):
        where = "S3Gen on torch" if in_torch else "cached decoding"
        raise unsupported("s3gen_dtype", "float16", where, "auto or float32")
