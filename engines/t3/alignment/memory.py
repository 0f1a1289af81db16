"""GPU memory of the net that reads words beside T3, in bytes: T3's first layers once more, in float16."""

from __future__ import annotations

import math
from dataclasses import replace

from engines.model_spec import SPEAKER_EMBEDDING_DIM, SPEECH_VOCAB, LlamaSpec, T3Spec
from engines.t3.llama.weights import conditioning_tensors
from engines.t3.vllm.family import transformer_values

_BYTES_PER_VALUE = 2
PREFIX_BYTES = 256 << 20  # of the voices whose prefixes it keeps, at most


def words_bytes(spec: T3Spec, layers: int) -> int:
    """Its weights and the prefixes that it keeps; 0 without layers, when no words are read beside T3."""
    return net_bytes(spec, layers) + PREFIX_BYTES if layers else 0


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


def segment_bytes(spec: T3Spec, layers: int, positions: int) -> int:
    """Keys and values of one segment while its words are read, from the first word that is asked for to its end."""
    return positions * layers * 2 * spec.width * _BYTES_PER_VALUE
