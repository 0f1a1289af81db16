"""The tiny model beside its teacher, on the same sentences: python -m tools.tiny.naturalness FOLDER [--samples FOLDER]

Mel-cepstral distance and correlation of pitch along the best alignment, and DNSMOS (package speechmos), which needs no
reference. FOLDER is a checkpoint. Needs `pip install hibari-tts==0.2.1 pyworld speechmos` beside the engines.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

import engines
from engines.checkpoints.checkpoint import open_folder
from engines.conditioning.builtin import load_builtin
from engines.config import EngineConfig
from engines.pipeline import Pipeline
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.voice import Voice
from tests.speech.speaking import OFFLINE, render, speech_tokens_of
from tests.speech.texts import ALL
from tools.tiny.engine import SAMPLE_RATE_HZ, mel_filterbank, resample
from tools.tiny.nets import write_wave
from tools.tiny.pronounce import Pronouncer
from tools.tiny.teacher import Rendered, Teacher, lowered

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
_FRAME, _HOP = 1024, 240  # samples; frames of 10 ms
_BANDS, _CEPSTRA = 40, 24
_MCD_FACTOR = 10 / np.log(10) * np.sqrt(2)
_DNSMOS_RATE_HZ = 16_000
_TEXTS = [one.text for name in ("agent", "questions", "balanced") for one in ALL[name] if len(one.text) > 20]


def cepstra(samples: F32) -> F64:
    """(frames, 24) of 10 ms: mel cepstra without the first, which is loudness."""
    filters = mel_filterbank(SAMPLE_RATE_HZ, _FRAME, _BANDS, 0.0, SAMPLE_RATE_HZ / 2)
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FRAME)[::_HOP] * np.hanning(_FRAME)
    logs = np.log(np.maximum(np.square(np.abs(np.fft.rfft(frames))) @ filters.T, 1e-8)) / 2
    order, band = np.arange(1, _CEPSTRA + 1)[:, None], np.arange(_BANDS)[None] + 0.5
    cosines = np.sqrt(2 / _BANDS) * np.cos(np.pi / _BANDS * order * band)
    result: F64 = logs @ cosines.T / np.sqrt(_BANDS)
    return result


def aligned(ours: F64, theirs: F64) -> tuple[npt.NDArray[np.int64], F64]:
    """The path of least distance (steps, 2), and the distances along it."""
    distance = np.sqrt(np.maximum(np.square(ours[:, None] - theirs[None]).sum(-1), 0))
    rows, columns = distance.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    for i in range(rows):
        before = np.minimum(total[i, :-1], total[i, 1:])
        for j in range(columns):
            total[i + 1, j + 1] = distance[i, j] + min(before[j], total[i + 1, j])
    i, j, path = rows, columns, []
    while i and j:
        path.append((i - 1, j - 1))
        i, j = min(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda at: total[at])
    steps = np.array(path[::-1])
    return steps, distance[steps[:, 0], steps[:, 1]]


def compare(ours: F32, theirs: F32) -> dict[str, float]:
    """Mel-cepstral distance in dB, and correlation of log f0 where both are voiced."""
    import pyworld  # type: ignore[import-not-found]

    mine, other = cepstra(ours), cepstra(theirs)
    path, distances = aligned(mine, other)
    f0_hz = []
    for samples, count in ((ours, len(mine)), (theirs, len(other))):
        f0, _ = pyworld.harvest(samples.astype(np.float64), SAMPLE_RATE_HZ, f0_floor=60.0, frame_period=10.0)
        f0_hz.append(np.pad(f0, (0, max(0, count - len(f0))))[:count])
    a, b = f0_hz[0][path[:, 0]], f0_hz[1][path[:, 1]]
    voiced = (a > 0) & (b > 0)
    pitch = float(np.corrcoef(np.log(a[voiced]), np.log(b[voiced]))[0, 1])
    return {"mcd_db": float(_MCD_FACTOR * distances.mean()), "pitch_correlation": pitch}


def dnsmos(samples: F32) -> dict[str, float]:
    from speechmos import dnsmos as model  # type: ignore[import-not-found]

    narrow = resample(samples, SAMPLE_RATE_HZ, _DNSMOS_RATE_HZ)
    scores = model.run(narrow / max(1.0, float(np.abs(narrow).max())), _DNSMOS_RATE_HZ)
    return {"p808": float(scores["p808_mos"]), "overall": float(scores["ovrl_mos"])}


def _spoken_by_teacher(texts: list[str]) -> dict[str, Rendered]:
    """What the teacher makes of each text that the recipe can pronounce."""
    teacher = Teacher()
    pronounce = Pronouncer(teacher)
    said = {text: one for text in texts if (one := pronounce(text.lower()))}
    return {text: teacher.spoken(pronounce.ids(one.characters), 0) for text, one in said.items()}


async def _ours(folder: Path, voice: Voice, texts: list[str]) -> list[F32]:
    engine = await asyncio.to_thread(
        engines.load, EngineConfig(model=str(folder), device="cpu", t3="torch", strict_reference=True)
    )
    assert isinstance(engine, Pipeline)
    speech_tokens = await speech_tokens_of(engine.stages.t3, engine, texts, voice)
    await engine.close()
    runtime = TorchRuntime(open_folder(folder), device="cpu")
    return [render(runtime, one, voice, OFFLINE).samples for one in speech_tokens]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=Path, help="keep both as WAV files here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    theirs = _spoken_by_teacher(_TEXTS)
    for name, file in (("heart", "conds.pt"), ("alder", "alder.pt")):
        spoken = [(one if name == "heart" else lowered(one)).samples for one in theirs.values()]
        ours = asyncio.run(_ours(arguments.folder, load_builtin(arguments.folder / file, name), list(theirs)))
        rows = [compare(*pair) for pair in zip(ours, spoken, strict=True)]
        scores = {"ours": [dnsmos(one) for one in ours], "teacher": [dnsmos(one) for one in spoken]}
        print(name, _means(rows), {who: _means(some) for who, some in scores.items()}, flush=True)
        if arguments.samples:
            for who, some in (("ours", ours), ("teacher", spoken)):
                write_wave(arguments.samples / f"{name}-{who}.wav", np.concatenate(some[:6]))


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(float(np.mean([row[name] for row in rows])), 3) for name in rows[0]}


if __name__ == "__main__":
    main()
