"""Seeded random weights in the layout of upstream's T3 files of this family: noise for a while, then a stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from engines.checkpoints.tensor_file import Shape
from engines.model_spec import START_SPEECH_TOKEN, STOP_SPEECH_TOKEN, LlamaSpec, ModelSpec
from engines.t3.llama.weights import expected_tensors, spec_of

F32 = npt.NDArray[np.float32]
Draw = Callable[[str, Shape], F32]  # name, shape -> standard normal numbers

_LOGIT_STD = 2.5  # as for GPT-2, before guidance
# The head has no bias. So one channel of the residual stream is the same for every speech token, no block writes to it,
# and the stop's row reads it alone: its logit hardly depends on the text, the voice or the history.
_CONSTANT_CHANNEL, _CONSTANT = 0, 1.5
_LAST_RMS = 1.84  # of the hidden state before the last norm
# With guidance of 0.5 and min_p of 0.05 a stop is drawn once in some 80 tokens; greedy decoding rarely meets one.
_STOP_LOGIT = 8.25
_READ_ONLY = ("self_attn.o_proj.weight", "mlp.down_proj.weight")
# Names end so; the scale is divided by the square root of the inputs if the second value is True. The output of a block
# is divided by the square root of the layers.
_SCALES = (
    ("speech_head.weight", _LOGIT_STD, True),
    ("pos_emb.emb.weight", 0.6, False),
    ("emb.weight", 1.0, False),
    ("spkr_enc.weight", 1.0, False),
    ("emotion_adv_fc.weight", 1.0, False),
    ("pre_attention_query", 1.0, False),
    ("to_q.weight", 1.5, True),
    ("to_k.weight", 1.5, True),
    ("q_proj.weight", 1.8, True),
    ("k_proj.weight", 1.8, True),
    ("v_proj.weight", 1.8, True),
    ("o_proj.weight", 1.3, True),
    ("weight", 1.0, True),
)


def random_tensors(spec: ModelSpec, draw: Draw) -> Iterator[tuple[str, F32]]:
    """Yields the tensors of T3's file that inference needs, names and float32 values."""
    for name, shape in expected_tensors(spec).items():
        yield name, _tensor(name, shape, spec_of(spec), draw)


def _tensor(name: str, shape: Shape, spec: LlamaSpec, draw: Draw) -> F32:
    values = draw(name, shape)
    if len(shape) == 1:
        values *= 0.02  # norms and biases: enough to show when one is forgotten
        return values + 1 if name.endswith("norm.weight") else values
    scale, by_inputs = next((scale, by_inputs) for ending, scale, by_inputs in _SCALES if name.endswith(ending))
    values *= scale / (math.sqrt(shape[1]) if by_inputs else 1.0)
    if name.endswith(_READ_ONLY):
        values /= math.sqrt(spec.layers)
        values[_CONSTANT_CHANNEL] = 0.0
    elif name == "speech_emb.weight":
        values[:, _CONSTANT_CHANNEL] = _CONSTANT
    elif name == "speech_pos_emb.emb.weight":
        values[:, _CONSTANT_CHANNEL] = 0.0
    elif name == "speech_head.weight":
        values[:, _CONSTANT_CHANNEL] = 0.0
        values[START_SPEECH_TOKEN:] = 0.0  # marks, and ids without a meaning
        values[STOP_SPEECH_TOKEN, _CONSTANT_CHANNEL] = _STOP_LOGIT * _LAST_RMS / _CONSTANT
    return values
