"""Standard input as text fragments, each as soon as it is written."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

from mynah.cli.text_input import TextDecoder

_READ_BYTES = 4096


async def fragments() -> AsyncIterator[str]:
    """Yields the text of standard input until it is closed. Raises InvalidArgument if it is no text.

    A daemon thread reads, because the event loop cannot wait for a terminal or a file, and a thread that waits for
    input must not block the exit. It reads the next piece only after the last one was consumed.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    consumed = threading.Semaphore(0)
    descriptor = sys.stdin.fileno()

    def read_all() -> None:
        with suppress(RuntimeError):  # the loop is closed because the program ends
            while True:
                piece = _read(descriptor)
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
                if not piece or isinstance(piece, OSError):
                    return
                consumed.acquire()

    threading.Thread(target=read_all, name="stdin", daemon=True).start()
    decoder = TextDecoder("standard input")
    while piece := await pieces.get():
        consumed.release()
        if isinstance(piece, OSError):
            raise piece
        if text := decoder.decode(piece):
            yield text
    if rest := decoder.decode(b"", final=True):
        yield rest


def _read(descriptor: int) -> bytes | OSError:
    try:
        return os.read(descriptor, _READ_BYTES)
    except OSError as error:
        return error
