"""`mynah-serve` as a process of its own, on the fake engine: its two lines, its signals, its exit statuses."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import mynah

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos")])}
FAKE = """
import sys
import engines
from engines.errors import EngineFailure
from engines.fake import FakeEngine, Script
script = Script(token_s=0.002, warm_up_failure=EngineFailure("no kernel") if "cuda" in sys.argv else None)
engines.load = lambda config: FakeEngine(script, max_streams=config.max_streams)
from service.__main__ import main
main()
"""


@asynccontextmanager
async def process(*flags: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command = [sys.executable, "-c", FAKE, "--listen", "127.0.0.1:0", *flags]
    pipe = asyncio.subprocess.PIPE
    running = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=ENVIRONMENT)
    try:
        async with asyncio.timeout(30):
            yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


async def line(running: asyncio.subprocess.Process) -> str:
    assert running.stdout is not None
    return (await running.stdout.readline()).decode()


async def test_it_says_where_and_when_and_ends_well_on_a_signal():
    async with process("--max-streams", "3", "--grace-s", "10") as running:
        listening = await line(running)
        found = re.fullmatch(r"mynah-serve: listening on (127\.0\.0\.1:[1-9]\d*) with (.*)\n", listening)
        assert found is not None, listening
        assert found[2] == "fake on cpu (T3 fake, S3Gen fake): This engine makes tones, not speech."
        assert re.fullmatch(r"mynah-serve: serving after \d+\.\d s of warm-up\n", await line(running))
        async with mynah.Client(found[1]) as client, client.stream() as stream:
            assert stream.opened.limits.max_open_streams == 3
            await stream.send("This is finished before the server ends.")
            await stream.flush()
            await anext(aiter(stream))
            running.send_signal(signal.SIGTERM)
            await stream.end()
            assert sum([chunk.samples async for chunk in stream]) == 30 * 960  # the first 10 tokens were heard above
        assert await running.wait() == 0


async def test_a_second_signal_ends_the_grace_period():
    async with process("--grace-s", "600") as running:
        address = (await line(running)).split()[3]
        await line(running)
        async with mynah.Client(address) as client, client.stream():
            running.send_signal(signal.SIGINT)
            async with mynah.Client(address) as other:
                while True:
                    try:
                        async with other.stream():
                            pass
                    except mynah.Unavailable:
                        break
            running.send_signal(signal.SIGINT)
            assert await running.wait() == 0


async def test_an_engine_that_cannot_warm_up_ends_the_server():
    async with process("--device", "cuda") as running:
        _, told = await running.communicate()
        assert running.returncode == 1
        assert told.decode().splitlines()[-1] == "mynah-serve: no kernel"


def test_a_bad_configuration_ends_with_one_line():
    command = [sys.executable, "-m", "service", "--max-streams", "none"]
    ended = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=30, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "mynah-serve: --max-streams = 'none' is not allowed; allowed: a whole number in [1, 10000]\n"
    assert not ended.stdout


def test_the_service_imports_no_model_library():
    modules = "service.__main__, service.server, engines.fake"
    code = f"import sys, {modules}; print([name for name in ('torch', 'vllm', 'onnxruntime') if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert ended.stdout == "[]\n"
