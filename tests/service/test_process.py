"""`mynah-serve` as a process on the fake engine: its output, its signals, its exit statuses."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import mynah
from tests.service.serving import REFERENCE

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos")])}
_NO_MORE: Mapping[str, str] = {}
FAKE = """
import threading, time
import engines
from engines.errors import CheckpointError, EngineFailure
from engines.fake import FakeEngine, Script

def load(config, observer, shared=None):
    {before}
    return FakeEngine(Script(token_s=0.002, {script}), max_streams=config.max_streams)

engines.load = load
from service.__main__ import main
main()
"""


@asynccontextmanager
async def process(
    *flags: str, before: str = "", script: str = "", path: str = "", environment: Mapping[str, str] = _NO_MORE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The server on a fake engine. `before` is code to run first, `script` more of the engine's script, `path` a folder
    of more packages, `environment` more variables."""
    program = FAKE.format(before=before or "pass", script=script)
    command = [sys.executable, "-c", program, "--listen", "127.0.0.1:0", *flags]
    pipe = asyncio.subprocess.PIPE
    python_path = os.pathsep.join(filter(None, (ENVIRONMENT["PYTHONPATH"], path)))
    variables = {**ENVIRONMENT, "PYTHONPATH": python_path, **environment}
    running = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=variables)
    try:
        async with asyncio.timeout(60):
            yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.wait()


async def listening(running: asyncio.subprocess.Process) -> str:
    """The address that it listens on."""
    said = await line(running)
    found = re.fullmatch(r"mynah-serve: listening on (127\.0\.0\.1:[1-9]\d*) while auto is loaded\n", said)
    assert found is not None, said
    return found[1]


_VOICES = "mynah-serve: uploaded voices are "


async def serving(running: asyncio.subprocess.Process) -> str:
    """The address, once it serves."""
    address = await listening(running)
    assert "serving after" in await line(running)
    return address


async def line(running: asyncio.subprocess.Process) -> str:
    """The next line that is not about where voices are kept."""
    assert running.stdout is not None
    while (read := (await running.stdout.readline()).decode()).startswith(_VOICES):
        pass
    return read


async def test_it_prints_its_addresses_and_ends_well_on_a_signal():
    async with process("--max-streams", "3", "--grace-s", "10") as running:
        address = await listening(running)
        served = await line(running)
        found = re.fullmatch(r"mynah-serve: serving after \d+\.\d s up to 3 streams with (.*)\n", served)
        assert found is not None, served
        assert found[1] == "fake on cpu (T3 fake, S3Gen fake): This engine makes tones, not speech."
        async with mynah.Client(address) as client, client.stream() as stream:
            assert stream.opened.limits.max_open_streams == 3
            await stream.send("This is finished before the server ends.")
            await stream.flush()
            await anext(aiter(stream))
            running.send_signal(signal.SIGTERM)
            await stream.end()
            assert sum([chunk.samples async for chunk in stream]) == 30 * 960  # the first 10 tokens were heard above
        assert await running.wait() == 0


async def test_it_is_not_ready_while_the_model_is_loaded():
    async with process(before="threading.Event().wait()") as running:
        address = await listening(running)
        async with grpc.aio.insecure_channel(address) as channel, mynah.Client(address) as client:
            health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert (await client.info()).notice == "The model is being loaded."
            assert await client.voices.list() == []
            with pytest.raises(mynah.Unavailable) as raised:
                async with client.stream():
                    pass
            assert (raised.value.reason, raised.value.retryable) == ("NOT_READY", True)
        running.send_signal(signal.SIGTERM)  # and what is being loaded does not keep it
        assert await running.wait() == 0


async def test_it_admits_the_measured_capacity():
    async with process(script="underruns_from=6") as running:
        address = await listening(running)
        assert " up to 5 streams with " in await line(running)
        async with mynah.Client(address) as client:
            assert (await client.info()).limits.max_open_streams == 5
            async with AsyncExitStack() as stack:
                for _ in range(5):
                    await stack.enter_async_context(client.stream())
                with pytest.raises(mynah.ServerBusy) as raised:
                    async with client.stream():
                        pass
            assert (raised.value.reason, raised.value.allowed) == ("STREAMS_EXHAUSTED", "5 streams")


async def test_a_signal_breaks_none_of_32_open_streams():
    texts = [f"Stream {'o' * number}h is in the middle of this sentence, and then goes on." for number in range(32)]
    async with process("--max-streams", "32", "--grace-s", "30") as running:
        address = await serving(running)
        begun = asyncio.Barrier(33)

        async def talk(client: mynah.Client, text: str) -> int:
            async with client.stream() as stream:
                await stream.send(text)
                await stream.flush()
                received = [await anext(aiter(stream))]
                await begun.wait()
                await begun.wait()  # the signal has been sent
                await stream.send(text)  # open streams go on as before
                await stream.end()
                received += [chunk async for chunk in stream]
            ends = [chunk.offset_samples + chunk.samples for chunk in received]
            assert [chunk.offset_samples for chunk in received] == [0, *ends[:-1]]
            return ends[-1]

        async with mynah.Client(address) as client:
            talks = [asyncio.create_task(talk(client, text)) for text in texts]
            await begun.wait()
            running.send_signal(signal.SIGTERM)
            await refused(address, "DRAINING")
            await begun.wait()
            assert await asyncio.gather(*talks) == [2 * len(text) * 960 for text in texts]
        assert await running.wait() == 0


async def refused(address: str, reason: str) -> None:
    """Returns once the server refuses new streams."""
    async with mynah.Client(address) as other:
        while True:
            try:
                async with other.stream():
                    pass
            except mynah.ServerBusy:  # the signal is on its way
                await asyncio.sleep(0.01)
            except mynah.Unavailable as error:
                if error.reason == reason:
                    return
                raise


async def test_a_killed_server_starts_again_on_its_port_with_its_voices(tmp_path: Path):
    voices = ("--voices-dir", str(tmp_path))
    async with process(*voices) as running:
        address = await serving(running)
        async with mynah.Client(address) as client:
            for number in range(3):
                await client.voices.create("Anna", REFERENCE, consent=True, voice_id=f"v{number}")
            uploads = [client.voices.create("Bert", REFERENCE, consent=True, voice_id=f"w{n}") for n in range(3)]
            unfinished = [asyncio.ensure_future(upload) for upload in uploads]
            await asyncio.sleep(0)
            running.kill()
            confirmed = await asyncio.gather(*unfinished, return_exceptions=True)
        await running.wait()
    kept = {f"v{n}" for n in range(3)} | {voice.voice_id for voice in confirmed if isinstance(voice, mynah.Voice)}
    async with process(*voices, "--listen", address) as running:
        assert await serving(running) == address
        async with mynah.Client(address) as client:
            listed = await client.voices.list()
            assert kept <= {voice.voice_id for voice in listed}
            await client.voices.create("Anna", REFERENCE, consent=True, voice_id="later")
            spoken = [chunk.samples async for chunk in client.synthesize("Hi.", voice="v2")]
            assert sum(spoken) == 3 * 960


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (
            ("--tls-certificate", "/nope", "--tls-key", "/nope"),
            "/nope cannot be used: No such file or directory; name a",
        ),
        (("--api-keys", "/nope"), "/nope is not a valid API key file: No such file or directory"),
        (("--dictionary-dir", "/nope"), "/nope is not a folder of dictionaries."),
    ],
)
async def test_a_file_that_cannot_be_read_ends_the_start_in_one_line(flags: tuple[str, ...], problem: str):
    async with process(*flags) as running:
        said, errors = (each.decode() for each in await running.communicate())
    assert (running.returncode, said) == (2, "")
    (only,) = errors.splitlines()
    assert only.startswith(f"mynah-serve: {problem}")


async def test_a_place_of_voices_that_is_no_folder_ends_the_start_in_one_line(tmp_path: Path):
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "voices"
    async with process("--voices-dir", str(place)) as running:
        said, errors = (each.decode() for each in await running.communicate())
    assert (running.returncode, said) == (1, "")
    problem = f"voices cannot be stored at {place}: Not a directory; choose another --voices-dir"
    assert errors.splitlines() == [f"mynah-serve: {problem}"]


@pytest.mark.parametrize(
    ("url", "package"), [("s3://bucket/voices", "s3fs"), ("gs://bucket/voices", "gcsfs"), ("s3://b/v", "botocore")]
)
async def test_voices_in_an_object_store_whose_package_is_missing(url: str, package: str, tmp_path: Path):
    module = tmp_path / f"{'s3fs' if package == 'botocore' else package}.py"
    module.write_text(f"raise ModuleNotFoundError('no module', name={package!r})")  # whatever is installed here
    async with process("--voices-dir", url, path=str(tmp_path)) as running:
        said, errors = (each.decode() for each in await running.communicate())
    assert (running.returncode, said) == (1, "")
    (only,) = errors.splitlines()
    assert only.startswith(f"mynah-serve: voices cannot be stored at {url}: ")
    assert f"needs the Python package {package!r}" in only
    assert ("the server's extra s3 has it" in only) == url.startswith("s3")


async def test_a_second_signal_ends_the_grace_period():
    # the one stream that it may have is open, so that `refused` opens none that the server would count
    async with process("--grace-s", "600", "--max-streams", "1", "--log-level", "error") as running:
        address = await serving(running)
        async with mynah.Client(address) as client, client.stream():
            running.send_signal(signal.SIGINT)
            await refused(address, "DRAINING")
            said, errors = await _ended_by(running, signal.SIGINT)
    assert said == "mynah-serve: stopping: 1 open stream has 600 s to finish; a second signal ends at once\n"
    assert errors == ""


async def test_ctrl_c_without_streams_prints_nothing():
    async with process("--max-streams", "2") as running:
        await serving(running)
        assert await _ended_by(running, signal.SIGINT) == ("", "")


async def _ended_by(running: asyncio.subprocess.Process, number: signal.Signals) -> tuple[str, str]:
    """What the server prints from now on, and logs, when this signal ends it well."""
    running.send_signal(number)
    said, errors = await running.communicate()
    assert running.returncode == 0
    return said.decode(), errors.decode()


@pytest.mark.parametrize("option", ["--listen", "--http-listen", "--admin-listen"])
async def test_a_taken_address_is_one_line(option: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with process(option, address) as running:
            said, errors = await running.communicate()
    assert running.returncode == 2
    assert errors.decode() == (
        f"mynah-serve: cannot listen on {address}: another program listens there. Stop it, or choose another address "
        f"({option} HOST:PORT).\n"
    )
    assert said == b""


@pytest.mark.parametrize(
    ("run", "command", "missing"),
    [
        ("main", "mynah-serve", "grpc_health"),
        ("main", "mynah-serve", "numpy"),
        ("engine_tools", "mynah-engines", "numpy"),
    ],
)
def test_a_base_install_names_the_extra(run: str, command: str, missing: str):
    program = f"import sys; sys.modules[{missing!r}] = None; from service import launch; sys.exit(launch.{run}())"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr == (
        f"{command}: the package {missing!r} is not installed. A server needs an extra: pip install "
        "'mynah-speech-server[cpu]', or [gpu] for an NVIDIA GPU; in a clone of Mynah's repository: pip install "
        "./protos '.[cpu]'.\n"
    )


def test_ctrl_c_while_the_server_is_imported_prints_nothing():
    program = (
        "import builtins, os, signal; from service import launch; real = builtins.__import__\n"
        "def interrupted(name, *rest):\n"
        "    if name == 'grpc': os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = interrupted; launch.main()"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(
    "broken",
    [{"before": "raise CheckpointError('no kernel')"}, {"script": "warm_up_failure=EngineFailure('no kernel')"}],
    ids=["load", "warm-up"],
)
async def test_an_engine_that_cannot_load_or_warm_up_ends_the_server(broken: dict[str, str]):
    async with process(**broken) as running:
        _, errors = await running.communicate()
        assert running.returncode == 1
        assert errors.decode().splitlines()[-1] == "mynah-serve: no kernel"


def test_a_bad_configuration_ends_with_one_line():
    command = [sys.executable, "-m", "service", "--max-streams", "none"]
    ended = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=30, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "mynah-serve: --max-streams is 'none'; it must be auto, or a whole number from 1 to 10000.\n"
    assert not ended.stdout


def test_a_process_that_cannot_be_started_is_one_line():
    program = "import sys; sys.argv, sys.executable = ['x'], '/nothing'; from service.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "messages cannot be started: [Errno 2]" in done.stderr


def test_the_service_imports_no_model_library():
    modules = "service.__main__, service.server, engines.fake"
    code = f"import sys, {modules}; print([name for name in ('torch', 'vllm', 'onnxruntime') if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert ended.stdout == "[]\n"


async def test_a_cloned_voice_outlives_a_restart_without_any_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In the user's data folder, which the server names at its start."""
    monkeypatch.delitem(ENVIRONMENT, "MYNAH_VOICES_DIR", raising=False)  # which keeps other tests' voices in memory
    home = {"XDG_DATA_HOME": str(tmp_path)}
    async with process(environment=home) as running:
        address = await listening(running)
        assert running.stdout is not None
        said = await running.stdout.readline()
        assert said.decode() == f"{_VOICES}kept in {tmp_path}/mynah/voices\n"
        assert "serving after" in await line(running)
        async with mynah.Client(address) as client:
            made = await client.voices.create("Anna", REFERENCE, consent=True, voice_id="anna")
            assert made.kept
        running.kill()  # a crash keeps it, too
    async with process(environment=home) as running, mynah.Client(await serving(running)) as client:
        assert await client.voices.get("anna") == made
        assert "anna" in {voice.voice_id for voice in await client.voices.list()}
        async with client.stream(voice="anna") as stream:
            await stream.send("Hello.")
            await stream.end()
            assert sum([chunk.samples async for chunk in stream]) > 0
