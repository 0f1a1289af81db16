"""Standard input as fragments of text, each as soon as it is written. Knows nothing of what becomes of it."""

from __future__ import annotations

import asyncio
import codecs
import os
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

_READ_BYTES = 4096


async def fragments() -> AsyncIterator[str]:
    """What is written to standard input (UTF-8; bytes that are not become U+FFFD), until it is closed.

    Read by a daemon thread: a terminal or a file cannot be waited for by the event loop, and a thread that waits
    for input must not keep the program from ending. The thread reads on only when the last piece was taken.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    taken = threading.Semaphore(0)
    descriptor = sys.stdin.fileno()

    def read_all() -> None:
        with suppress(RuntimeError):  # the loop is closed: the program is ending
            while True:
                piece = _read(descriptor)
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
                if not piece or isinstance(piece, OSError):
                    return
                taken.acquire()

    threading.Thread(target=read_all, name="stdin", daemon=True).start()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while piece := await pieces.get():
        taken.release()
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
