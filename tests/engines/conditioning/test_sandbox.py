"""Decoding in a process of its own: the same answers, and an end to what takes too long or crashes."""

from __future__ import annotations

import socket
import time

import numpy as np
import pytest

from engines.conditioning import sandbox
from engines.conditioning.reference import load_reference
from engines.conditioning.sandbox import load_reference_apart
from engines.errors import InvalidInput
from tests.clips import speech, wav_bytes

CLIP = wav_bytes(*speech(6.0))


def test_it_answers_as_decoding_in_this_process_does() -> None:
    here, there = load_reference(CLIP), load_reference_apart(CLIP)
    np.testing.assert_array_equal(there.samples, here.samples)
    assert (there.loudness_lufs, there.source) == (here.loudness_lufs, here.source)


@pytest.mark.parametrize("audio", [b"", b"no audio", wav_bytes(*speech(4.0))], ids=["empty", "none", "short"])
def test_it_refuses_as_decoding_in_this_process_does(audio: bytes) -> None:
    refusals = []
    for load in (load_reference, load_reference_apart):
        with pytest.raises(InvalidInput) as raised:
            load(audio)
        error = raised.value
        refusals.append((error.reason, error.field, error.value, error.allowed, str(error)))
    assert refusals[0] == refusals[1]


def test_what_takes_too_long_is_ended() -> None:
    began_s = time.monotonic()
    with pytest.raises(InvalidInput, match=r"more than 0\.05 s") as raised:
        load_reference_apart(CLIP, 0.05)
    assert raised.value.reason == "AUDIO_NOT_DECODABLE"
    assert time.monotonic() - began_s < 5


CRASHES = """
import os, signal, sys
from engines.conditioning import sandbox
def crash(audio): os.kill(os.getpid(), signal.SIGSEGV)
sandbox.decode = crash
sandbox.main()
"""
GREEDY = CRASHES.replace("os.kill(os.getpid(), signal.SIGSEGV)", "return bytearray(8 * 2**30)")


@pytest.mark.parametrize("program", [CRASHES, GREEDY], ids=["crash", "memory"])
def test_what_crashes_or_fills_the_memory_costs_an_error(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_PROGRAM", ("-c", program))
    with pytest.raises(InvalidInput, match="decoding it failed") as raised:
        load_reference_apart(CLIP)
    assert raised.value.reason == "AUDIO_NOT_DECODABLE"


TELLS = """
import os, sys
from engines.conditioning import sandbox
def tell(audio):
    names, files = str(sorted(os.environ)), str(len(os.listdir("/proc/self/fd")))
    raise sandbox.InvalidInput("audio", "told", "TOLD", value=names, allowed=files)
sandbox.decode = tell
sandbox.main()
"""


def test_the_process_knows_neither_secrets_nor_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_PROGRAM", ("-c", TELLS))
    monkeypatch.setenv("MYNAH_API_KEY", "secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.set_inheritable(True)
        with pytest.raises(InvalidInput) as raised:
            load_reference_apart(CLIP)
    assert "MYNAH" not in raised.value.value
    assert int(raised.value.allowed) <= 4  # its three, and the one that lists them
