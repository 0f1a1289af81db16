"""The training data: example sentences of WordNet, spoken by flite, as arrays in a folder.

Knows which sentences are taken, how a waveform and its phones become mel, pitch and speech codes, and where they lie.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines.audio import loudness_lufs, resample, with_gain
from engines.conditioning.mel import prompt_mel
from engines.model_spec import MEL_FRAMES_PER_TOKEN, MEL_HOP_SAMPLES, SAMPLE_RATE_HZ, SAMPLES_PER_TOKEN
from tools.tiny.codes import PHONES, Timed, tokens_of
from tools.tiny.flite import F0_FRAME_S, Flite, Utterance
from tools.tiny.voices import VOICES

TARGET_LUFS = -27.0
_LEADING_TOKENS, _TRAILING_TOKENS = 2, 4  # of silence that stays
_WORD = re.compile(r"[a-z]+('[a-z]+)?[,.?!;]?")
F32 = npt.NDArray[np.float32]


def sentences(wordnet: Path, seed: int) -> list[str]:
    """Example sentences of 4 to 16 plain words, each once, in an order that `seed` decides."""
    found = set()
    for path in sorted(wordnet.glob("data.*")):
        for quoted in re.findall(r'"([^"]*)"', path.read_text(encoding="latin-1")):
            words = quoted.lower().split()
            if 4 <= len(words) <= 16 and all(_WORD.fullmatch(word) for word in words):
                text = " ".join(words)
                found.add(text if text[-1] in ".?!" else text.rstrip(",;") + ".")
    listed = sorted(found)
    random.Random(seed).shuffle(listed)
    return listed


def fetch_wordnet(folder: Path) -> Path:
    """WordNet 3.0 from Debian's package wordnet-base, unpacked into `folder` without installing it."""
    there = folder / "usr/share/wordnet"
    if not there.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-qq", "wordnet-base"], cwd=folder, check=True)
        package = next(folder.glob("wordnet-base*.deb"))
        subprocess.run(["dpkg-deb", "-x", package.name, "."], cwd=folder, check=True)
    return there


@dataclass(frozen=True)
class Spoken:
    """One sentence: int16 at 24 kHz, log-mel (2 N, 80), f0 (2 N,) in Hz, sounds of voice 0 and text units (N,)."""

    samples: npt.NDArray[np.int16]
    mel: npt.NDArray[np.float16]
    f0_hz: F32
    sounds: npt.NDArray[np.int16]
    units: npt.NDArray[np.int16]


class Speaker:
    """A voice of flite at the loudness of reference audio."""

    def __init__(self, voice: str, warm_up: list[str]) -> None:
        self._flite = Flite(voice)
        spoken = [self._flite.speak(text) for text in warm_up]
        joined = np.concatenate([one.samples for one in spoken]).astype(np.float32) / 32768
        self._gain_db = TARGET_LUFS - loudness_lufs(joined, spoken[0].rate_hz)

    def speak(self, text: str) -> Spoken | None:
        """None where flite's phones do not fit the text or a token each."""
        return self.convert(self._flite.speak(text), text)

    def convert(self, said: Utterance, text: str) -> Spoken | None:
        words = text.split()
        if {phone.word for phone in said.phones} - {-1} != set(range(len(words))):
            return None
        samples = with_gain(
            resample(said.samples.astype(np.float32) / 32768, said.rate_hz, SAMPLE_RATE_HZ), self._gain_db
        )
        begin_s = max(0.0, said.phones[0].end_s - _LEADING_TOKENS * 0.04)
        end_s = min(said.phones[-1].end_s, said.phones[-2].end_s + _TRAILING_TOKENS * 0.04)
        begin = int(begin_s * SAMPLE_RATE_HZ)
        samples = samples[begin : int(end_s * SAMPLE_RATE_HZ)]
        count = len(samples) // SAMPLES_PER_TOKEN
        samples = samples[: count * SAMPLES_PER_TOKEN]
        times = (begin_s + (np.arange(2 * count) + 0.5) * MEL_HOP_SAMPLES / SAMPLE_RATE_HZ) / F0_FRAME_S
        f0_hz = said.f0_hz[np.minimum(times.astype(int), len(said.f0_hz) - 1)]
        try:
            sounds, units = tokens_of(self._timed(said, begin_s, words), count)
        except ValueError:
            return None
        mel = prompt_mel(samples)
        assert len(mel) == MEL_FRAMES_PER_TOKEN * count
        pcm = np.rint(samples * 32767).astype(np.int16)
        return Spoken(pcm, mel.astype(np.float16), f0_hz, sounds.astype(np.int16), units.astype(np.int16))

    def _timed(self, said: Utterance, begin_s: float, words: list[str]) -> list[Timed]:
        """Units count words and, after a word that carries one, its punctuation mark; pauses belong to the mark."""
        unit_of, marks, unit = [], [], 0
        for word in words:
            unit_of.append(unit)
            marked = not word[-1].isalpha()
            unit += 1 + marked
            marks.append(unit - 1)  # the mark's unit, or the word's own
        timed, start_s, latest = [], 0.0, 0
        for phone in said.phones:
            if phone.word >= 0:
                unit, latest = unit_of[phone.word], marks[phone.word]
            else:
                unit = latest
            timed.append(Timed(PHONES.index(phone.name), round(max(0.0, start_s - begin_s) * 50), unit))
            start_s = phone.end_s
        return timed


def build(folder: Path, voice: str, part: int, texts: list[str], warm_up: list[str]) -> None:
    """Speak `texts` into FOLDER/VOICE-PART.npz, whole or not at all; what is there already stays."""
    path = folder / f"{voice}-{part:03d}.npz"
    if path.exists():
        return
    speaker = Speaker(voice, warm_up)
    spoken = [(text, one) for text in texts if (one := speaker.speak(text))]
    columns = {
        name: np.concatenate([getattr(one, name) for _, one in spoken])
        for name in ("samples", "mel", "f0_hz", "sounds", "units")
    }
    columns["lengths"] = np.array([len(one.sounds) for _, one in spoken])
    columns["texts"] = np.array(json.dumps([text for text, _ in spoken]))
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **columns)
    partial.replace(path)
    print(
        f"{path.name}: {len(spoken)} of {len(texts)} sentences, {columns['lengths'].sum() / 25 / 60:.1f} min",
        flush=True,
    )


def build_all(folder: Path, parts: int = 9, each: int = 350) -> None:
    """`parts` files of `each` sentences for every voice; no sentence is spoken by two voices."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = sentences(fetch_wordnet(folder / "wordnet"), seed=1)
    for part in range(parts):
        for index, voice in enumerate(VOICES):
            first = (part * len(VOICES) + index) * each
            build(folder, voice, part, texts[first : first + each], texts[-20:])
