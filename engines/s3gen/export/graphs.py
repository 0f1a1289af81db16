"""S3Gen's graphs: their nets, named inputs and outputs, and random inputs to check them with.

Every graph has two variants: padded (rows of different lengths, with a `lengths` input and masks; for GPUs) and
unpadded (all rows equally long, without masks; for CPUs, where computing the pad costs time).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from engines.checkpoints.checkpoint import Checkpoint
from engines.model_spec import MEL_BANDS, MEL_FRAMES_PER_TOKEN, MEL_HOP_SAMPLES, SPEECH_CODES, X_VECTOR_DIM
from engines.s3gen.nets.cfm import EULER_TIMES, Estimator, step_velocity
from engines.s3gen.nets.flow import load_flow
from engines.s3gen.nets.layers import mask_frames
from engines.s3gen.nets.source import HARMONICS
from engines.s3gen.nets.vocoder_weights import load_vocoder

Arrays = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Port:
    """An input or output: its name, its axes (a name varies, a number does not) and its numpy dtype."""

    name: str
    axes: tuple[str | int, ...]
    dtype: str = "float32"

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in self.axes)


@dataclass(frozen=True)
class Graph:
    """`lengths` names the input with each row's length in units of the `time` axis; `masks` are the other inputs that
    only the padded variant has; `lanes` are the rows of a `rows` axis for each row of the batch."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    lengths: str
    time: str  # the axis of lengths
    masks: tuple[str, ...] = ()
    lanes: int = 1

    def ports(self, *, padded: bool) -> tuple[Port, ...]:
        """The inputs of one of the two variants."""
        return tuple(port for port in self.inputs if padded or port.name not in (self.lengths, *self.masks))

    def sizes(self, batch: int, length: int, prompt_tokens: int = 0, context_tokens: int = 0) -> dict[str, int]:
        """Every axis by name, for rows of `length` tokens or frames behind a cached prompt and context."""
        frames = length * MEL_FRAMES_PER_TOKEN if self.time == "tokens" else length
        tokens = -(-frames // MEL_FRAMES_PER_TOKEN)
        positions = 2 * (prompt_tokens + context_tokens + tokens + _SPARE_POSITIONS)
        in_tokens = {"prompt": prompt_tokens, "context": context_tokens, "position": positions}
        own = {"batch": batch, "tokens": tokens, "frames": frames, "samples": frames * MEL_HOP_SAMPLES}
        if self.lanes > 1:
            own["rows"] = batch * self.lanes
        return {
            **own,
            **{f"{name}_tokens": count for name, count in in_tokens.items()},
            **{f"{name}_frames": count * MEL_FRAMES_PER_TOKEN for name, count in in_tokens.items()},
        }


_SPARE_POSITIONS = 4  # a table of positions may be larger than a call needs
_LENGTHS = Port("lengths", ("batch",), "int64")
_MEL = ("batch", "frames", MEL_BANDS)
_CONDITIONS = (Port("mu", _MEL), Port("speaker", ("batch", MEL_BANDS)), Port("prompt_mel", _MEL), _LENGTHS)

ENCODER = Graph(
    "encoder",
    (
        Port("tokens", ("batch", "tokens"), "int64"),
        Port("token_lengths", ("batch",), "int64"),
        Port("x_vector", ("batch", X_VECTOR_DIM)),
    ),
    (Port("mu", _MEL), Port("speaker", ("batch", MEL_BANDS))),
    "token_lengths",
    "tokens",
)
CFM = Graph("cfm", (Port("noise", _MEL), *_CONDITIONS), (Port("mel", _MEL),), "lengths", "frames")
CFM_STEP = Graph(
    "cfm_step",
    (Port("x", _MEL), *_CONDITIONS, Port("t", ("batch",)), Port("r", ("batch",))),
    (Port("next_x", _MEL),),
    "lengths",
    "frames",
)
VOCODER = Graph(
    "vocoder",
    (
        Port("mel", _MEL),
        _LENGTHS,
        Port("fixed_f0_hz", ("batch", "frames")),
        Port("fixed_frames", ("batch",), "int64"),
        Port("phase_cycles", ("batch",)),
        Port("harmonic_cycles", ("batch", HARMONICS)),
        Port("noise", ("batch", "samples")),
    ),
    (Port("waveform", ("batch", "samples")), Port("f0_hz", ("batch", "frames"))),
    "lengths",
    "frames",
)
# Prompt and context in tokens of random inputs, in turn.
_CACHED_TOKENS = ((9, 5), (21, 12), (0, 0))
GRAPHS = {graph.name: graph for graph in (ENCODER, CFM, CFM_STEP, VOCODER)}


class EulerStep(nn.Module):
    """One Euler step as a graph of its own, so that rows at different times can share a call."""

    def __init__(self, estimator: Estimator) -> None:
        super().__init__()
        self.estimator = estimator

    def forward(
        self, x: Tensor, mu: Tensor, speaker: Tensor, prompt_mel: Tensor, lengths: Tensor | None, t: Tensor, r: Tensor
    ) -> Tensor:
        velocity = step_velocity(self.estimator, x, mu, speaker, prompt_mel, lengths, t, r)
        return mask_frames(x + (r - t)[:, None, None] * velocity, lengths)


class Unpadded(nn.Module):
    """A net whose arguments at `left_out`, lengths and masks, are None: every row is full."""

    def __init__(self, net: nn.Module, left_out: Sequence[int]) -> None:
        super().__init__()
        self.net, self.left_out = net, sorted(left_out)

    def forward(self, *arguments: Tensor) -> Tensor | tuple[Tensor, ...]:
        all_arguments: list[Tensor | None] = list(arguments)
        for position in self.left_out:
            all_arguments.insert(position, None)
        result: Tensor | tuple[Tensor, ...] = self.net(*all_arguments)
        return result


def load_nets(checkpoint: Checkpoint) -> dict[str, nn.Module]:
    """The net behind each graph, by the graph's name; they share weights. Raises CheckpointError."""
    flow = load_flow(checkpoint.s3gen_path, checkpoint.spec)
    return {
        ENCODER.name: flow.encoder,
        CFM.name: flow.solver,
        CFM_STEP.name: EulerStep(flow.solver.estimator),
        VOCODER.name: load_vocoder(checkpoint.s3gen_path, checkpoint.spec),
    }


def variant(graph: Graph, net: nn.Module, *, padded: bool) -> nn.Module:
    """`net` with exactly the arguments of `graph.ports(padded=padded)`."""
    if padded:
        return net
    kept = graph.ports(padded=False)
    return Unpadded(net, [index for index, port in enumerate(graph.inputs) if port not in kept]).eval()


def random_inputs(
    graph: Graph, lengths: list[int], seed: int, *, loudness: float = 1.0
) -> dict[str, npt.NDArray[np.generic]]:
    """Plausible inputs for rows of these lengths, the `lengths` input included; `loudness` scales real values.

    Mels and f0 lie in the range of speech; pads are zero, as in the batches of a server.
    """
    rng = np.random.default_rng(seed)
    sizes = graph.sizes(len(lengths), max(lengths), *_CACHED_TOKENS[seed % len(_CACHED_TOKENS)])
    drawn = {port.name: _draw(port, port.shape(sizes), rng, loudness) for port in graph.inputs}
    ends = np.array(lengths, np.int64)
    drawn[graph.lengths] = ends
    for port in graph.inputs:
        for axis in ("tokens", "frames", "samples"):
            if axis in port.axes:
                _clear_pad(drawn[port.name], ends * (sizes[axis] // sizes[graph.time]))
    if "fixed_frames" in drawn:
        drawn["fixed_frames"] = rng.integers(0, ends // 2 + 1)
    if "prompt_lengths" in drawn:
        drawn["prompt_lengths"] = rng.integers(0, sizes[f"prompt_{graph.time}"] + 1, len(lengths))
    for new in drawn.keys() & {"new_tokens", "new_frames"}:
        drawn[new] = rng.integers(1, ends + 1)
    if "t" in drawn:
        step = rng.integers(0, len(EULER_TIMES) - 1, len(lengths))
        drawn["t"], drawn["r"] = (np.array(EULER_TIMES, np.float32)[step + i] for i in (0, 1))
    return drawn


def _draw(port: Port, shape: tuple[int, ...], rng: np.random.Generator, loudness: float) -> npt.NDArray[np.generic]:
    if port.dtype == "int64":
        return rng.integers(0, SPEECH_CODES, shape)
    if port.name.endswith("_cycles"):
        return rng.random(shape, np.float32)
    if port.name == "fixed_f0_hz":
        return rng.uniform(0.0, 300.0, shape).astype(np.float32)
    values = rng.standard_normal(shape, np.float32) * np.float32(loudness)
    return values * 2 - 5 if port.name in ("mel", "prompt_mel") else values


def _clear_pad(rows: npt.NDArray[np.generic], ends: npt.NDArray[np.int64]) -> None:
    for row, end in zip(rows, ends, strict=True):
        row[end:] = 0


def run_torch(net: nn.Module, arrays: Arrays, ports: tuple[Port, ...]) -> tuple[npt.NDArray[np.float32], ...]:
    """The net's outputs for named inputs, in the order of its arguments."""
    with torch.inference_mode():
        result = net(*(torch.from_numpy(arrays[port.name]) for port in ports))
    outputs = result if isinstance(result, tuple) else (result,)
    return tuple(output.numpy() for output in outputs)
