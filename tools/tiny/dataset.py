"""What training reads: the corpus's arrays of all voices, and random crops of them.

Knows the files that corpus.py writes; knows no net.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines.model_spec import MEL_FRAMES_PER_TOKEN, SAMPLES_PER_TOKEN
from tools.tiny.codes import Ints, spoken_by

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """A sentence of a voice, arrays as in corpus.Spoken, the sounds in that voice."""

    voice: int
    text: str
    samples: npt.NDArray[np.int16]
    mel: npt.NDArray[np.float16]
    f0_hz: F32
    sounds: Ints
    units: npt.NDArray[np.int16]


def load(folder: Path, voices: Sequence[str]) -> list[Clip]:
    """Every sentence that is there so far, in an order that depends on the files only."""
    return [clip for path in sorted(folder.glob("*-???.npz")) for clip in _clips(path, voices)]


def _clips(path: Path, voices: Sequence[str]) -> list[Clip]:
    name = path.stem.rsplit("-", 1)[0]
    if name not in voices:
        return []
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    ends = np.cumsum(arrays["lengths"])
    found = []
    for text, end, count in zip(json.loads(str(arrays["texts"])), ends, arrays["lengths"], strict=True):
        tokens = slice(end - count, end)
        frames = slice(MEL_FRAMES_PER_TOKEN * (end - count), MEL_FRAMES_PER_TOKEN * end)
        sound = slice(SAMPLES_PER_TOKEN * (end - count), SAMPLES_PER_TOKEN * end)
        found.append(
            Clip(
                voices.index(name), text, arrays["samples"][sound], arrays["mel"][frames], arrays["f0_hz"][frames],
                spoken_by(arrays["sounds"][tokens].astype(np.int64), voices.index(name)), arrays["units"][tokens],
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class Stream:
    """All sentences of one voice end to end, for crops that may span a sentence's end."""

    samples: npt.NDArray[np.int16]
    mel: npt.NDArray[np.float16]
    f0_hz: F32
    sounds: Ints


def streams(clips: list[Clip], voice_count: int) -> list[Stream]:
    made = []
    for voice in range(voice_count):
        own = [clip for clip in clips if clip.voice == voice]
        columns = {name: np.concatenate([getattr(clip, name) for clip in own]) for name in Stream.__annotations__}
        made.append(Stream(**columns))
    return made
