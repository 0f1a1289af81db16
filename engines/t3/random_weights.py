"""Seeded random weights in the layout of upstream's T3 file. The net draws noise for a while and then stops."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from engines.checkpoints.tensor_file import Shape
from engines.config import Sampling
from engines.model_spec import SPEECH_VOCAB, START_SPEECH_TOKEN, STOP_SPEECH_TOKEN, ModelSpec
from engines.t3.llama import random_weights as llama
from engines.t3.model import expected_tensors

F32 = npt.NDArray[np.float32]

# The hidden state has unit variance per channel after the last norm, so rows of this length give logits with this
# standard deviation: a likeliest token near 20 %, some hundreds of candidates in the top-p nucleus, and a greedy
# choice about 0.45 ahead of the next, far above rounding. It is also where the stop's bias (below) stands furthest
# below the likeliest logit, in units of how much that one varies: greedy decoding meets a stop once in 10^5 steps.
_LOGIT_STD = 2.5
# A stop is drawn once in this many tokens: lengths are geometric, from a few tokens to some hundreds.
_MEAN_TOKENS = 80
# The start mark is not speech but may be drawn: once in this many tokens.
_MEAN_TOKENS_TO_START_MARK = 5000
_BLOCK = 1 << 20


def random_tensors(spec: ModelSpec, seed: int) -> Iterator[tuple[str, F32]]:
    """Yields the tensors of T3's file, names and float32 values.

    The two that inference never reads (`tfmr.wte.weight` or `tfmr.embed_tokens.weight`, and `text_head.weight`) repeat
    one block of numbers. Each tensor depends on `seed` and its own name alone.
    """
    if spec.is_llama:
        yield from llama.random_tensors(spec, lambda name, shape: _normal(name, shape, seed))
        yield "tfmr.embed_tokens.weight", _repeated("tfmr.embed_tokens.weight", (8, spec.t3.width), seed)
        yield "text_head.weight", _repeated("text_head.weight", (spec.t3.text_vocab, spec.t3.width), seed)
        return
    for name, shape in expected_tensors(spec).items():
        yield name, _tensor(name, shape, spec, seed)
    for name in ("tfmr.wte.weight", "text_head.weight"):
        yield name, _repeated(name, (spec.t3.text_vocab, spec.t3.width), seed)


def _tensor(name: str, shape: Shape, spec: ModelSpec, seed: int) -> F32:
    values = _normal(name, shape, seed)
    values *= _std(name, shape, spec)
    if name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight")):
        values += 1.0
    if name.startswith("speech_head."):
        _set_marks(name, values)
    return values


def _std(name: str, shape: Shape, spec: ModelSpec) -> float:
    """Scales that keep activations near unit variance and make every step differ from the last.

    Attention picks out few positions (scores of standard deviation 3) and weighs most in the residual stream, so
    tokens depend on voice, text and history; sharper still, and rounding would grow past 1e-4 in the logits.
    A constant share of the hidden state would make the same tokens likely at every step; the MLP, whose mean output
    is such a share, is held low.
    """
    fan_in = 1.0 / math.sqrt(shape[0])
    per_block = 1.0 / math.sqrt(spec.t3.layers)
    scales = {
        "speech_head.weight": _LOGIT_STD / math.sqrt(spec.t3.width),
        "cond_enc.spkr_enc.weight": 1.0,  # speaker embeddings have length 1: a row like any other embedding
        "_emb.weight": 1.0,
        "tfmr.wpe.weight": 0.6,
        "attn.c_attn.weight": 1.8 * fan_in,
        "attn.c_proj.weight": 1.3 * fan_in * per_block,
        "mlp.c_fc.weight": fan_in,
        "mlp.c_proj.weight": 0.25 * fan_in * per_block,
    }
    if len(shape) == 1:
        return 0.02  # norms and biases: enough to show when one is forgotten
    return next(scale for ending, scale in scales.items() if name.endswith(ending))


def _set_marks(name: str, values: F32) -> None:
    """Rows of zeros and a bias: the logits of both marks do not depend on the hidden state.

    A stop then has the same small probability at every step, after any text, in any voice. Greedy decoding does not
    take it: the likeliest of six thousand other logits is almost never as low as this bias.
    """
    marks = {STOP_SPEECH_TOKEN: _MEAN_TOKENS, START_SPEECH_TOKEN: _MEAN_TOKENS_TO_START_MARK}
    for mark, mean_tokens in marks.items():
        values[mark] = _bias_for(mean_tokens) if values.ndim == 1 else 0.0


def _bias_for(mean_tokens: int) -> float:
    """The logit that the default sampling draws once in `mean_tokens`, if the other logits are Gaussian.

    With V logits of standard deviation s at temperature t the sum of exp(logit / t) is V exp((s / t)^2 / 2);
    top-k and top-p leave about nine tenths of it.
    """
    sampling = Sampling()
    spread = _LOGIT_STD / sampling.temperature
    log_sum = math.log(SPEECH_VOCAB) + spread * spread / 2 + math.log(0.9)
    return sampling.temperature * (log_sum - math.log(mean_tokens))


def _normal(name: str, shape: Shape, seed: int) -> F32:
    generator = np.random.Generator(np.random.SFC64([seed, zlib.crc32(name.encode())]))
    return generator.standard_normal(shape, dtype=np.float32)


def _repeated(name: str, shape: Shape, seed: int) -> F32:
    return np.resize(_normal(name, (_BLOCK,), seed) * np.float32(0.02), shape)
