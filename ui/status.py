"""The state of the Mynah server, streamed to browsers as it changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import mynah
from ui.error_messages import error_message

_POLL_EVERY_S = 1.5
_KEEPALIVE_S = 15.0  # shorter than the idle timeout of proxies; also detects a browser that left


async def state(client: mynah.Client, server: str) -> dict[str, Any]:
    """Returns `up`, the server's info and whether it takes new streams, or `up` False and the error.

    `accepts` agrees with what Speak does: a server that warms up or drains answers, but opens no stream.
    """
    try:
        info, accepts = await client.info(), await client.health()
    except mynah.MynahError as error:
        return {"up": False, "server": server, **error_message(error)}
    shown = {name: value for name, value in asdict(info).items() if name not in ("audio_formats", "sample_rates_hz")}
    message = "" if accepts else "The speech server is starting or stopping: it takes no text at the moment."
    return {"up": True, "server": server, "accepts": accepts, "message": message, **shown}


async def watch(client: mynah.Client, server: str) -> AsyncIterator[str]:
    """Yields server-sent events: the state now and after each change."""
    sent, quiet_s = "", 0.0
    while True:
        now = json.dumps(await state(client, server))
        if now != sent:
            sent, quiet_s = now, 0.0
            yield f"data: {now}\n\n"
        elif quiet_s >= _KEEPALIVE_S:
            quiet_s = 0.0
            yield ": keepalive\n\n"
        await asyncio.sleep(_POLL_EVERY_S)
        quiet_s += _POLL_EVERY_S
