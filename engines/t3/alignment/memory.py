"""GPU memory of reading words beside T3, in bytes: a net of T3's first layers, what it has read, and one of its passes.

Under vLLM the net is made of the engine's own tensors. Elsewhere it has tensors of its own, in float16.
"""

from __future__ import annotations

import math
from dataclasses import replace

from engines.model_spec import MAX_T3_PROMPT_TOKENS, SPEAKER_EMBEDDING_DIM, SPEECH_VOCAB, LlamaSpec, T3Spec
from engines.t3.alignment.pages import page_shape, pages_for
from engines.t3.llama.weights import conditioning_tensors
from engines.t3.vllm.family import transformer_values

_BYTES_PER_VALUE = 2
# Keys and values of segments and of the voices before them: of Turbo 4608 positions. A voice takes 375 of them, a
# segment behind it some 150 while it is spoken.
KEPT_BYTES = 432 << 20
PASS_ROWS = 512  # of a pass
_KEPT_VOICES = 256  # rows of voices before the first layer, where a net computes more than a projection for them


def words_bytes(spec: T3Spec, layers: int, positions: int, *, lent: bool) -> int:
    """All of it, for sequences of up to `positions`; 0 without layers, when no words are read beside T3.

    lent  whether the net is made of an engine's tensors
    """
    if not layers:
        return 0
    net = 0 if lent else net_bytes(spec, layers)
    return net + made_bytes(spec) + kept_bytes(spec, layers, positions) + pass_bytes(spec, positions)


def net_bytes(spec: T3Spec, layers: int) -> int:
    """The weights of a net of the first layers. What computes a voice's rows is float32."""
    if isinstance(spec, LlamaSpec):
        values = (
            transformer_values(replace(spec, layers=layers))
            + (spec.text_vocab + spec.text_positions + 2 * spec.speech_vocab + spec.speech_positions) * spec.width
        )
        conditioning = sum(math.prod(shape) for shape in conditioning_tensors(spec).values())
        return values * _BYTES_PER_VALUE + conditioning * 4
    rows = spec.text_vocab + SPEECH_VOCAB + spec.positions + SPEECH_VOCAB  # embeddings, positions, head
    values = transformer_values(replace(spec, layers=layers)) + rows * spec.width + SPEECH_VOCAB
    return values * _BYTES_PER_VALUE + (SPEAKER_EMBEDDING_DIM + 1) * spec.width * 4


def made_bytes(spec: T3Spec) -> int:
    """What a net has besides weights: a row of padding; or zeros for biases, rotations and the rows of voices."""
    if not isinstance(spec, LlamaSpec):
        return spec.width * _BYTES_PER_VALUE
    zeros = spec.layers * (5 * spec.width + 2 * spec.feed_forward) + spec.speech_vocab
    rotations = 2 * spec.positions * (spec.width // spec.heads)
    return (zeros + rotations) * _BYTES_PER_VALUE + _KEPT_VOICES * spec.voice_rows * spec.width * 4


def kept_bytes(
    spec: T3Spec, layers: int, positions: int, bytes_per_value: int = _BYTES_PER_VALUE, at_most: int = KEPT_BYTES
) -> int:
    """The bound on keys and values: `at_most`, or what one sequence of `positions` behind its voice needs."""
    voice = spec.voice_rows if isinstance(spec, LlamaSpec) else 1 + MAX_T3_PROMPT_TOKENS
    page = math.prod(page_shape(replace(spec, layers=layers))) * bytes_per_value
    # a sequence that goes on from another one does not use the whole of its voice
    return max(at_most, (pages_for(positions) + pages_for(voice) + 1) * page)


def pass_bytes(spec: T3Spec, positions: int) -> int:
    """The activations of a pass of PASS_ROWS rows, its masks, and one layer's keys and values side by side, twice."""
    wide = spec.feed_forward if isinstance(spec, LlamaSpec) else 4 * spec.width
    activations = PASS_ROWS * (8 * spec.width + 3 * wide)
    return (activations + 2 * PASS_ROWS * positions + 4 * spec.width * positions) * _BYTES_PER_VALUE
