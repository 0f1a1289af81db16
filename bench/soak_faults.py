"""The faults of a soak beside those of its clients: a small disk with damaged voices, and a decode that hangs."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.report import BUILD
from bench.scripted_server import Load, scripted_server
from mynah.client.client import Client
from mynah.client.errors import MynahError
from service.load.arrivals import TEXTS
from service.shutdown import FORCED_EXIT

DAMAGED, HUNG = "damaged", "hung"  # ids of voices
_FILES = (DAMAGED, f"{DAMAGED}-2", "Not an id", HUNG)
_DISK_BYTES = 300_000  # for some fifteen voices
_OWN_MOUNTS = ("unshare", "--mount", "--map-root-user", "sh", "-c")


def disk(folder: Path) -> Sequence[str]:
    """Returns a command that runs the server with a small disk at `folder`, which ends with it and holds bad voices.

    Where mounting is not allowed the command is empty: then the folder itself holds them, and its disk is never full.
    """
    mount = f"mount -t tmpfs -o size={_DISK_BYTES} none {shlex.quote(str(folder))}"
    files = [shlex.quote(str(folder / f"{name}.safetensors")) for name in _FILES]
    write = " && ".join(f"echo not a voice > {file}" for file in files)
    try:
        subprocess.run([*_OWN_MOUNTS, mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        print("no small disk: mounting is not allowed here", file=sys.stderr)
        subprocess.run(["sh", "-c", write], check=True)
        return ()
    return (*_OWN_MOUNTS, f'{mount} && {write} && exec "$@"', "sh")


async def hung_decode(max_streams: int, answer_s: float) -> list[str]:
    """Hangs a decode beside other streams. Returns what was wrong with their ends.

    Raises RuntimeError if the process does not end with SIGTERM.
    """
    load = Load(token_s=0.004, hangs_on="hang")
    flags = ["--max-streams", str(max_streams), "--hang-timeout-s", "2"]
    texts = ["Now hang.", *[" ".join(TEXTS)] * 8, "This hangs too."]
    async with (
        scripted_server(load, BUILD / "soak-hang.log", *flags, ends_with=FORCED_EXIT) as server,
        Client(server.address) as client,
    ):
        ends = await asyncio.gather(*(_end_of(client, text, answer_s) for text in texts))
        ends.append(await _end_of(client, "Is it back?", answer_s))
    allowed = [{"ENGINE_STALLED"}, *[{"ENGINE_STALLED", ""}] * 8, {"ENGINE_STALLED"}, {"ENGINE_STALLED"}]
    wrong = [end for end, names in zip(ends, allowed, strict=True) if end not in names]
    return [f"beside a hung decode a stream ended with {end or 'nothing wrong'}" for end in wrong]


async def _end_of(client: Client, text: str, answer_s: float) -> str:
    try:
        async with asyncio.timeout(answer_s):
            async for _ in client.synthesize(text):
                pass
    except MynahError as error:
        return error.reason
    except TimeoutError:
        return "UNANSWERED"
    return ""
