"""The check of an exported graph: ONNX Runtime against torch, by frames and by energy.

Only a row's own frames are compared, not its pad.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import nn

from engines.model_spec import MEL_HOP_SAMPLES
from engines.onnx.export_cache import ExportError
from engines.s3gen.export.graphs import VOCODER, Graph, Port, random_inputs, run_torch

if TYPE_CHECKING:
    import onnxruntime as ort

F32 = npt.NDArray[np.float32]

# per frame, relative; see frame_error
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}
ENERGY_TOLERANCE_DB = 0.5
# The error of a frame quieter than this share of the row's mean level is relative to that share: an error that cannot
# be heard beside the neighbours must not fail an engine. For energy the share is larger.
_QUIET_SHARE = 0.1
_QUIET_SHARE_ENERGY = 0.3
_EXTREME_LOUDNESS = 12.0  # mels from -29 to 19 (speech: -12 to 3); noise twelve times as large
_CASES = {"tokens": ([13, 5], [1], [30, 30, 17]), "frames": ([26, 11], [2], [60, 60, 33])}


@dataclass(frozen=True)
class CheckReport:
    """The largest errors of all comparisons."""

    precision: str
    frame_error: float
    energy_db: float
    compared_rows: int
    finite: bool

    def raise_if_bad(self, name: str) -> None:
        """Raises ExportError if a bound was missed, and says which."""
        if not self.finite:
            raise ExportError(f"Graph {name} ({self.precision}) gives NaN or infinity on finite inputs.")
        if self.frame_error > TOLERANCE[self.precision] or self.energy_db > ENERGY_TOLERANCE_DB:
            raise ExportError(
                f"Graph {name} ({self.precision}) is off by {self.frame_error:.2g} of a frame (allowed "
                f"{TOLERANCE[self.precision]:.2g}) and {self.energy_db:.2g} dB (allowed {ENERGY_TOLERANCE_DB})."
            )

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "tolerance": TOLERANCE[self.precision], "energy_tolerance_db": ENERGY_TOLERANCE_DB}


def check_graph(
    graph: Graph, net: nn.Module, path: Path, *, padded: bool, precision: str, threads: int = 1
) -> CheckReport:
    """Run ONNX's checker and shape inference, then ONNX Runtime against `net` on several batches and on extremes.

    Raises ExportError if the file is not valid ONNX; a bad result is in the report.
    """
    from engines.onnx.session import SessionSettings, open_session

    _check_file(path)
    session = open_session(path, SessionSettings(("cpu",), threads))
    ports = graph.ports(padded=padded)
    error, energy, rows, finite = 0.0, 0.0, 0, True
    for seed, case in enumerate(_CASES[graph.time]):
        lengths = list(case) if padded else [max(case)] * len(case)
        arrays = random_inputs(graph, lengths, seed)
        for port, ours, theirs in _outputs(graph, session, net, arrays, ports):
            for row, length in enumerate(lengths_of_rows(graph, port, lengths)):
                a, b = (frames_of(graph, port, out[row], length) for out in (ours, theirs))
                error, energy = max(error, frame_error(a, b)), max(energy, energy_error_db(a, b))
                finite = finite and bool(np.isfinite(a).all())
                rows += 1
    return CheckReport(precision, error, energy, rows, finite and _finite_on_extremes(graph, session, padded=padded))


def _outputs(
    graph: Graph, session: ort.InferenceSession, net: nn.Module, arrays: dict[str, Any], ports: tuple[Port, ...]
) -> Iterator[tuple[Port, F32, F32]]:
    """Each output, with ONNX Runtime's and torch's values for the same inputs.

    The vocoder's waveform is compared at the same f0: its phase is a sum over f0, so rounding in the last bit of f0
    moves samples by 1e-4 within a second in any two implementations, inaudibly.
    """
    ours, theirs = _run_both(graph, session, net, arrays, ports)
    if graph.name == VOCODER.name:
        f0_hz = len(graph.outputs) - 1
        yield graph.outputs[f0_hz], ours[f0_hz], theirs[f0_hz]
        settled = {**arrays, "fixed_f0_hz": theirs[f0_hz], "fixed_frames": arrays[graph.lengths]}
        ours, theirs = _run_both(graph, session, net, settled, ports)
    yield from zip(graph.outputs, ours, theirs, strict=True)


def _run_both(
    graph: Graph, session: ort.InferenceSession, net: nn.Module, arrays: dict[str, Any], ports: tuple[Port, ...]
) -> tuple[Sequence[F32], Sequence[F32]]:
    return session.run(None, {port.name: arrays[port.name] for port in ports}), run_torch(net, arrays, ports)


def _check_file(path: Path) -> None:
    import onnx  # S3Gen on a GPU compares runtimes without it

    try:
        onnx.checker.check_model(str(path), full_check=True)  # full: shape inference as well
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path.name} is not a valid ONNX graph: {error}") from error


def _finite_on_extremes(graph: Graph, session: ort.InferenceSession, *, padded: bool) -> bool:
    """Loud, silent and constant inputs."""
    lengths = [max(_CASES[graph.time][0])] * 2
    for loudness in (_EXTREME_LOUDNESS, 0.0):
        arrays = random_inputs(graph, lengths, seed=7, loudness=loudness)
        feeds = {port.name: arrays[port.name] for port in graph.ports(padded=padded)}
        outputs: list[F32] = session.run(None, feeds)
        if not all(np.isfinite(output).all() for output in outputs):
            return False
    return True


def lengths_of_rows(graph: Graph, port: Port, lengths: Sequence[int]) -> list[int]:
    """The lengths of a port's rows, from those of the batch."""
    return list(lengths) * (graph.lanes if port.axes[0] == "rows" else 1)


def frames_of(graph: Graph, port: Port, row: F32, length: int) -> F32:
    """One row of an output as (frames, values), cut to what the row owns."""
    sizes = graph.sizes(1, length)
    if "samples" in port.axes:
        return row[: sizes["samples"]].reshape(-1, MEL_HOP_SAMPLES)
    for axis in {"frames", "tokens"}.intersection(port.axes):
        return np.moveaxis(row, port.axes.index(axis) - 1, 0)[: sizes[axis]].reshape(sizes[axis], -1)
    return row.reshape(1, -1)


def frame_error(ours: F32, theirs: F32) -> float:
    """The worst frame's relative error: |ours - theirs| over |theirs|, both as root mean squares.

    NaN counts as infinite.
    """
    level = _levels(theirs)
    floor = _QUIET_SHARE * np.sqrt(np.square(level).mean()) + 1e-30
    worst = float((_levels(ours - theirs) / np.maximum(level, floor)).max())
    return worst if np.isfinite(worst) else float("inf")


def energy_error_db(ours: F32, theirs: F32) -> float:
    """The worst frame's difference in level, in decibels, among frames that are not quiet."""
    level = _levels(theirs)
    audible = level > _QUIET_SHARE_ENERGY * np.sqrt(np.square(level).mean())
    if not audible.any():
        return 0.0
    worst = float(np.abs(20 * np.log10(np.maximum(_levels(ours)[audible], 1e-30) / level[audible])).max())
    return worst if np.isfinite(worst) else float("inf")


def _levels(frames: F32) -> npt.NDArray[np.float64]:
    levels: npt.NDArray[np.float64] = np.sqrt(np.square(frames.astype(np.float64)).mean(axis=1))
    return levels
