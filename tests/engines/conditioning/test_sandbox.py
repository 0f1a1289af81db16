"""Tests of the decoding sandbox: the same results as in-process decoding, and limits on time, memory and crashes."""

from __future__ import annotations

import socket
import time

import numpy as np
import pytest

from engines.conditioning import sandbox
from engines.conditioning.reference import load_reference
from engines.conditioning.sandbox import load_reference_sandboxed
from engines.errors import InvalidInput
from tests.clips import speech, wav_bytes

CLIP = wav_bytes(*speech(6.0))


def test_results_equal_in_process_decoding() -> None:
    direct, sandboxed = load_reference(CLIP), load_reference_sandboxed(CLIP)
    np.testing.assert_array_equal(sandboxed.samples, direct.samples)
    assert (sandboxed.loudness_lufs, sandboxed.source) == (direct.loudness_lufs, direct.source)


@pytest.mark.parametrize("audio", [b"", b"no audio", wav_bytes(*speech(4.0))], ids=["empty", "none", "short"])
def test_errors_equal_in_process_decoding(audio: bytes) -> None:
    errors = []
    for load in (load_reference, load_reference_sandboxed):
        with pytest.raises(InvalidInput) as raised:
            load(audio)
        error = raised.value
        errors.append((error.reason, error.field, error.value, error.allowed, str(error)))
    assert errors[0] == errors[1]


def test_slow_decoding_is_stopped() -> None:
    began_s = time.monotonic()
    with pytest.raises(InvalidInput, match=r"more than 0\.05 s") as raised:
        load_reference_sandboxed(CLIP, 0.05)
    assert raised.value.reason == "AUDIO_NOT_DECODABLE"
    assert time.monotonic() - began_s < 5


CRASHING = """
import os, signal, numpy
from engines.conditioning import sandbox
def decode(audio):
    os.kill(os.getpid(), signal.SIGSEGV)
    return numpy.zeros(6 * 24_000), "silence"  # without a limit, this would be refused as silence
sandbox.decode = decode
sandbox.main()
"""
HUNGRY = CRASHING.replace("os.kill(os.getpid(), signal.SIGSEGV)", "bytearray(8 * 2**30)")


@pytest.mark.parametrize("program", [CRASHING, HUNGRY], ids=["crash", "memory"])
def test_a_crash_or_too_much_memory_is_an_error(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_PROGRAM", ("-c", program))
    with pytest.raises(InvalidInput, match=r"decoding its \d+ bytes failed") as raised:
        load_reference_sandboxed(CLIP)
    assert raised.value.reason == "AUDIO_NOT_DECODABLE"


INSPECTING = """
import os, sys
from engines.conditioning import sandbox
def decode(audio):
    names, files = str(sorted(os.environ)), str(len(os.listdir("/proc/self/fd")))
    raise sandbox.InvalidInput("audio", "The environment and open files.", "INSPECTED", value=names, allowed=files)
sandbox.decode = decode
sandbox.main()
"""


def test_the_subprocess_has_neither_environment_nor_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_PROGRAM", ("-c", INSPECTING))
    monkeypatch.setenv("MYNAH_API_KEY", "secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.set_inheritable(True)
        with pytest.raises(InvalidInput) as raised:
            load_reference_sandboxed(CLIP)
    assert "MYNAH" not in raised.value.value
    assert int(raised.value.allowed) <= 4  # stdin, stdout, stderr, and the one that lists them
