"""GPU memory of the net that reads words beside T3, in bytes: T3's first layers once more, in float16."""

from __future__ import annotations

from dataclasses import replace

from engines.model_spec import SPEAKER_EMBEDDING_DIM, SPEECH_VOCAB, T3Spec
from engines.t3.vllm.memory import transformer_values

_BYTES_PER_VALUE = 2
PREFIX_BYTES = 256 << 20  # of the voices whose prefixes it keeps, at most


def words_bytes(spec: T3Spec, layers: int) -> int:
    """Its weights and the prefixes that it keeps; 0 without layers, when no words are read beside T3."""
    return net_bytes(spec, layers) + PREFIX_BYTES if layers else 0


def net_bytes(spec: T3Spec, layers: int) -> int:
    """The weights of a net of the first layers. The speaker projection is float32."""
    rows = spec.text_vocab + SPEECH_VOCAB + spec.positions + SPEECH_VOCAB  # embeddings, positions, head
    values = transformer_values(replace(spec, layers=layers)) + rows * spec.width + SPEECH_VOCAB
    return values * _BYTES_PER_VALUE + (SPEAKER_EMBEDDING_DIM + 1) * spec.width * 4


def segment_bytes(spec: T3Spec, layers: int, positions: int) -> int:
    """Keys and values of one segment while its words are read, from the first word that is asked for to its end."""
    return positions * layers * 2 * spec.width * _BYTES_PER_VALUE
