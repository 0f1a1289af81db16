"""S3Gen on ONNX Runtime: the exported graphs on the configured providers, with inputs and outputs bound to memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from engines.checkpoints.checkpoint import Checkpoint
from engines.model_spec import MEL_FRAMES_PER_TOKEN, MEL_HOP_SAMPLES
from engines.onnx.session import BoundSession, SessionSettings, open_session
from engines.s3gen.export.export import Export, ExportSettings, export
from engines.s3gen.export.graphs import CFM_STEP, ENCODER, GRAPHS, VOCODER, Graph
from engines.s3gen.gpu.buckets import buckets
from engines.s3gen.nets.cfm import euler_times
from engines.s3gen.runtime import F32, FlowBatch, Runtime, VocoderBatch, VocoderResult
from engines.s3gen.stopwatch import Stopwatch

# The step graph, run for each step, not all steps in one graph: ONNX Runtime packs the weights of every matrix product,
# and the unrolled graph would hold them once for each step.
RUNTIME_GRAPHS = (ENCODER.name, CFM_STEP.name, VOCODER.name)


def cpu_graphs(checkpoint: Checkpoint, *, cache_dir: Path | None = None, threads: int = 2) -> Export:
    """The float32 graphs for the CPU, exported if necessary; on a GPU machine they are the parity check's reference."""
    return export(checkpoint, ExportSettings(RUNTIME_GRAPHS, False, "fp32", threads), cache_dir=cache_dir)


class OnnxRuntime:
    """A Runtime on ONNX Runtime.

    On the CPU rows of different lengths are computed one after the other on graphs without masks; with a GPU provider
    a batch is one padded call. Between the encoder and the Euler steps all data stays on the device.
    Raises ExportError, CheckpointError, and ProviderMissing if a named provider is not installed.
    """

    name = "onnx"

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        providers: tuple[str, ...] = ("cpu",),
        threads: int,
        cache_dir: Path | None = None,
        precision: str = "fp32",
        device_id: int = 0,
        trt_fp16: bool = False,
        trt_cache_dir: Path | None = None,
        vocoder: Runtime | None = None,
    ) -> None:
        """Makes the export if there is none.

        cache_dir: as for `open_checkpoint`; exports lie below it
        trt_fp16, trt_cache_dir: the precision of the engines that ONNX Runtime's TensorRT provider builds, and their
            folder (by default beside the export)
        vocoder: a runtime whose vocoder is used instead of the graph; on a CPU torch's is a tenth faster in float32
        """
        SessionSettings(providers, threads)  # a wrong name fails here, before a minute of exporting
        self._padded = providers != ("cpu",)
        settings = ExportSettings(RUNTIME_GRAPHS, self._padded, precision, threads)
        made = export(checkpoint, settings, cache_dir=cache_dir)
        session = SessionSettings(providers, threads, device_id, trt_cache_dir or made.folder / "engines", trt_fp16)
        self._encoder, self._step = (bound(made, name, session) for name in (ENCODER.name, CFM_STEP.name))
        self._render: Callable[[VocoderBatch], VocoderResult]
        if vocoder is None:
            self._render = OnnxVocoder(bound(made, VOCODER.name, session), padded=self._padded)
        else:
            self._render = vocoder.vocoder
        self._times = euler_times(checkpoint.spec.flow.guided_steps)
        self._cfm = Stopwatch()

    @property
    def cfm_s(self) -> float | None:
        """As Runtime.cfm_s; a GPU may still compute the encoder when its call returns."""
        return None if self._padded else self._cfm.total_s

    def flow(self, batch: FlowBatch) -> F32:
        """As Runtime.flow."""
        mel = np.zeros(batch.noise.shape, np.float32)
        for rows, tokens in _calls(batch.token_lengths, self._padded):
            mu, speaker = self._encode(batch, rows, tokens)
            with self._cfm:
                mel[rows, : tokens * MEL_FRAMES_PER_TOKEN] = self._solve(batch, rows, mu, speaker)
        return mel

    def parts(self, batch: FlowBatch) -> dict[str, Callable[[], object]]:
        """As s3gen_times.InParts."""
        rows, tokens = slice(None), batch.tokens.shape[1]
        mu, speaker = self._encode(batch, rows, tokens)
        return {
            "encoder": lambda: self._encode(batch, rows, tokens)[0].numpy(),
            "cfm": lambda: self._solve(batch, rows, mu, speaker),
        }

    def _solve(self, batch: FlowBatch, rows: slice, mu: ort.OrtValue, speaker: ort.OrtValue) -> F32:
        frames, put = mu.shape()[1], self._step.put
        inputs = {"mu": mu, "speaker": speaker, "prompt_mel": put(batch.prompt_mel[rows, :frames])}
        if self._padded:
            inputs["lengths"] = put(batch.token_lengths[rows] * MEL_FRAMES_PER_TOKEN)
        x = put(batch.noise[rows, :frames])
        for times in pairwise(self._times):
            t, r = (put(np.full(x.shape()[0], time, np.float32)) for time in times)
            (x,) = self._step({"x": x, "t": t, "r": r, **inputs})
        mel: F32 = x.numpy()
        return mel

    def _encode(self, batch: FlowBatch, rows: slice, tokens: int) -> tuple[ort.OrtValue, ort.OrtValue]:
        put = self._encoder.put
        inputs = {"tokens": put(batch.tokens[rows, :tokens]), "x_vector": put(batch.x_vector[rows])}
        if self._padded:
            inputs["token_lengths"] = put(batch.token_lengths[rows])
        mu, speaker = self._encoder(inputs)
        return mu, speaker

    def vocoder(self, batch: VocoderBatch) -> VocoderResult:
        """As Runtime.vocoder."""
        return self._render(batch)


class OnnxVocoder:
    """The vocoder's graph on batches."""

    def __init__(self, session: BoundSession, *, padded: bool) -> None:
        self._session, self._padded = session, padded

    def __call__(self, batch: VocoderBatch) -> VocoderResult:
        """As Runtime.vocoder."""
        waveform, f0_hz = np.zeros(batch.noise.shape, np.float32), np.zeros(batch.mel.shape[:2], np.float32)
        put = self._session.put
        for rows, frames in _calls(batch.lengths, self._padded):
            samples = frames * MEL_HOP_SAMPLES
            inputs = {
                "mel": put(batch.mel[rows, :frames]),
                "fixed_f0_hz": put(batch.fixed_f0_hz[rows, :frames]),
                "fixed_frames": put(batch.fixed_frames[rows]),
                "phase_cycles": put(batch.phase_cycles[rows]),
                "harmonic_cycles": put(batch.harmonic_cycles[rows]),
                "noise": put(batch.noise[rows, :samples]),
            }
            if self._padded:
                inputs["lengths"] = put(batch.lengths[rows])
            wave, f0 = self._session(inputs)
            waveform[rows, :samples], f0_hz[rows, :frames] = wave.numpy(), f0.numpy()
        return VocoderResult(waveform, f0_hz)


def profile_shapes(graph: Graph) -> tuple[str, str, str]:
    """Shapes of the graph's inputs as ONNX Runtime's TensorRT provider reads them: smallest, usual, largest.

    A profile bounds rows and lengths independently, and the longest windows never come many at a time: the largest rows
    and lengths are those of the buckets but the last, so that scratch memory stays small. Longer windows build one more
    engine once, which its cache keeps.
    """
    sizes = buckets(graph)[:-1]
    rows = min(b.batch[0] for b in sizes), sizes[-1].batch[1], max(b.batch[2] for b in sizes)
    lengths = min(b.length[0] for b in sizes), sizes[1].length[1], max(b.length[2] for b in sizes)
    low, usual, high = (
        ",".join(f"{port.name}:{'x'.join(map(str, port.shape(graph.sizes(batch, length))))}" for port in graph.inputs)
        for batch, length in zip(rows, lengths, strict=True)
    )
    return low, usual, high


def _calls(lengths: npt.NDArray[np.int64], padded: bool) -> Iterator[tuple[slice, int]]:
    """The rows of each call, and the length that they are cut to."""
    if padded or (lengths == lengths[0]).all():
        yield slice(None), int(lengths.max())
        return
    for row, length in enumerate(lengths):
        yield slice(row, row + 1), int(length)


def bound(made: Export, graph: str, settings: SessionSettings) -> BoundSession:
    """A session on one of an export's graphs, for every size of a GPU's buckets."""
    if "tensorrt" in settings.providers and graph in GRAPHS:
        settings = replace(settings, profile_shapes=profile_shapes(GRAPHS[graph]))
    return BoundSession(open_session(made.path(graph), settings), settings)
