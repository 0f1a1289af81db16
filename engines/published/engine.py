"""Puts an engine together from the published graphs: the same pipeline, with stages that run on them."""

from __future__ import annotations

from pathlib import Path

from engines.api import NULL_OBSERVER, EngineInfo, Limits, Observer
from engines.config import EngineConfig
from engines.device import cpu_threads, use_threads
from engines.errors import invalid_value
from engines.model_spec import TURBO
from engines.onnx.session import SessionSettings
from engines.pipeline import Pipeline, Stages
from engines.published.graphs import NAME, open_published
from engines.published.language import PublishedT3Backend
from engines.published.speech import PublishedVoiceBuilder, PublishedWaveforms
from engines.s3gen.streaming.batcher import WindowBatcher
from engines.s3gen.streaming.schedule import Schedule, ScheduleStep
from engines.text import TextTokenizer, normalize

NOTICE = (
    "These are the published ONNX graphs: audio comes a whole segment at a time, because their decoder draws its noise "
    "itself and takes no windows; a repeated seed gives the same speech tokens, not the same samples."
)
_WHOLE_SEGMENT = Schedule("whole_segment", (ScheduleStep(10_000),))
_DEFAULT_VOICE = "default_voice.wav"  # some sets bring one


def assemble_published(config: EngineConfig, folder: Path, observer: Observer = NULL_OBSERVER) -> Pipeline:
    """The engine on the published graphs in `folder`.

    Raises CheckpointError when files, inputs or outputs are missing, InvalidInput for a choice that they leave no room
    for, ProviderMissing.
    """
    _check_choices(config)
    use_threads(config.threads)
    published = open_published(folder)
    settings = SessionSettings(config.providers, config.threads or cpu_threads())
    tokenizer = TextTokenizer(folder, TURBO.t3.text_vocab)

    def encode(text: str) -> tuple[int, ...]:
        return tokenizer.encode(normalize(text, config.max_text_chars_per_segment))

    t3 = PublishedT3Backend(
        published, settings, max_streams=config.max_streams, max_positions=config.max_positions, observer=observer
    )
    runtime = PublishedWaveforms(published, settings)
    builder = PublishedVoiceBuilder(published, settings)
    info = EngineInfo(
        model=NAME,
        device="cpu",
        t3_runtime=t3.name,
        s3gen_runtime=runtime.name,
        limits=Limits(config.max_text_chars_per_segment, 1000, config.max_streams),
        notice=NOTICE,
    )
    batcher = WindowBatcher(runtime, max_batch=1, observer=observer)
    stages = Stages(encode, t3, batcher, _WHOLE_SEGMENT, observer)
    example = folder / _DEFAULT_VOICE
    default_voice = builder.build(example.read_bytes(), "default") if example.is_file() else None
    return Pipeline(info, stages, builder, default_voice)


def _check_choices(config: EngineConfig) -> None:
    """The graphs are both stages at once, in float32 and on ONNX Runtime's CPU provider."""
    allowed = {
        "t3": ("auto", "onnx"),
        "t3_dtype": ("auto", "float32"),
        "s3gen": ("auto", "onnx"),
        "s3gen_dtype": ("auto", "float32"),
        "decode": ("reference",),
        "device": ("auto", "cpu"),
        "providers": (("cpu",),),
    }
    for name, values in allowed.items():
        value = getattr(config, name)
        if value not in values:
            shown = " or ".join(",".join(v) if isinstance(v, tuple) else str(v) for v in values)
            raise invalid_value(name, value, f"{shown} with the published ONNX graphs", "CHOICE_UNSUPPORTED")
