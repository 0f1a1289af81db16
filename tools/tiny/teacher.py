"""The teacher: hibari's net with the durations it chooses, and a second voice made from the first.

Knows the graph of hibari-tts 0.2.1 (the node that rounds and clips the durations) and nothing of codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
FRAME_S = 0.025  # of durations
F0_FRAME_S = 0.0125
RATE_HZ = 24_000
_DURATIONS = "/Clip_output_0"  # (L,): frames of each phoneme id, at least one
_VOICED_ABOVE_HZ = 60.0
_WORLD_FRAME_S = 0.005
_LOWER, _LONGER = 0.58, 1 / 0.86  # the second voice's pitch and vocal tract, in the first's


@dataclass(frozen=True)
class Rendered:
    """24 kHz samples, frames of each phoneme id, and f0 of each 12.5 ms, 0 where unvoiced."""

    samples: F32
    frames: npt.NDArray[np.int64]
    f0_hz: F32


class Teacher:
    def __init__(self) -> None:
        from hibari import Hibari  # type: ignore[import-not-found]

        self._hibari = Hibari()
        self.g2p = self._hibari.g2p
        self.vocabulary: dict[str, int] = self._hibari.vocab
        path = Path(self._hibari.model_path)
        self._timing, self._whole = _session(path, whole=False), _session(path, whole=True)

    def timed(self, ids: list[int]) -> tuple[npt.NDArray[np.int64], F32]:
        """Frames of each id and f0, without a waveform: a twentieth of the work."""
        frames, f0_hz = self._timing.run(["durations", "f0"], _feed(ids))
        return frames.astype(np.int64), _voiced(f0_hz[0])

    def spoken(self, ids: list[int], seed: int) -> Rendered:
        from hibari import dsp

        *parts, f0_hz, frames = self._whole.run(None, _feed(ids))
        samples = dsp.synth(*(part[0] for part in parts), f0_hz[0], np.random.default_rng(seed))
        return Rendered(samples, frames.astype(np.int64), _voiced(f0_hz[0]))


def lowered(said: Rendered) -> Rendered:
    """The same words at the same times by another speaker: WORLD's envelopes with the frequency axis warped."""
    import pyworld  # type: ignore[import-not-found]

    samples = said.samples.astype(np.float64)
    count = len(samples) * 1000 // int(1000 * _WORLD_FRAME_S * RATE_HZ) + 1
    times_s: F64 = np.arange(count, dtype=np.float64) * _WORLD_FRAME_S
    f0_hz = _f0_at(said.f0_hz, times_s)
    envelope = pyworld.cheaptrick(samples, f0_hz, times_s, RATE_HZ)
    aperiodic = pyworld.d4c(samples, f0_hz, times_s, RATE_HZ)
    made = pyworld.synthesize(
        f0_hz * _LOWER, _stretched(envelope), _stretched(aperiodic).clip(0, 1), RATE_HZ, 1000 * _WORLD_FRAME_S
    )
    padded = np.zeros(len(samples), np.float32)
    padded[: len(made)] = made[: len(samples)]
    return Rendered(padded, said.frames, said.f0_hz * np.float32(_LOWER))


def _stretched(spectra: F64) -> F64:
    """(frames, bins) of a longer vocal tract: all formants lie lower."""
    bins = spectra.shape[1]
    source = np.minimum(np.arange(bins) * _LONGER, bins - 1)
    low = source.astype(int)
    high, share = np.minimum(low + 1, bins - 1), source - low
    logs = np.log(spectra + 1e-16)
    return np.ascontiguousarray(np.exp(logs[:, low] * (1 - share) + logs[:, high] * share))


def _f0_at(f0_hz: F32, times_s: F64) -> F64:
    """f0 at any times: interpolated where both neighbours are voiced."""
    nearest = f0_hz[np.minimum(np.rint(times_s / F0_FRAME_S).astype(int), len(f0_hz) - 1)].astype(np.float64)
    between = np.interp(times_s, np.arange(len(f0_hz)) * F0_FRAME_S, f0_hz)
    return np.where((nearest > 0) & (between > 0.9 * nearest), between, nearest)


def _voiced(f0_hz: F32) -> F32:
    return np.where(f0_hz > _VOICED_ABOVE_HZ, f0_hz, 0).astype(np.float32)


def _feed(ids: list[int]) -> dict[str, Any]:
    return {"ids": np.array([ids], np.int64), "speed": np.ones(1, np.float32)}


def _session(path: Path, *, whole: bool) -> Any:
    """The graph with its durations as an output. Not whole: with f0 beside it and nothing that only sound needs."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    model = onnx.load(path)
    graph = model.graph
    kept = [out for out in graph.output if whole or out.name == "f0"]
    del graph.output[:]
    graph.output.extend([*kept, helper.make_tensor_value_info("durations", TensorProto.FLOAT, None)])
    graph.node.append(helper.make_node("Cast", [_DURATIONS], ["durations"], to=TensorProto.FLOAT))
    _prune(graph)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _prune(graph: Any) -> None:
    """Leave the nodes that an output needs."""
    wanted, kept = {out.name for out in graph.output}, []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
