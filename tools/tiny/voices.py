"""The voices of the tiny model, and the vectors that stand for them.

The flow's x-vector and T3's speaker embedding of a voice are drawn once; the two speaker nets then learn to give them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tools.tiny.engine import SPEAKER_EMBEDDING_DIM, X_VECTOR_DIM

VOICES = ("heart", "alder")  # the teacher's own, and the one made from it by lowered()
F32 = npt.NDArray[np.float32]


def x_vectors() -> F32:
    """(voices, 192), each of length 1."""
    return _units(np.random.default_rng(192).standard_normal((len(VOICES), X_VECTOR_DIM), np.float32))


def speaker_embeddings() -> F32:
    """(voices, 256), each of length 1 and nowhere negative, as the speaker encoder's ReLU leaves them."""
    drawn = np.random.default_rng(256).standard_normal((len(VOICES), SPEAKER_EMBEDDING_DIM), np.float32)
    return _units(np.maximum(drawn, 0))


def _units(rows: F32) -> F32:
    units: F32 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return units
