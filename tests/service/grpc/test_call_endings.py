"""Every call gets its status and leaves nothing behind, however and whenever it ends; over two processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack

import grpc.aio
import pytest
from riva.client.proto import riva_tts_pb2, riva_tts_pb2_grpc

import mynah
from engines.fake import Script
from tests.service.serving import Serving, converse, error_of, opening, serving
from tests.service.test_process import ENVIRONMENT, process
from tests.service.test_process import serving as address_of

CALLS = int(os.environ.get("STORM_CALLS", "400"))
ENDS = {  # statuses and reasons
    "fine": {"OK"},
    "nothing": {"TEXT_EMPTY", "STREAM_NOT_OPEN"},
    "settings": {"SETTINGS_CHANGED", "STREAM_ALREADY_OPEN"},
    "nobody": {"VOICE_NOT_FOUND"},
    "too much": {"TEXT_BACKLOG_FULL"},
    "garbage": {"MESSAGE_INVALID"},
}
BUSY = "STREAMS_EXHAUSTED"
LEFT: dict[str, set[str]] = {
    "stays": set(),
    "cancels": {"CANCELLED"},
    "breaks": {"CANCELLED"},
    "deadline": {"DEADLINE_EXCEEDED"},
}


async def storm(address: str, seed: int) -> list[tuple[str, str, str]]:
    command = [sys.executable, "-m", "tests.service.grpc.call_storm", address, str(CALLS), str(seed)]
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*command, stdout=pipe, env=ENVIRONMENT)
    try:
        out, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode == 0
    return [(what, status, reason) for what, status, reason in json.loads(out)]


async def test_every_call_gets_its_status_and_the_server_survives():
    async with process("--max-streams", "4", before="import faulthandler; faulthandler.enable()") as running:
        assert running.stderr is not None
        told = asyncio.ensure_future(running.stderr.read())
        address = await address_of(running)
        ended = await storm(address, seed=1)
        assert running.returncode is None
        wrong = [(what, status, reason) for what, status, reason in ended if not expected(what, status, reason)]
        assert wrong == []
        statuses = {status for _, status, _ in ended}
        assert statuses >= {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "CANCELLED", "DEADLINE_EXCEEDED"}
        async with mynah.Client(address) as client, AsyncExitStack() as stack:
            for _ in range(4):  # every slot is free
                await stack.enter_async_context(client.stream())
        running.send_signal(signal.SIGTERM)
        assert await running.wait() == 0
        log = (await told).decode()
    assert not [line for line in log.splitlines() if " ERROR " in line or "Traceback" in line]


def expected(what: str, status: str, reason: str) -> bool:
    kind, leaving = what.split(" ", 1)[1].rsplit(" ", 1)
    return status in ENDS[kind] | LEFT[leaving] or reason in ENDS[kind] | {BUSY}


async def test_rivas_client_gets_headers_before_there_is_audio():
    async with serving(Script(token_s=3600)) as at:
        call = riva_stream(at)
        await call.write(riva_tts_pb2.SynthesizeSpeechRequest(text="This takes long."))
        async with asyncio.timeout(5):
            await call.initial_metadata()
        call.cancel()
        await at.settled()


async def test_an_error_while_the_first_audio_is_being_sent_still_ends_the_call():
    requests = [riva_tts_pb2.SynthesizeSpeechRequest(text="Hi.", sample_rate_hz=rate) for rate in (24_000, 8_000)]
    async with serving() as at:
        for _ in range(200):  # one in twenty met the first chunk on its way
            call = riva_stream(at)
            for request in requests:
                await call.write(request)
            async with asyncio.timeout(5):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    async for _answer in call:
                        pass
            assert error_of(raised.value).reason == "SETTINGS_CHANGED"
        await at.settled()


def riva_stream(at: Serving) -> grpc.aio.StreamStreamCall:
    return riva_tts_pb2_grpc.RivaSpeechSynthesisStub(at.channel).SynthesizeOnline()


async def test_a_call_whose_first_message_is_abandoned_still_gets_its_status():
    async with serving(stall_timeout_s=1e-6) as at:  # as on a machine that stood still meanwhile
        with pytest.raises(mynah.MynahError) as raised:
            async with asyncio.timeout(5):
                await converse(at, opening())
        assert raised.value.reason == "READER_STALLED"
        await at.settled()
