"""`make board-pictures`: the boards drawn from a real Prometheus that scrapes two real servers under load, as
docs/board-*.png.

The servers are real, their engine is the scripted one, so that a busy machine draws what a quiet one does. They share
their voices and know two keys; one is slower and is restarted on the way. What needs a GPU, TLS or Kubernetes has no
data here, and says so.
"""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import mynah
from tests.fleet.drawing import Result, draw, series_of
from tests.fleet.manifests import ROOT, Manifest, dashboards
from tests.fleet.prometheus import Prometheus, prometheus
from tests.fleet.servers import Addresses, server
from tests.service.serving import REFERENCE
from tests.service.test_process import ENVIRONMENT

_SECONDS = 240.0
_STEP_S = 2.0
_PROGRAM = """
import engines
from engines.errors import EngineFailure
from engines.fake import FakeEngine, Script

def load(config, observer, shared=None):
    lost = EngineFailure("the device is gone")
    script = Script(
        token_s={token_s}, decode_s=0.03, decoders=1, voice_s=0.4, failure=lost, fail_after_chunks=1, failures=3
    )
    return FakeEngine(script, max_streams=config.max_streams, observer=observer)

engines.load = load
from service.__main__ import main
main()
"""
_VARIABLES = {"$__rate_interval": "15s", "$__range": f"{_SECONDS:.0f}s", "$namespace": "mynah"}
_TEXT = "The harbour was quiet that morning, and the boats lay still. She put the letter back and walked to the river. "


async def main() -> None:
    """Takes about five minutes."""
    with tempfile.TemporaryDirectory() as folder:
        began_s = time.time()
        async with AsyncExitStack() as held:
            at = await _under_load(held, Path(folder))
            for name, board in dashboards().items():
                results = {panel["id"]: await _result(at, panel, began_s) for panel in board["panels"]}
                path = ROOT / "docs" / f"board-{name}.png"
                draw(board, results, path)
                print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")


async def _under_load(held: AsyncExitStack, folder: Path) -> Prometheus:
    """Returns Prometheus with what it has seen of the load, which is over."""
    keys = {name: _key(folder / "keys.json", name) for name in ("app", "website")}
    admins = [_free_address(), _free_address()]
    flags = ["--http-listen", "127.0.0.1:0", "--api-keys", str(folder / "keys.json"), "--max-streams", "8"]
    flags += ["--voices-dir", str(folder / "voices"), "--otlp-endpoint", "http://127.0.0.1:9"]
    at = await held.enter_async_context(
        prometheus({f"mynah-{n}": admin for n, admin in enumerate(admins)}, folder, hasten=False)
    )
    first = await held.enter_async_context(server(_engine(0.012), *flags, admin=admins[0]))
    await asyncio.gather(
        _loaded(first.grpc, "grpc", 0.6, folder / "app.key"),
        _loaded(first.http, "http", 0.3, folder / "website.key"),
        _loaded(first.http, "websocket", 0.3, folder / "website.key"),
        _for_a_while(_talk(first, keys["app"])),
        _for_a_while(_clone(first, keys["website"])),
        _restarted(held, admins[1], flags, folder / "app.key"),
    )
    return at


def _engine(token_s: float) -> list[str]:
    """A server on the scripted engine, which needs this long for a speech token, and fails three times at first."""
    return ["-c", _PROGRAM.format(token_s=token_s)]


async def _restarted(held: AsyncExitStack, admin: str, flags: list[str], key: Path) -> None:
    """A server that ends, and 20 s later another in its place, which stays."""
    async with server(_engine(0.025), *flags, admin=admin) as one:
        await _loaded(one.grpc, "grpc", 0.6, key, 0.4 * _SECONDS)
    await asyncio.sleep(20.0)
    one = await held.enter_async_context(server(_engine(0.025), *flags, admin=admin))
    await _loaded(one.grpc, "grpc", 0.6, key, 0.4 * _SECONDS)


async def _loaded(address: str, surface: str, rate: float, key: Path, seconds: float = _SECONDS) -> None:
    flags = ["--server", address, "--surface", surface, "--rate", str(rate), "--seconds", str(seconds)]
    command = [sys.executable, "-m", "service.load", *flags, "--api-key-file", str(key)]
    running = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, env=ENVIRONMENT, cwd=ROOT
    )
    assert await running.wait() in (0, 1), "the load generator failed"


async def _for_a_while(work: Coroutine[None, None, None]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_SECONDS):
            await work


async def _talk(at: Addresses, key: str) -> None:
    """A conversation with interruptions, a burst that is refused, a voice that does not exist."""
    async with mynah.Client(at.grpc, api_key=key, moves=0) as client:
        while True:
            with suppress(mynah.MynahError):
                async with client.stream() as stream:
                    await stream.send(_TEXT)
                    await anext(aiter(stream))
                    await stream.cancel()
                    await stream.send("Yes.")
                    await stream.end()
                    async for _ in stream:
                        pass
            with suppress(mynah.ServerBusy):
                async with AsyncExitStack() as streams:
                    for _ in range(9):
                        await streams.enter_async_context(client.stream())
            with suppress(mynah.MynahError):
                async with client.stream(voice="unknown"):
                    pass
            await asyncio.sleep(8.0)


async def _clone(at: Addresses, key: str) -> None:
    async with mynah.Client(at.grpc, api_key=key) as client:
        while True:
            made = await client.voices.create("Ada", REFERENCE, consent=True)
            await asyncio.sleep(10.0)
            with suppress(mynah.MynahError):
                await client.voices.create("Ada", b"", consent=True)
            if len(await client.voices.list()) > 6:
                await client.voices.delete(made.voice_id)


async def _result(at: Prometheus, panel: Manifest, began_s: float) -> Result:
    """What Grafana would ask for this panel, with all that its variables select."""
    series, exemplars, labels = [], [], []
    now_s = time.time()
    for target in panel.get("targets", []):
        expression = target["expr"]
        for variable, value in _VARIABLES.items():
            expression = expression.replace(variable, value)
        expression = re.sub(r"\$(pod|surface|key)\b", ".*", expression)
        if target["instant"]:
            answer = [one | {"values": [one["value"]]} for one in await at.query(expression)]
        else:
            answer = await at.query_range(expression, began_s, now_s, _STEP_S)
        series += series_of(target["legendFormat"], answer, began_s)
        labels += [one["metric"] for one in answer]
        if target["exemplar"]:
            found = await at.exemplars(expression, began_s, now_s)
            exemplars += [(one["timestamp"] - began_s, float(one["value"])) for one in found]
    return Result(series, exemplars, labels)


def _key(file: Path, name: str) -> str:
    """Adds a key, and keeps it in NAME.key beside the file."""
    program = "from service.access.keys import main; main()"
    command = [sys.executable, "-c", program, str(file), "add", name]
    key = subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT).stdout.strip()
    (file.parent / f"{name}.key").write_text(key)
    return key


def _free_address() -> str:
    """A restarted server takes the same address, so that it is the same pod."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


if __name__ == "__main__":
    asyncio.run(main())
