"""A wall clock that jumps, as it does when a machine wakes up or its time is set, changes nothing for clients."""

from __future__ import annotations

import mynah
from tests.faults.servers import CHUNKS, server, speaks
from tests.service.serving import REFERENCE

JUMPING = """
import itertools, time
now, days = time.time, itertools.cycle([0, 400, -400])
time.time = lambda: now() + 86400 * next(days)
"""


async def test_a_clock_that_jumps_at_every_look_is_not_noticed():
    flags = ("--idle-timeout-s", "600", "--stall-timeout-s", "600", "--hang-timeout-s", "600")
    async with server(*flags, before=JUMPING, script=CHUNKS) as at, mynah.Client(at.address) as client:
        voice = await client.voices.create("Anna", REFERENCE, consent=True)
        for _ in range(3):
            assert await speaks(client, voice=voice.voice_id)
        assert (await at.get("/readyz")).status == 200
        assert await at.health("liveness") == "SERVING"
        at.process.terminate()
        assert await at.ended() == 0
        assert " ERROR " not in at.log.read_text()
