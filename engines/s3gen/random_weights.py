"""Seeded random weights for S3Gen's nets in the layout of upstream's file: the result is audible noise without a tone.

Each tensor depends on the seed and its own name alone. Scales keep activations near one, give both times of a CFM step
an effect, make f0 cross from voiced to unvoiced, and leave the waveform neither silent nor clipped.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.model_spec import ModelSpec
from engines.s3gen.nets import flow, vocoder_weights
from engines.s3gen.nets.spectrum import BINS
from engines.s3gen.nets.vocoder import UP_RATES

F32 = npt.NDArray[np.float32]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class _Rule:
    """How tensors whose name matches are drawn: around `mean`, with this standard deviation.

    `by_fan_in` divides the deviation by the square root of how many inputs one output sums.
    """

    pattern: str
    mean: float
    deviation: float
    by_fan_in: bool = True


_FLOW_RULES = (
    _Rule(r"norm\w*\.weight$|block\.2\.weight$|embed\.out\.1\.weight$", 1.0, 0.1, by_fan_in=False),
    _Rule(r"input_embedding\.weight$", 0.0, 1.0, by_fan_in=False),
    _Rule(r"pos_bias_[uv]$", 0.0, 0.3, by_fan_in=False),
    _Rule(r"bias$", 0.0, 0.05, by_fan_in=False),
    _Rule(r"^encoder\..*linear_(q|k|pos)\.weight$", 0.0, 1.5),
    _Rule(r"up_layer\.conv\.weight$", 0.0, 2.2),
    _Rule(r"^decoder\..*weight$", 0.0, math.sqrt(2.0)),  # He's, as upstream initialises its U-Net
    _Rule(r"weight$", 0.0, 1.0),
)
_VOCODER_RULES = (
    _Rule(r"alpha$", 1.0, 0.2, by_fan_in=False),
    _Rule(r"conv_post\.bias$", 0.0, 0.01, by_fan_in=False),
    _Rule(r"classifier\.bias$", 105.0, 0.0),  # Hz
    _Rule(r"classifier\.weight$", 0.0, 140.0),
    _Rule(r"bias$", 0.0, 0.02, by_fan_in=False),
    _Rule(r"convs2\.\d$", 0.0, 0.5),  # what is added to the residual path
    _Rule(r"conv_post$", 0.0, 0.3),
    _Rule(r"", 0.0, 1.0),
)
_PHASE_SCALE = 8.0  # of what decides the last layer's phases, in radians: about one
_DIRECTION_SCALE = 0.1  # of weight-normed tensors; the norm takes it out again


def random_tensors(spec: ModelSpec, seed: int) -> Iterator[tuple[str, F32]]:
    """Every `flow.` and `mel2wav.` tensor of S3Gen's file, names and float32 values, one at a time."""
    for name, shape in flow.expected_tensors(spec).items():
        yield flow.PREFIX + name, _flow_tensor(name, shape, seed)
    for name, shape in vocoder_weights.expected_tensors(spec).items():
        if name.endswith(vocoder_weights.DIRECTION):
            stem = name.removesuffix("." + vocoder_weights.DIRECTION)
            yield from _weight_normed(stem, shape, seed)
        elif not name.endswith(vocoder_weights.GAIN):
            yield vocoder_weights.PREFIX + name, _draw(name, shape, seed, _VOCODER_RULES)


def _flow_tensor(name: str, shape: Shape, seed: int) -> F32:
    values = _draw(name, shape, seed, _FLOW_RULES)
    if "embed.out.1." in name:
        values /= math.sqrt(shape[0])  # upstream multiplies by sqrt(width) behind this norm
    if name.endswith("time_embed_mixer.weight"):
        values *= 0.1
        values += np.tile(np.eye(shape[0], dtype=np.float32) / 2, 2)  # half of each time's embedding
    return values


def _weight_normed(name: str, shape: Shape, seed: int) -> Iterator[tuple[str, F32]]:
    """Gain and direction whose product follows the rule for `name`."""
    direction = _without_lines(name, _unit(name, shape, seed))
    deviation = _rule(name, _VOCODER_RULES).deviation / math.sqrt(_fan_in(name, shape))
    gain = deviation * np.sqrt(np.square(direction).sum(axis=(1, 2), keepdims=True))
    yield f"{vocoder_weights.PREFIX}{name}.{vocoder_weights.GAIN}", gain.astype(np.float32)
    direction *= _DIRECTION_SCALE
    yield f"{vocoder_weights.PREFIX}{name}.{vocoder_weights.DIRECTION}", direction


def _without_lines(name: str, weights: F32) -> F32:
    """Returns weights that make no tone of what stays the same from frame to frame.

    The vocoder's phases lie within one radian, so every bin has a mean. The means of all nine, if they are alike, are
    an impulse at the Hann window's zero; where they differ, what is left repeats with the hop of 4 samples: a line at
    0, 6 and 12 kHz. So the last layer answers changes alone, which makes the means of magnitudes alike, and its phases
    are widely spread, which makes theirs alike. An upsampling whose outputs differ in their means or their power
    adds lines at 2 kHz and its multiples in the same way.
    """
    if name == "conv_post":
        changes: F32 = weights - weights.mean(axis=2, keepdims=True)
        changes[BINS:] *= _PHASE_SCALE
        return changes
    if name.startswith("ups."):
        return _balanced(weights, UP_RATES[int(name.split(".")[1])])
    return weights


def _balanced(weights: F32, rate: int) -> F32:
    """Transposed weights (in, out, taps) whose taps that meet in one output have equal sums, and nearly equal power."""
    balanced = weights.copy()
    power = weights.shape[2] / rate
    for phase in range(rate):
        taps = balanced[:, :, phase::rate]
        taps -= taps.mean(axis=2, keepdims=True)
        taps *= math.sqrt(power / (taps.shape[2] - 1))
        taps += weights.sum(axis=2, keepdims=True) / (rate * taps.shape[2])
    return balanced


def _draw(name: str, shape: Shape, seed: int, rules: tuple[_Rule, ...]) -> F32:
    rule = _rule(name, rules)
    values = _unit(name, shape, seed)
    values *= rule.deviation / (math.sqrt(_fan_in(name, shape)) if rule.by_fan_in else 1.0)
    values += rule.mean
    return values


def _rule(name: str, rules: tuple[_Rule, ...]) -> _Rule:
    return next(rule for rule in rules if re.search(rule.pattern, name))


def _fan_in(name: str, shape: Shape) -> float:
    if name.startswith("ups."):  # transposed: (in, out, taps), of which one output meets one in `rate` taps
        return shape[0] * shape[2] / UP_RATES[int(name.split(".")[1])]
    return math.prod(shape[1:])


def _unit(name: str, shape: Shape, seed: int) -> F32:
    """Mean 0, variance 1; uniform, which is drawn three times as fast as normal."""
    generator = np.random.Generator(np.random.SFC64([seed, zlib.crc32(name.encode())]))
    values = generator.random(shape, np.float32)
    values -= 0.5
    values *= math.sqrt(12.0)
    return values
