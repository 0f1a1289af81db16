"""A sandbox for decoding reference audio: a subprocess with limits on time and memory.

A file that crashes or stalls a decoder causes an error for its sender only. The subprocess inherits no sockets and no
environment, writes no files, and reads the audio from its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from engines.conditioning.limits import MAX_REFERENCE_S
from engines.conditioning.reference import Decoded, Reference, check_decoded, decode, not_decodable
from engines.errors import InvalidInput
from engines.model_spec import SAMPLE_RATE_HZ

TIME_LIMIT_S = 30.0  # decoding two minutes of any format takes less than 2 s on one slow core
_MEMORY_LIMIT_BYTES = 3 * 2**30  # of address space, most of which libraries map and never touch
_PROGRAM = ("-m", "engines.conditioning.sandbox")
_ROOT = str(Path(__file__).resolve().parents[2])


def load_reference_sandboxed(audio: bytes, time_limit_s: float = TIME_LIMIT_S) -> Reference:
    """`load_reference` in a subprocess. Blocks.

    Raises InvalidInput as `load_reference`, with AUDIO_NOT_DECODABLE also if decoding takes too long or crashes.
    """
    try:
        completed = subprocess.run(
            [sys.executable, *_PROGRAM, str(time_limit_s)],
            input=audio,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # libraries' messages may quote the file
            timeout=time_limit_s,
            env={"PYTHONPATH": os.pathsep.join([_ROOT, *filter(None, sys.path)]), "OMP_NUM_THREADS": "1"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise not_decodable(f"decoding its {len(audio)} bytes took more than {time_limit_s:g} s") from None
    if completed.returncode != 0:
        raise not_decodable(f"decoding its {len(audio)} bytes failed")
    return _read(completed.stdout)


def _read(output: bytes) -> Reference:
    """Parse the subprocess's output: a line of JSON, then the samples."""
    line, _, data = output.partition(b"\n")
    header: dict[str, Any] = json.loads(line)
    if "error" in header:
        raise InvalidInput(**header["error"])
    samples = np.frombuffer(data, "<f4").astype(np.float32)
    assert len(samples) <= (MAX_REFERENCE_S + 1) * SAMPLE_RATE_HZ
    return check_decoded(Decoded(samples, str(header["source"]), bool(header["cancelling"])))


def main() -> None:
    """The subprocess: reads audio, writes samples or an error."""
    _limit(float(sys.argv[1]))
    audio, output = sys.stdin.buffer.read(), sys.stdout.buffer
    try:
        decoded = decode(audio)
    except InvalidInput as error:
        fields = {name: getattr(error, name) for name in ("field", "reason", "value", "allowed")}
        output.write(json.dumps({"error": {**fields, "message": str(error)}}).encode() + b"\n")
        return
    output.write(json.dumps({"source": decoded.source, "cancelling": decoded.cancelling}).encode() + b"\n")
    output.write(decoded.samples.astype("<f4").tobytes())


def _limit(time_limit_s: float) -> None:
    limits = {
        resource.RLIMIT_AS: _MEMORY_LIMIT_BYTES,
        resource.RLIMIT_CPU: int(time_limit_s) + 1,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for which, limit in limits.items():
        with contextlib.suppress(ValueError, OSError):  # the operator's limit is lower: it stays
            resource.setrlimit(which, (limit, limit))


if __name__ == "__main__":
    main()
