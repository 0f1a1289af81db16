"""Seeded random weights of the conditioning nets in the layout of the published files, and a random built-in voice.

A tensor depends only on the seed and its name. The scales keep activations near one, and make speech tokens vary and
speakers differ.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from engines.audio import Samples, hann_window, mel_filterbank
from engines.conditioning import speaker, tokenizer, xvector
from engines.model_spec import (
    MAX_S3GEN_PROMPT_TOKENS,
    MAX_T3_PROMPT_TOKENS,
    MEL_BANDS,
    MEL_FRAMES_PER_TOKEN,
    SPEAKER_EMBEDDING_DIM,
    SPEECH_CODES,
    X_VECTOR_DIM,
    ModelSpec,
)
from engines.voice import Voice

Array = npt.NDArray[np.float32] | npt.NDArray[np.int64]
Rules = tuple[tuple[str, float, float], ...]  # see _TOKENIZER

_QUIET_MEL, _LOUD_MEL = -10.5, -1.0  # natural log of mel magnitude of pauses and vowels, for speech at -27 LUFS

# Distributions by name: (pattern, mean, deviation x sqrt(fan-in)); the first pattern that matches applies.
_TOKENIZER = (
    (r"_ln\.weight$", 1.0, 0.1),
    (r"bias$", 0.0, 0.05),
    (r"project_down\.weight$", 0.0, 0.4),
    (r"(attn\.out|fsmn_block|mlp\.2)\.weight$", 0.0, 0.5),  # the outputs that are added to the residual stream
    (r"weight$", 0.0, 1.4),
)
_XVECTOR = (
    (r"running_mean$", 0.0, 0.1),
    (r"running_var$", 1.0, 0.1),
    (r"(bn\d|batchnorm|shortcut\.1)\.weight$", 1.0, 0.1),
    (r"bias$", 0.0, 0.1),
    (r"linear_local\.weight$", 0.0, 2.0),  # its output is halved by the mask
    (r"dense\.linear\.weight$", 0.0, 1.0),
    (r"weight$", 0.0, 1.25),
)
_SPEAKER = (
    (r"similarity_weight$", 10.0, 0.0),
    (r"similarity_bias$", -5.0, 0.0),
    (r"bias", 0.0, 0.1),
    (r"weight_ih_l0$", 0.0, 20.0),  # mel power is small: most of speech lies below 0.1
    (r"weight", 0.0, 1.5),
)


def random_tensors(spec: ModelSpec, seed: int) -> Iterator[tuple[str, Array]]:
    """Yields the `tokenizer.` and `speaker_encoder.` tensors of S3Gen's file, including buffers."""
    constants = {"_mel_filters": mel_filterbank(16_000, 400, 128, 0.0, 8000.0), "window": hann_window(400)}
    for name, shape in tokenizer.expected_tensors(spec).items():
        yield tokenizer.PREFIX + name, constants[name] if name in constants else _draw(name, shape, seed, _TOKENIZER)
    for name, shape in xvector.expected_tensors(spec).items():
        yield xvector.PREFIX + name, _draw(name, shape, seed, _XVECTOR)


def random_voice_encoder_tensors(spec: ModelSpec, seed: int) -> Iterator[tuple[str, Array]]:
    """Yields all tensors of `ve.safetensors`."""
    for name, shape in speaker.expected_tensors(spec).items():
        yield name, _draw(name, shape, seed, _SPEAKER)


def _draw(name: str, shape: tuple[int, ...], seed: int, rules: Rules) -> Array:
    if name.endswith("num_batches_tracked"):
        return np.ones(shape, np.int64)
    mean, deviation = next((mean, deviation) for pattern, mean, deviation in rules if re.search(pattern, name))
    fan_in = math.prod(shape[1:])
    uniform = _generator(seed, name).random(shape, np.float32)  # uniform is three times as fast as normal
    uniform -= np.float32(0.5)
    uniform *= np.float32(deviation * math.sqrt(12.0 / fan_in))
    uniform += np.float32(mean)
    return uniform


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def random_voice(seed: int, t3_prompt_tokens: int = MAX_T3_PROMPT_TOKENS) -> Voice:
    """A built-in voice for random checkpoints: random speech tokens, and a mel with speech-like levels."""
    draw = _generator(seed, "voice")
    embedding = np.maximum(
        draw.standard_normal(SPEAKER_EMBEDDING_DIM, np.float32), 0
    )  # the output of a ReLU, normalised to length 1
    return Voice(
        name="random",
        speaker_embedding=embedding / np.linalg.norm(embedding),
        t3_prompt_tokens=draw.integers(0, SPEECH_CODES, t3_prompt_tokens),
        s3gen_prompt_tokens=draw.integers(0, SPEECH_CODES, MAX_S3GEN_PROMPT_TOKENS),
        s3gen_prompt_mel=_random_mel(draw, MEL_FRAMES_PER_TOKEN * MAX_S3GEN_PROMPT_TOKENS),
        x_vector=draw.standard_normal(X_VECTOR_DIM, np.float32),
        metadata={"source": "random"},
    )


def _random_mel(draw: np.random.Generator, frames: int) -> Samples:
    """(frames, 80): four syllables per second, energy that falls with the band, moving formants."""
    time_s, band = np.arange(frames)[:, None] / 50.0, np.arange(MEL_BANDS)[None, :]
    loudness = np.clip(0.65 + 0.5 * np.sin(2 * np.pi * (4.0 * time_s + draw.random())), 0.0, 1.0)
    centres = np.array([12.0, 30.0, 48.0]) + 5.0 * np.sin(
        2 * np.pi * (time_s * draw.uniform(0.5, 2.0, 3) + draw.random(3))
    )
    formants = np.exp(-((band[..., None] - centres[:, None]) ** 2) / 30.0).sum(axis=-1)
    shape = 0.75 - 0.004 * band + 0.25 * formants
    level = _QUIET_MEL + (_LOUD_MEL - _QUIET_MEL) * loudness * shape + 0.5 * draw.standard_normal((frames, MEL_BANDS))
    mel: Samples = np.maximum(level, math.log(1e-5)).astype(np.float32)
    return mel
