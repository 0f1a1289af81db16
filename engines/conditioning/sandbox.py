"""Reference audio decoded in a process of its own, bounded in time and memory, so that a file made to crash or to stall
a decoder costs its sender an error and nobody else anything.

Knows processes and their limits; what is decoded how is reference.py's. The process inherits no socket and no
environment, writes no file, and is told the audio on its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from engines.conditioning.reference import MAX_REFERENCE_S, Reference, decode, judge
from engines.errors import InvalidInput, invalid_value
from engines.model_spec import SAMPLE_RATE_HZ

TIME_LIMIT_S = 30.0  # decoding two minutes of anything takes under two on one slow core
_MEMORY_LIMIT_BYTES = 3 * 2**30  # of address space, most of which is libraries' and never touched
_PROGRAM = ("-m", "engines.conditioning.sandbox")
_ROOT = str(Path(__file__).resolve().parents[2])


def load_reference_apart(audio: bytes, time_limit_s: float = TIME_LIMIT_S) -> Reference:
    """As `load_reference`, with AUDIO_NOT_DECODABLE also for what takes too long or ends the process. Blocks."""
    try:
        ended = subprocess.run(
            [sys.executable, *_PROGRAM, str(time_limit_s)],
            input=audio,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries' words about a stranger's file; they may quote it
            timeout=time_limit_s,
            env={"PYTHONPATH": os.pathsep.join([_ROOT, *filter(None, sys.path)]), "OMP_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        _not_decodable(audio, f"decoding took more than {time_limit_s:g} s")
    if ended.returncode != 0:
        _not_decodable(audio, "decoding it failed")
    return _read(ended.stdout)


def _not_decodable(audio: bytes, why: str) -> NoReturn:
    allowed = "an intact audio file, e.g. WAV, FLAC, MP3, Ogg, M4A or WebM"
    raise invalid_value("audio", f"{len(audio)} bytes ({why})", allowed, "AUDIO_NOT_DECODABLE") from None


def _read(answer: bytes) -> Reference:
    """What the process said: a line of JSON, then the samples."""
    line, _, data = answer.partition(b"\n")
    told: dict[str, Any] = json.loads(line)
    if "refused" in told:
        raise _refusal(**told["refused"])
    samples = np.frombuffer(data, "<f4").astype(np.float32)
    assert len(samples) <= (MAX_REFERENCE_S + 1) * SAMPLE_RATE_HZ
    return judge(samples, str(told["source"]))


def _refusal(reason: str, message: str, field: str, value: str, allowed: str) -> InvalidInput:
    refusal = invalid_value(field, "", allowed, reason)
    refusal.value, refusal.args = value, (message,)
    return refusal


def main() -> None:
    """The process: audio in, one answer out."""
    _limit(float(sys.argv[1]))
    audio, answer = sys.stdin.buffer.read(), sys.stdout.buffer
    try:
        samples, source = decode(audio)
    except InvalidInput as error:
        about = {name: getattr(error, name) for name in ("reason", "field", "value", "allowed")}
        answer.write(json.dumps({"refused": {**about, "message": str(error)}}).encode() + b"\n")
        return
    answer.write(json.dumps({"source": source}).encode() + b"\n")
    answer.write(samples.astype("<f4").tobytes())


def _limit(time_limit_s: float) -> None:
    limits = {
        resource.RLIMIT_AS: _MEMORY_LIMIT_BYTES,
        resource.RLIMIT_CPU: int(time_limit_s) + 1,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for which, most in limits.items():
        with contextlib.suppress(ValueError, OSError):  # a lower limit of the operator's stays
            resource.setrlimit(which, (most, most))


if __name__ == "__main__":
    main()
