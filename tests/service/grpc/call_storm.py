"""Blocking clients in their own process, whose calls end in every possible way: `call_storm ADDRESS CALLS SEED`.

Prints one line of JSON: for each call what it was, its status and its reason. Both surfaces are called with raw bytes.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from riva.client.proto import riva_tts_pb2

from mynah.client.errors import from_status
from tests.service.serving import flush, opening, text

PATIENCE_S = 8.0  # a call without its status by then was forgotten
TOO_MUCH = "x" * 30_000
METHODS = {
    "riva": "/nvidia.riva.tts.RivaSpeechSynthesis/SynthesizeOnline",
    "ours": "/mynah.v1.Speech/StreamSpeech",
}


def riva_says(content: str = "One. Two. ", **settings: Any) -> bytes:
    return bytes(riva_tts_pb2.SynthesizeSpeechRequest(text=content, **settings).SerializeToString())


def said(*requests: Any) -> list[bytes]:
    return [request.SerializeToString() for request in requests]


GARBAGE = b"\xff" * 9
CALLS: dict[str, dict[str, list[bytes]]] = {
    "riva": {
        "fine": [riva_says()] * 3,
        "nothing": [],
        "settings": [riva_says(), riva_says(sample_rate_hz=8_000)],
        "nobody": [riva_says(voice_name="nobody"), riva_says()],
        "too much": [riva_says(), riva_says(TOO_MUCH), riva_says()],
        "garbage": [riva_says(), GARBAGE, riva_says()],
    },
    "ours": {
        "fine": said(opening(), text("One. Two. "), flush(1), text("Three. ")),
        "nothing": [],
        "settings": said(opening(), text("One. Two. "), opening()),
        "nobody": said(opening(voice_id="nobody"), text("One. ")),
        "too much": said(opening(), text("One. "), text(TOO_MUCH), flush(1)),
        "garbage": [*said(opening(), text("One. "), flush(1)), GARBAGE],
    },
}


class Storm:
    """Random calls that go wrong at random moments."""

    def __init__(self, address: str, seed: int) -> None:
        self._address = address
        self._seed = seed

    def call(self, number: int) -> tuple[str, str, str]:
        """The kind of call, its status and its reason."""
        chance = random.Random(f"{self._seed}.{number}")
        surface = chance.choice(["riva", "riva", "ours"])
        kind = chance.choice(list(CALLS[surface]))
        leaving = chance.choice(["stays", "stays", "stays", "cancels", "deadline", "breaks"])
        options = (("grpc.use_local_subchannel_pool", 1),)  # so that what breaks is this call's connection
        with grpc.insecure_channel(self._address, options) as channel:
            method = channel.stream_stream(METHODS[surface])
            patience_s = chance.uniform(0.001, 0.03) if leaving == "deadline" else PATIENCE_S
            running = method(_slowly(CALLS[surface][kind], chance), timeout=patience_s)
            leave = {"cancels": running.cancel, "breaks": channel.close}.get(leaving)
            timer = threading.Timer(chance.uniform(0, 0.03), leave) if leave else None
            if timer:
                timer.start()
            status, reason = _end(running)
            if timer:
                timer.join()
        return f"{surface} {kind} {leaving}", status, reason


def _slowly(requests: list[bytes], chance: random.Random) -> Iterator[bytes]:
    """Sends at once, or with pauses, so that the server may be anywhere in its answer."""
    longest_s = chance.choice([0.0, 0.0, 0.001, 0.01])
    for request in requests:
        if longest_s:
            time.sleep(chance.uniform(0, longest_s))
        yield request


def _end(running: Any) -> tuple[str, str]:
    try:
        for _ in running:
            pass
    except grpc.RpcError as error:
        failed: Any = error
        trailing = [(str(key), value) for key, value in failed.trailing_metadata() or ()]
        return failed.code().name, from_status(failed.code().name, failed.details() or "", trailing).reason or ""
    return "OK", ""


def main() -> None:
    storm = Storm(sys.argv[1], int(sys.argv[3]))
    with ThreadPoolExecutor(6) as threads:
        print(json.dumps(list(threads.map(storm.call, range(int(sys.argv[2]))))))


if __name__ == "__main__":
    main()
