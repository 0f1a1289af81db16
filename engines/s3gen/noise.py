"""Randomness as a function of position: the same (seed, position) always gives the same number.

Counter-based (Philox 4x64): a window that is decoded again, in another batch or after another window, gets the same
noise. Numpy only.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

from engines.model_spec import MEL_BANDS, MEL_HOP_SAMPLES

F32 = npt.NDArray[np.float32]

HARMONICS = 9  # the fundamental and eight overtones
_BLOCK_FRAMES = 50  # positions are drawn a second at a time: few generators, little waste
_BLOCK_SAMPLES = _BLOCK_FRAMES * MEL_HOP_SAMPLES


class _Purpose(IntEnum):
    FLOW = 1
    PROMPT = 2
    EXCITATION = 3
    HARMONICS = 4
    SEGMENT = 5


def flow_noise(seed: int, first_frame: int, frames: int) -> F32:
    """(frames, 80) standard normal for the segment's mel frames [first_frame, first_frame + frames)."""
    return _blocks(seed, _Purpose.FLOW, first_frame, frames, _BLOCK_FRAMES, (MEL_BANDS,))


def prompt_noise(seed: int, frames: int) -> F32:
    """(frames, 80) standard normal for the voice's prompt frames, the same in every window of a segment."""
    return _blocks(seed, _Purpose.PROMPT, 0, frames, _BLOCK_FRAMES, (MEL_BANDS,))


def excitation_noise(seed: int, first_sample: int, samples: int) -> F32:
    """(samples,) standard normal for the vocoder's source at the segment's samples from `first_sample` on."""
    return _blocks(seed, _Purpose.EXCITATION, first_sample, samples, _BLOCK_SAMPLES, ())


def harmonic_cycles(seed: int) -> F32:
    """(9,) constant phase offsets in cycles, uniform in [-0.5, 0.5); 0 for the fundamental (HiFT's SineGen)."""
    offsets = _generator(seed, _Purpose.HARMONICS, 0).random(HARMONICS, dtype=np.float32) - np.float32(0.5)
    offsets[0] = 0.0
    return offsets


def segment_seed(stream_seed: int, segment_index: int) -> int:
    """The seed of one segment of a stream: equal texts in one stream are not spoken identically."""
    return int(_generator(stream_seed, _Purpose.SEGMENT, segment_index).integers(2**63))


def _generator(seed: int, purpose: _Purpose, block: int) -> np.random.Generator:
    # explicit uint64: numpy would read a list with large integers as floats and lose their low bits
    key = np.array([seed, purpose], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, block], np.uint64)))


def _blocks(seed: int, purpose: _Purpose, first: int, count: int, block: int, shape: tuple[int, ...]) -> F32:
    if count == 0:
        return np.zeros((0, *shape), np.float32)
    start, stop = first // block, -(-(first + count) // block)
    drawn = [
        _generator(seed, purpose, b).standard_normal((block, *shape), dtype=np.float32) for b in range(start, stop)
    ]
    return np.concatenate(drawn)[first - start * block : first - start * block + count]
