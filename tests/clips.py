"""Reference clips spoken by flite, made once per machine and kept in the temporary folder.

Knows flite's command line; nothing of engines. flite is Debian's package of the same name.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tempfile
import wave
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

VOICES = ("slt", "rms", "awb", "kal16")  # one woman, three men; 16 kHz mono
_SENTENCES = (
    "The harbour was quiet that morning, and the boats lay still in the grey light.",
    "Somebody had left a window open, so the rain came in and wetted half the floor.",
    "We measured the old bridge twice, once in summer and once after the first hard frost.",
    "She laughed, put the letter back into its envelope and walked down to the river.",
    "Nobody in the village could say how many years the clock had been five minutes slow.",
    "At noon the market filled with people, bread, flowers and the smell of roasted coffee.",
    "He counted seven geese above the hill, turned his collar up and whistled for the dog.",
    "If the train is late again tomorrow, take the path through the orchard instead.",
)


def spoken_wav(text: str, voice: str = "slt") -> bytes:
    """A 16-bit mono 16 kHz WAV file of `text`. Raises FileNotFoundError where flite is not installed."""
    key = hashlib.sha256(f"{voice}\n{text}".encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"mynah-clips-{os.getuid()}" / f"{voice}-{key}.wav"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", partial], check=True, timeout=60)
        partial.replace(path)  # whole or not at all, also when two test runs make it at once
    return path.read_bytes()


@lru_cache(maxsize=8)
def speech(duration_s: float, voice: str = "slt") -> tuple[npt.NDArray[np.float32], int]:
    """(samples, rate): exactly `duration_s` of speech, cut where it may fall; at most about 35 s. Read-only."""
    with wave.open(io.BytesIO(spoken_wav(" ".join(_SENTENCES), voice))) as file:
        rate_hz = file.getframerate()
        pcm = file.readframes(round(duration_s * rate_hz))
    samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
    assert len(samples) == round(duration_s * rate_hz), f"there are only {len(samples) / rate_hz:.1f} s of speech"
    samples.setflags(write=False)
    return samples, rate_hz


def wav_bytes(samples: npt.NDArray[np.float32], rate_hz: int) -> bytes:
    """`samples` as a 16-bit mono WAV file."""
    pcm = np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(pcm)
    return target.getvalue()
