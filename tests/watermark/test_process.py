"""`mynah-serve --watermark on` as a process: its audio is marked and otherwise the same."""

from __future__ import annotations

import importlib.util
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np

import mynah
from engines.api import Samples
from tests.service.test_process import process, serving


async def synthesised(watermark: str) -> Samples:
    perth = importlib.util.find_spec("perth")
    assert perth is not None
    assert perth.origin is not None
    async with AsyncExitStack() as held:
        flags = ("--watermark", watermark)
        running = await held.enter_async_context(process(*flags, path=str(Path(perth.origin).parents[1])))
        client = await held.enter_async_context(mynah.Client(await serving(running)))
        sampling = mynah.Sampling(seed=1)
        stream = await held.enter_async_context(client.stream(audio_format="pcm_f32le", sampling=sampling))
        await stream.send("A sentence that is long enough to carry a mark from its beginning to its end.")
        await stream.end()
        data = b"".join([chunk.data async for chunk in stream])
    return np.frombuffer(data, np.float32)


async def test_the_audio_of_clients_is_marked():
    plain, marked = await synthesised("off"), await synthesised("on")
    assert len(marked) == len(plain) > 48_000
    difference = np.abs(marked - plain)
    assert np.count_nonzero(difference) > 0.5 * len(plain)
    assert difference.max() < 0.2
