"""Floods of gRPC calls on many connections, which hold them open, reset them or send what they may not."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from time import monotonic

import mynah
from bench.attacks import CALLS, Attack
from tests.security.attacked import Attacked, attacked
from tests.security.waits import Wait

_MAX_WAIT_S = 1.0


async def test_silent_and_reset_calls_shut_nobody_out(tmp_path: Path):
    """10 000 calls on 100 connections: another client is served within a second, while they come and afterwards."""
    async with attacked(tmp_path) as at:
        for attack in CALLS:
            began_s = monotonic()
            await at.client.info()  # it has a connection
            flooding = asyncio.create_task(_apart(attack, at))
            longest_s = 0.0
            while not flooding.done():
                longest_s = max(longest_s, await _served_after_s(at))
                await asyncio.sleep(0.05)
            await flooding
            longest_s = max(longest_s, await _served_after_s(at))
            print(f"{attack.__name__}: served after {longest_s:.2f} s")
            assert longest_s < _MAX_WAIT_S + at.gaps.at_rest_s
            await at.gaps.check(began_s, attack.__name__)
    log = (tmp_path / "server.log").read_text()
    assert "Traceback" not in log
    assert len(log) < 100_000


async def _apart(attack: Attack, at: Attacked) -> None:
    """The attack, by a process of its own."""
    at_server = (at.server.address, at.server.http)
    command = (sys.executable, "-m", "bench.attacks", "--attack", attack.__name__, "--at", *at_server)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    await process.communicate(b"3\n")
    assert process.returncode == 0


async def _served_after_s(at: Attacked) -> float:
    """How long a call takes, with retries as its error says, less the waits of both event loops for a processor."""
    began_s, waits = monotonic(), [Wait(at.server.pid), Wait(os.getpid())]
    while True:
        try:
            await at.client.info()
        except (mynah.Unavailable, mynah.ServerBusy) as error:  # those that say to retry
            await asyncio.sleep(error.retry_after_s or 0.1)
        else:
            return monotonic() - began_s - sum(wait.since_last_s() for wait in waits)
