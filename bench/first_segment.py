"""Time to first audio from a writer of 12 words a second, by where the first segment may end, on the shipped model.

`python -m bench.first_segment` speaks ten sentences of twenty words, as language models answer, word by word through a
real server. The time is from the first word sent to the first chunk received.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import get_args

import engines
import mynah
from bench.report import publish, table
from engines.config import EngineConfig
from mynah.client.settings import FirstSegment
from service.config import build_config
from service.server import Server

WORDS_PER_S = 12.0
SENTENCES = (
    "Sure, I can help you with that booking, but I will need the date and the name on it first.",
    "The train to the coast leaves at nine in the morning from platform four and arrives there shortly before noon.",
    "You should restart the router first, because most of these problems go away when it has loaded all its settings.",
    "I looked at your order from last week and it seems that the second parcel is still waiting there today.",
    "Our office opens at eight on weekdays, and you can leave a message with the desk if you come early.",
    "That depends on the kind of plan you have, since the smaller one does not include calls to other countries.",
    "Before we begin the call today, please make sure that you have your card and your account number with you.",
    "The recipe needs two eggs and a cup of flour, which you mix with warm milk before you add sugar.",
    "Yes, the museum is open on Sunday afternoon, though the rooms on the upper floor will stay closed until spring.",
    "Thank you for waiting while I checked that for you, the payment went through yesterday and you owe us nothing.",
)


async def _ttfa_s(client: mynah.Client, sentence: str, first_segment: FirstSegment) -> float:
    async with client.stream(first_segment=first_segment) as stream:

        async def write() -> None:
            for word in f"{sentence} And so on.".split():
                await stream.send(f"{word} ")
                await asyncio.sleep(1 / WORDS_PER_S)
            await stream.end()

        began_s = time.perf_counter()
        writing = asyncio.create_task(write())
        async for _ in stream:
            writing.cancel()
            return time.perf_counter() - began_s
    raise AssertionError("there was no audio")


async def measure(sentences: tuple[str, ...] = SENTENCES) -> dict[str, list[float]]:
    """Returns the times of every value of `first_segment`."""
    server = Server(engines.load(EngineConfig(model="tiny", device="cpu")), build_config(listen="127.0.0.1:0"))
    address = await server.start()
    await server.warm_up()
    try:
        async with mynah.Client(address) as client:
            return {
                mode: [await _ttfa_s(client, sentence, mode) for sentence in sentences]
                for mode in get_args(FirstSegment)
            }
    finally:
        await server.stop(0)


def main() -> None:
    results = asyncio.run(measure())
    rows = [[mode, median(times), max(times)] for mode, times in results.items()]
    publish("first_segment", table(["first_segment", "median, s", "longest, s"], rows), {"ttfa_s": results})


if __name__ == "__main__":
    main()
