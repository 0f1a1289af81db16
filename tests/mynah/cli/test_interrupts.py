"""Signals and closed pipes at any moment: the command ends soon with one line, and its stream ends too."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from engines.fake import Script
from tests.mynah.cli.test_cli import SLOW, TIMEOUT_S, Ended, ended, read_wav, start, start_at
from tests.service.serving import serving

TALE = "This is heard. " * 400  # minutes of audio: more than a pipe and gRPC's windows hold
SIGNALS = pytest.mark.parametrize(
    ("number", "end"),
    [(signal.SIGINT, (130, "mynah: interrupted")), (signal.SIGTERM, (143, "mynah: terminated"))],
    ids=["SIGINT", "SIGTERM"],
)


def last(done: Ended) -> tuple[int, str]:
    return done.status, done.stderr.splitlines()[-1]


def lines(done: Ended) -> tuple[int, str]:
    """As `last`, if standard error may contain nothing else."""
    return done.status, done.stderr.removesuffix("\n")


def assert_whole_or_none(output: Path) -> None:
    """The audio that had arrived is in a whole file, and no other file is left."""
    assert set(os.listdir(output.parent)) <= {output.name}
    if output.exists():
        read_wav(output)


@SIGNALS
async def test_it_ends_while_it_waits_for_input(number: signal.Signals, end: tuple[int, str], tmp_path: Path):
    output = tmp_path / "out.wav"
    async with serving(SLOW) as at:
        running = await start(at, "say", "-", "-o", str(output))
        assert running.stdin is not None
        running.stdin.write(b"This is heard. And so on")
        async with asyncio.timeout(TIMEOUT_S):
            await at.engine.progress.wait()
        running.send_signal(number)
        async with asyncio.timeout(TIMEOUT_S):
            assert await running.wait() == end[0]  # although the input is still open
        assert last(await ended(running)) == end
        await at.settled()
    assert_whole_or_none(output)


async def test_a_signal_that_comes_twice_is_one(tmp_path: Path):
    output = tmp_path / "out.wav"
    async with serving(SLOW) as at:
        running = await start(at, "say", TALE, "-o", str(output), "--quiet")
        async with asyncio.timeout(TIMEOUT_S):
            await at.engine.progress.wait()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            with suppress(ProcessLookupError):  # it may have ended already
                os.kill(running.pid, number)  # send_signal would reap an ended process
        done = await ended(running)
        assert lines(done) in [(130, "mynah: interrupted"), (143, "mynah: terminated")]  # they may arrive in any order
        await at.settled()
    assert_whole_or_none(output)


async def test_it_ends_while_more_input_waits_than_it_takes(tmp_path: Path):
    """The thread that reads the input holds a piece that is not consumed. It must end silently too."""
    async with serving(SLOW) as at:
        running = await start(at, "say", "-", "-o", str(tmp_path / "out.wav"), "--quiet")
        assert running.stdin is not None
        running.stdin.write(TALE.encode() * 40)
        async with asyncio.timeout(TIMEOUT_S):
            await at.engine.progress.wait()
        running.send_signal(signal.SIGINT)
        assert lines(await ended(running)) == (130, "mynah: interrupted")
        await at.settled()


@SIGNALS
@pytest.mark.parametrize("where", ["", "class Gone:\n    def __del__(self):\n        {}\nGone()"], ids=["code", "del"])
async def test_it_ends_while_it_starts(number: signal.Signals, end: tuple[int, str], where: str, tmp_path: Path):
    """In `__del__` Python would drop an exception of the handler."""
    kill = f"__import__('os').kill(__import__('os').getpid(), {int(number)})"
    (tmp_path / "grpc.py").write_text((where or "{}").format(kill) + "\n__import__('time').sleep(60)\n")
    running = await start_at("127.0.0.1:1", "info", path=str(tmp_path))
    assert lines(await ended(running)) == end


async def test_it_ends_while_the_server_does_not_answer(tmp_path: Path):
    connected = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent:
        address = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        running = await start_at(address, "say", "Hi.", "-o", str(tmp_path / "out.wav"))
        async with asyncio.timeout(TIMEOUT_S):
            await connected.wait()
        running.send_signal(signal.SIGINT)
        assert lines(await ended(running)) == (130, "mynah: interrupted")


@SIGNALS
async def test_it_ends_where_the_event_loop_is_blocked(number: signal.Signals, end: tuple[int, str], tmp_path: Path):
    """As by a player that stopped reading, or by a key file that is a pipe."""
    key = tmp_path / "key"
    os.mkfifo(key)
    running = await start_at("127.0.0.1:1", "--api-key-file", str(key), "info")
    async with asyncio.timeout(TIMEOUT_S):
        writer = await asyncio.to_thread(key.open, "w")  # opens when the other side does
    with writer:
        running.send_signal(number)
        assert lines(await ended(running)) == end


async def test_a_signal_that_was_ignored_stays_ignored(tmp_path: Path):
    """Scripts start their background jobs like that."""
    async with serving(SLOW) as at:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the process inherits
        try:
            running = await start(at, "say", TALE, "-o", str(tmp_path / "out.wav"), "--quiet")
        finally:
            signal.signal(signal.SIGINT, before)
        async with asyncio.timeout(TIMEOUT_S):
            await at.engine.progress.wait()
        running.send_signal(signal.SIGINT)
        running.send_signal(signal.SIGTERM)
        assert lines(await ended(running)) == (143, "mynah: terminated")


async def test_a_closed_pipe_ends_it_silently():
    """`mynah say ... -o - | head -c 100`"""
    ours, its = os.pipe()
    async with serving(Script(token_s=0.0001)) as at:
        running = await start_at(at.address, "say", TALE, "-o", "-", "--quiet", stdout=its)
        os.close(its)
        assert len(await asyncio.to_thread(os.read, ours, 100)) > 0
        os.close(ours)
        assert lines(await ended(running)) == (141, "")
        await at.settled()


async def test_a_list_into_a_closed_pipe_ends_silently():
    ours, its = os.pipe()
    os.close(ours)
    async with serving() as at:
        running = await start_at(at.address, "voices", "list", stdout=its)
        os.close(its)
        assert lines(await ended(running)) == (141, "")
