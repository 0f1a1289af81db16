"""What training reads: sentences with their rows, and all sound of every voice end to end, for random crops.

Knows the files that corpus.py writes; knows no net.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.tiny import codes
from tools.tiny.codes import Ints
from tools.tiny.pronounce import Said
from tools.tiny.rows import Spoken
from tools.tiny.voices import VOICES

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sentence:
    kind: str
    text: str
    tokens: list[str]
    said: list[Said]  # of each token
    spoken: Spoken


@dataclass(frozen=True)
class Stream:
    """All sentences of one voice end to end: sounds (N,), samples (960 N,), mel (2 N, 80), f0 (2 N,)."""

    sounds: Ints
    samples: npt.NDArray[np.int16]
    mel: npt.NDArray[np.float16]
    f0_hz: F32


def sentences(folder: Path, kind: str = "timing") -> list[Sentence]:
    """Every sentence of the files of that kind, in an order that depends on the files only."""
    return [one for path in sorted(folder.glob(f"{kind}-???.npz")) for one in _sentences(path)]


def streams(folder: Path) -> list[Stream]:
    """One for each voice, all saying the same at the same times."""
    parts = [_arrays(path) for path in sorted(folder.glob("sound-???.npz"))]
    heard = np.concatenate([_sounds(part) for part in parts])
    return [Stream(heard, **_joined(parts, voice)) for voice in VOICES]


def _sentences(path: Path) -> list[Sentence]:
    arrays = _arrays(path)
    ends = np.cumsum(arrays["lengths"])
    made = []
    for (kind, text, canon), end, count in zip(json.loads(str(arrays["texts"])), ends, arrays["lengths"], strict=True):
        said = [Said(tuple(phones), tuple(stressed)) for _, phones, stressed in canon]
        made.append(Sentence(kind, text, [name for name, *_ in canon], said, _spoken(arrays, slice(end - count, end))))
    return made


def _spoken(arrays: dict[str, Any], at: slice) -> Spoken:
    letter, unit = (arrays[name][at].astype(np.int64) for name in ("letter", "unit"))
    return Spoken(letter, unit, arrays["begins"][at], arrays["f0_hz"][at])


def _sounds(arrays: dict[str, Any]) -> Ints:
    return codes.sounds(*codes.split(_spoken(arrays, slice(None)).rows(0)))


def _joined(parts: Sequence[dict[str, Any]], voice: str) -> dict[str, Any]:
    return {
        field: np.concatenate([part[f"{voice}.{field}"] for part in parts]) for field in ("samples", "mel", "f0_hz")
    }


def _arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return {key: file[key] for key in file.files}
