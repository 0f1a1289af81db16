"""Whether the Mynah server answers and who speaks there, told to a browser as it changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import mynah
from ui.words import explain

_EVERY_S = 1.5
_KEEPALIVE_S = 15.0  # what a proxy may take for a dead connection, and how a browser that left is noticed


async def state(client: mynah.Client, server: str) -> dict[str, Any]:
    """`up` and who speaks; or not `up` and why."""
    try:
        info = await client.info()
    except mynah.MynahError as error:
        return {"up": False, "server": server, **explain(error)}
    told = {name: value for name, value in asdict(info).items() if name not in ("audio_formats", "sample_rates_hz")}
    return {"up": True, "server": server, **told}


async def watch(client: mynah.Client, server: str) -> AsyncIterator[str]:
    """Server-sent events: the state now and whenever it has changed. Ends with the reader."""
    told, quiet_s = "", 0.0
    while True:
        now = json.dumps(await state(client, server))
        if now != told:
            told, quiet_s = now, 0.0
            yield f"data: {now}\n\n"
        elif quiet_s >= _KEEPALIVE_S:
            quiet_s = 0.0
            yield ": still here\n\n"
        await asyncio.sleep(_EVERY_S)
        quiet_s += _EVERY_S
