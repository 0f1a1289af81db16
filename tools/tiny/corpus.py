"""The training data: texts that the teacher speaks, as arrays in a folder.

Two kinds of files. timing-NNN.npz: many texts, their tokens and rows, no sound; T3 learns from them. sound-NNN.npz:
fewer texts, with waveform, mel and pitch in every voice, each saying the same at the same times.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.tiny.engine import (
    MEL_FRAMES_PER_TOKEN,
    MEL_HOP_SAMPLES,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_TOKEN,
    loudness_lufs,
    prompt_mel,
    with_gain,
)
from tools.tiny.pronounce import Pronounced, Pronouncer
from tools.tiny.rows import Spoken, spoken
from tools.tiny.teacher import F0_FRAME_S, Rendered, Teacher, lowered
from tools.tiny.texts import Writer
from tools.tiny.voices import VOICES

MOST_ROWS, MOST_TOKENS = 500, 62
TARGET_LUFS = -27.0
_WARM_UP = 8  # texts from which a voice's gain is measured
_TIMED_TEXTS, _SOUND_TEXTS = 11_000, 200  # of a file
_ROW_TYPES = {"letter": np.uint8, "unit": np.uint8, "begins": np.bool_, "f0_hz": np.float32}
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sound:
    """One voice saying one text of N rows: int16 at 24 kHz (960 N,), log-mel (2 N, 80), f0 (2 N,) in Hz."""

    samples: npt.NDArray[np.int16]
    mel: npt.NDArray[np.float16]
    f0_hz: F32


class Recorder:
    """The teacher in all voices, at the loudness of reference audio."""

    def __init__(self, warm_up: list[str]) -> None:
        self._teacher = Teacher()
        self._say = Pronouncer(self._teacher)
        self._gains_db: list[float] | None = None
        self._warm_up = warm_up

    def timed(self, text: str) -> tuple[Pronounced, Spoken] | None:
        """Rows without sound. None where the text does not fit."""
        said = self._say(text)
        if said is None or len(said.tokens) > MOST_TOKENS:
            return None
        rows = spoken(said.characters, *self._teacher.timed(self._say.ids(said.characters)))
        return (said, rows) if rows is not None and len(rows) <= MOST_ROWS else None

    def sounds(self, said: Pronounced, rows: Spoken, seed: int) -> list[Sound]:
        """The same text in every voice."""
        gains_db = self._measured()
        voices = self._voices(said, seed)
        return [_sound(one, rows, gain_db) for one, gain_db in zip(voices, gains_db, strict=True)]

    def _voices(self, said: Pronounced, seed: int) -> list[Rendered]:
        first = self._teacher.spoken(self._say.ids(said.characters), seed)
        return [first, lowered(first)]

    def _measured(self) -> list[float]:
        """What brings each voice to TARGET_LUFS."""
        if self._gains_db is None:
            said = [one for text in self._warm_up if (one := self._say(text))]
            voices = zip(*(self._voices(one, 0) for one in said), strict=True)
            joined = [np.concatenate([one.samples for one in voice]) for voice in voices]
            self._gains_db = [TARGET_LUFS - loudness_lufs(samples, SAMPLE_RATE_HZ) for samples in joined]
        return self._gains_db


def _sound(said: Rendered, rows: Spoken, gain_db: float) -> Sound:
    count, begin = len(rows) * SAMPLES_PER_TOKEN, round(rows.begin_s * SAMPLE_RATE_HZ)
    samples: F32 = np.zeros(count, np.float32)
    heard = said.samples[begin : begin + count]
    samples[: len(heard)] = heard
    samples = with_gain(samples, gain_db)
    times_s = rows.begin_s + (np.arange(MEL_FRAMES_PER_TOKEN * len(rows)) + 0.5) * MEL_HOP_SAMPLES / SAMPLE_RATE_HZ
    f0_hz = said.f0_hz[np.minimum(np.rint(times_s / F0_FRAME_S).astype(int), len(said.f0_hz) - 1)]
    pcm = np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16)
    return Sound(pcm, prompt_mel(samples).astype(np.float16), f0_hz)


def build_timing(folder: Path, wordnet: Path, part: int, *, held_back: bool = False) -> None:
    """Write timing-PART.npz, or eval-PART.npz of the examples that training does not see."""
    path = folder / f"{'eval' if held_back else 'timing'}-{part:03d}.npz"
    if path.exists():
        return
    count = _TIMED_TEXTS // 7 if held_back else _TIMED_TEXTS
    texts = Writer(wordnet, 11 + part, held_back=held_back).write(count, 9700 * part)
    recorder = Recorder([])
    made = [(kind, text, *one) for kind, text in texts if (one := recorder.timed(text))]
    _save(path, _columns(made))
    print(f"{path.name}: {len(made)} of {len(texts)} texts", flush=True)


def build_sound(folder: Path, wordnet: Path, part: int) -> None:
    """Write sound-PART.npz."""
    path = folder / f"sound-{part:03d}.npz"
    if path.exists():
        return
    texts = Writer(wordnet, 1011 + part, held_back=False).write(_SOUND_TEXTS, _SOUND_TEXTS * part)
    recorder = Recorder([text for kind, text in texts if kind == "example"][:_WARM_UP])
    made = [(kind, text, *one) for kind, text in texts if (one := recorder.timed(text))]
    voices = list(zip(*(recorder.sounds(said, rows, i) for i, (*_, said, rows) in enumerate(made)), strict=True))
    _save(path, _columns(made) | dict(_sound_columns(voices)))
    minutes = sum(len(rows) for *_, rows in made) * ROW_MINUTES
    print(f"{path.name}: {len(made)} of {len(texts)} texts, {minutes:.1f} min in each voice", flush=True)


def build_all(folder: Path, wordnet: Path, timing_parts: int = 2, sound_parts: int = 9) -> None:
    """All files of a run; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in range(timing_parts):
        build_timing(folder, wordnet, part)
    build_timing(folder, wordnet, 0, held_back=True)
    for part in range(sound_parts):
        build_sound(folder, wordnet, part)


ROW_MINUTES = SAMPLES_PER_TOKEN / SAMPLE_RATE_HZ / 60


def _columns(made: list[tuple[str, str, Pronounced, Spoken]]) -> dict[str, Any]:
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(rows, name) for *_, rows in made]).astype(kind)
        for name, kind in _ROW_TYPES.items()
    }
    columns["lengths"] = np.array([len(rows) for *_, rows in made])
    canon = [
        (kind, text, [(token, one.phones, one.stressed) for token, one in zip(said.tokens, said.said, strict=True)])
        for kind, text, said, _ in made
    ]
    return columns | {"texts": np.array(json.dumps(canon))}


def _sound_columns(voices: list[tuple[Sound, ...]]) -> Iterator[tuple[str, Any]]:
    for name, sounds in zip(VOICES, voices, strict=True):
        for field in Sound.__annotations__:
            yield f"{name}.{field}", np.concatenate([getattr(one, field) for one in sounds])


def _save(path: Path, columns: dict[str, Any]) -> None:
    """Whole or not at all."""
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **columns)
    partial.replace(path)
