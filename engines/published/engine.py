"""The engine on the published graphs: the pipeline of all engines, with stages that run on these graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engines.api import NULL_OBSERVER, EngineInfo, Limits, Observer
from engines.config import EngineConfig
from engines.device import cpu_threads, use_threads
from engines.errors import InvalidInput
from engines.model_spec import TURBO
from engines.onnx.session import SessionSettings
from engines.pipeline import Pipeline, Stages
from engines.published.graphs import NAME, open_published
from engines.published.language import PublishedNet
from engines.published.speech import PublishedVoiceBuilder, PublishedWaveforms
from engines.s3gen.streaming.batcher import WindowBatcher
from engines.s3gen.streaming.schedule import Schedule, ScheduleStep
from engines.t3.decoder import DecoderLimits
from engines.t3.local_backend import LocalT3Backend
from engines.text.encoder import TextEncoder
from engines.text.tokenizer import TextTokenizer

NOTICE = (
    "These are the published ONNX graphs. Audio comes a whole segment at a time, because their decoder draws its own "
    "noise and takes no windows. A repeated seed gives the same speech tokens, not the same samples."
)
_WHOLE_SEGMENT = Schedule("whole_segment", (ScheduleStep(10_000),))
_DEFAULT_VOICE = "default_voice.wav"  # in some sets


def build_published_engine(config: EngineConfig, folder: Path, observer: Observer = NULL_OBSERVER) -> Pipeline:
    """The engine on the published graphs in `folder`.

    Raises CheckpointError if files, inputs or outputs are missing, InvalidInput for a choice that the graphs do not
    support, and ProviderMissing.
    """
    _check_choices(config)
    use_threads(config.threads)
    published = open_published(folder)
    settings = SessionSettings(config.providers, config.threads or cpu_threads())
    tokenizer = TextTokenizer(folder, TURBO.t3.text_vocab)
    encoder = TextEncoder(tokenizer, TURBO, config.max_text_chars_per_segment)
    limits = DecoderLimits(config.max_streams, config.max_positions)
    t3 = LocalT3Backend(PublishedNet(published, settings), limits, observer)
    runtime = PublishedWaveforms(published, settings)
    builder = PublishedVoiceBuilder(published, settings)
    info = EngineInfo(
        model=NAME,
        device="cpu",
        t3_runtime=t3.name,
        s3gen_runtime=runtime.name,
        limits=Limits(config.max_text_chars_per_segment, 1000, config.max_streams, TURBO.longest_segment_text_tokens),
        notice=NOTICE,
        tags=encoder.tags,
        voice_models=(NAME,),
        word_times_notice="The published ONNX graphs do not give T3's attention, so the times of words are not known.",
    )
    batcher = WindowBatcher(runtime, max_batch=1, observer=observer)
    stages = Stages(encoder, t3, batcher, _WHOLE_SEGMENT, observer, encoder.count_tokens, encoder.max_speech_tokens)
    reference = folder / _DEFAULT_VOICE
    default_voice = builder.build(reference.read_bytes(), "default") if reference.is_file() else None
    return Pipeline(info, stages, builder, default_voice)


def check_published(config: EngineConfig, folder: Path) -> str:
    """Raises as build_published_engine, without reading the weights. Returns the model's name."""
    _check_choices(config)
    open_published(folder)
    TextTokenizer(folder, TURBO.t3.text_vocab)
    return NAME


def _check_choices(config: EngineConfig) -> None:
    """Raises InvalidInput for a choice that the graphs do not support: they run in float32 on ONNX Runtime's CPU
    provider, T3 and S3Gen alike."""
    supported: dict[str, tuple[Any, ...]] = {
        "t3": ("auto", "onnx"),
        "t3_dtype": ("auto", "float32"),
        "s3gen": ("auto", "onnx"),
        "s3gen_dtype": ("auto", "float32"),
        "s3gen_steps": ("auto", "2"),
        "decode": ("auto", "reference"),
        "device": ("auto", "cpu"),
        "providers": (("cpu",),),
    }
    for name, values in supported.items():
        value = getattr(config, name)
        if value not in values:
            allowed = " or ".join(map(_shown, values))
            message = f"{name} is {_shown(value)}; with the published ONNX graphs it must be {allowed}."
            raise InvalidInput(name, message, "CHOICE_UNSUPPORTED", value=_shown(value), allowed=allowed)


def _shown(value: str | tuple[str, ...]) -> str:
    return ",".join(value) if isinstance(value, tuple) else value
