"""`mynah-engines validate`: the checklist of a build, one line each: passed, FAILED, or absent with the reason.

Goals of time and memory are judged on a GPU alone; elsewhere the line shows the figure.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from engines.api import AudioChunk, Segment, SegmentDone, SpeechStream
from engines.checkpoints.checkpoint import Checkpoint, open_checkpoint
from engines.config import EngineConfig
from engines.errors import EngineBusy, EngineError
from engines.factory import build_engine
from engines.model_spec import SAMPLE_RATE_HZ, SAMPLES_PER_TOKEN
from engines.pipeline import Pipeline
from engines.s3gen.parity_check import COMPOSITIONS, GPU_COMPOSITIONS, validate
from engines.s3gen.runtime import Runtime, WaveformRuntime
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.tools.engine_times import first_chunk_seconds, t3_seconds
from engines.tools.goals import GOALS, MOST_MEMORY_GB, judged_here
from engines.tools.s3gen_times import WINDOWS, Timed, measure, window_calls
from engines.tools.torch_profiler import device_used_mb, peak_host_mb

PASSED, FAILED, ABSENT = "passed", "FAILED", "absent"
NAMES = ("loads", "builds", "valid audio", "quality", "latency", "memory", "streaming", "batch")
_TEXT = "The quick brown fox jumps over the lazy dog, and the dog does not mind at all."
_TOGETHER = 4
_SPEECH_TOKENS = 60
_OPEN_TRIES, _OPEN_PAUSE_S = 300, 0.1
_MAX_DIFFERENCE = 1e-2  # of samples in [-1, 1] between a stream alone and beside others
_LATENCY_RATIO = 0.7  # of the public ports' time: 30 % less


@dataclass(frozen=True)
class Line:
    """One line of the checklist."""

    name: str
    status: str
    note: str


class Absent(Exception):
    """What a line would check is not here; the message says why."""


class Checklist:
    """The lines, made one after the other; a line that raises has failed, and the others go on."""

    def __init__(self, config: EngineConfig, repeats: int) -> None:
        self.lines: list[Line] = []
        self._config, self._repeats = config, repeats

    def run(self) -> list[Line]:
        """All lines, in the order of NAMES; memory is measured when all else has run."""
        with asyncio.Runner() as runner:
            engine = self._line("loads", self._load)
            self._line("builds", self._build)
            for name, check in {
                "valid audio": self._valid_audio,
                "quality": self._quality,
                "latency": self._latency,
                "streaming": self._streaming,
                "batch": self._batch,
                "memory": self._memory,
            }.items():
                if engine is None:
                    self.lines.append(Line(name, FAILED, "the engine does not load"))
                else:
                    self._line(name, partial(_awaited, runner, check, engine))
            if engine is not None:
                runner.run(engine.close())
        return sorted(self.lines, key=lambda line: NAMES.index(line.name))

    def _line(self, name: str, check: Callable[[], tuple[Any, str]]) -> Any:
        try:
            result, note = check()
        except Absent as why:
            self.lines.append(Line(name, ABSENT, str(why)))
            return None
        except Exception as error:
            self.lines.append(Line(name, FAILED, f"{type(error).__name__}: {error}"[:400]))
            return None
        self.lines.append(Line(name, PASSED, note))
        return result

    def _load(self) -> tuple[Pipeline, str]:
        began_s = time.perf_counter()
        engine = build_engine(self._config)
        info = engine.info
        took = f"{time.perf_counter() - began_s:.1f} s"
        return engine, f"{info.model}, T3 on {info.t3_runtime}, S3Gen on {info.s3gen_runtime}, {took}"

    def _build(self) -> tuple[None, str]:
        """The graphs that engines are built from, exported and checked; the engines where TensorRT and a GPU are."""
        try:
            from engines.s3gen.export.export import ExportSettings, export
            from engines.s3gen.gpu.build import BuildSettings, build_engines, engine_folder, engine_graphs
        except ModuleNotFoundError as error:
            raise Absent(f"{error.name} is not installed") from error
        from engines.s3gen.gpu.cuda import CudaUnavailable, probe
        from engines.s3gen.gpu.trt import TensorRTMissing, load_tensorrt

        checkpoint = open_checkpoint(self._config.model, cache_dir=self._config.cache_dir, device="cpu")
        names = engine_graphs(checkpoint.spec.flow)
        settings = ExportSettings(names, True, "fp32", self._config.threads or 2)
        exported = export(checkpoint, settings, cache_dir=self._config.cache_dir)
        graphs = f"{len(names)} graphs exported and equal to torch"
        try:
            gpu, trt = probe(), load_tensorrt()
        except (CudaUnavailable, TensorRTMissing) as why:
            return None, f"{graphs}; no engines: {str(why)[:100]}"
        began_s = time.perf_counter()
        target = BuildSettings(gpu.architecture, gpu=gpu.name, graphs=names)
        build_engines(exported, engine_folder(self._config.cache_dir), target, trt)
        return None, f"{graphs}; {trt.name} {trt.version} engines in {time.perf_counter() - began_s:.0f} s"

    async def _valid_audio(self, engine: Pipeline) -> str:
        spoken = await _speak(engine, 1)
        audio = spoken.audio
        _require(bool(np.isfinite(audio).all()), "samples are not finite")
        _require(bool((np.abs(audio) <= 1.0).all()), "samples exceed 1")
        _require(float(np.abs(audio).max()) > 1e-3, "it is silent")
        least = spoken.speech_tokens * SAMPLES_PER_TOKEN
        _require(len(audio) >= least, f"{len(audio)} samples for {spoken.speech_tokens} speech tokens")
        return f"{len(audio) / SAMPLE_RATE_HZ:.1f} s, peak {np.abs(audio).max():.2f}"

    async def _quality(self, engine: Pipeline) -> str:
        """The runtime against torch in float32 on the CPU; torch there against the exported graphs."""
        runtime = engine.stages.s3gen.runtime
        if isinstance(runtime, WaveformRuntime):
            raise Absent("this model's S3Gen decodes whole segments and has no stages to compare")
        checkpoint = open_checkpoint(self._config.model, cache_dir=self._config.cache_dir, device="cpu")
        precision = "fp16" if self._config.s3gen_dtype == "float16" or judged_here(engine.info.device) else "fp32"
        sizes = GPU_COMPOSITIONS if judged_here(engine.info.device) else COMPOSITIONS
        itself = runtime.name == TorchRuntime.name and not judged_here(engine.info.device)
        trusted = self._graphs(checkpoint) if itself else TorchRuntime(checkpoint)
        report = validate(runtime, trusted, precision=precision, compositions=sizes)
        _require(report.passed, str(report))
        return str(report)

    def _graphs(self, checkpoint: Checkpoint) -> Runtime:
        try:
            from engines.s3gen.runtimes.onnx import OnnxRuntime
        except ModuleNotFoundError as error:
            raise Absent(f"torch on a CPU is the reference, and {error.name} is not installed to check it") from error
        return OnnxRuntime(checkpoint, threads=self._config.threads or 2, cache_dir=self._config.cache_dir)

    async def _latency(self, engine: Pipeline) -> str:
        """At least 30 % less than the public ports' times, for S3Gen, T3 and both together."""
        runtime = engine.stages.s3gen.runtime
        measured = {
            "T3, ms": Timed.of((await t3_seconds(engine, self._repeats))[0]).p50_ms,
            "pipeline, ms": Timed.of(await first_chunk_seconds(engine, self._repeats)).p50_ms,
        }
        if not isinstance(runtime, WaveformRuntime):
            calls = window_calls(runtime, WINDOWS["hop12"]).values()
            measured["S3Gen, ms"] = sum(measure(call, self._repeats).p50_ms for call in calls)
        shown = ", ".join(f"{name.split(',')[0]} {ms:.0f} ms" for name, ms in measured.items())
        if not judged_here(engine.info.device):
            raise Absent(f"judged on a GPU; {engine.info.device}: {shown}")
        late = [name for name, ms in measured.items() if ms > _LATENCY_RATIO * GOALS[name].before]
        _require(not late, f"{shown}; less than 30 % saved: {', '.join(late)}")
        return shown

    async def _memory(self, engine: Pipeline) -> str:
        used_mb = device_used_mb()
        used_gb = (peak_host_mb() if used_mb is None else used_mb) / 1000
        shown = f"{used_gb:.1f} GB with up to {engine.info.limits.max_streams} streams"
        if not judged_here(engine.info.device):
            raise Absent(f"judged on a GPU; {engine.info.device}: {shown}")
        _require(used_gb <= MOST_MEMORY_GB, f"{shown}, above {MOST_MEMORY_GB:g}")
        return shown

    async def _streaming(self, engine: Pipeline) -> str:
        spoken = await _speak(engine, 1)
        if isinstance(engine.stages.s3gen.runtime, WaveformRuntime):
            raise Absent("this model's S3Gen decodes whole segments")
        _require(len(spoken.chunks) > 1, "all audio came in one chunk")
        first = len(spoken.chunks[0]) / SAMPLE_RATE_HZ
        _require(first < len(spoken.audio) / SAMPLE_RATE_HZ / 2, "the first chunk holds half of the audio")
        return f"{len(spoken.chunks)} chunks, the first of {first:.2f} s"

    async def _batch(self, engine: Pipeline) -> str:
        """Streams beside each other say what each says alone; on a GPU, where rounding may change a draw, all speak."""
        count = min(_TOGETHER, engine.info.limits.max_streams)
        streams = [await _opened(engine, seed) for seed in range(count)]
        together = await asyncio.gather(*(_spoken(stream) for stream in streams))
        _require(all(len(spoken.audio) for spoken in together), "a stream has no audio")
        if judged_here(engine.info.device):
            return f"{count} streams spoke together"
        differences = []
        for seed, beside in enumerate(together):
            alone = await _speak(engine, seed)
            _require(len(alone.audio) == len(beside.audio), f"stream {seed} has another length beside others")
            differences.append(float(np.abs(alone.audio - beside.audio).max()))
        _require(max(differences) <= _MAX_DIFFERENCE, f"a stream beside others differs by {max(differences):.2g}")
        return f"{count} streams together differ by at most {max(differences):.1g} from each alone"


def _awaited(
    runner: asyncio.Runner, check: Callable[[Pipeline], Coroutine[Any, Any, str]], engine: Pipeline
) -> tuple[None, str]:
    return None, runner.run(check(engine))


@dataclass(frozen=True)
class _Spoken:
    chunks: list[np.ndarray[Any, np.dtype[np.float32]]]
    speech_tokens: int

    @property
    def audio(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.concatenate(self.chunks) if self.chunks else np.zeros(0, np.float32)


async def _speak(engine: Pipeline, seed: int) -> _Spoken:
    return await _spoken(await _opened(engine, seed))


async def _opened(engine: Pipeline, seed: int) -> SpeechStream:
    """A stream. A device that was late a moment ago refuses one; while nothing speaks that passes."""
    if engine.default_voice is None:
        raise Absent("the model has no built-in voice")
    sampling = replace(engine.info.sampling, seed=seed, max_speech_tokens=_SPEECH_TOKENS)
    for _ in range(_OPEN_TRIES):
        with contextlib.suppress(EngineBusy):
            return await engine.open(engine.default_voice, sampling)
        await asyncio.sleep(_OPEN_PAUSE_S)
    return await engine.open(engine.default_voice, sampling)


async def _spoken(stream: SpeechStream) -> _Spoken:
    chunks, tokens = [], 0
    try:
        async for event in stream.speak(Segment(0, _TEXT)):
            if isinstance(event, AudioChunk):
                chunks.append(np.asarray(event.samples, np.float32))
            elif isinstance(event, SegmentDone):
                tokens = event.stats.speech_tokens
    finally:
        await stream.close()
    return _Spoken(chunks, tokens)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise EngineError(otherwise)
