"""Standard input as fragments of text, each as soon as it is written. Knows nothing of what becomes of it."""

from __future__ import annotations

import asyncio
import codecs
import os
import sys
import threading
from collections.abc import AsyncIterator

_READ_BYTES = 4096


async def fragments() -> AsyncIterator[str]:
    """What is written to standard input (UTF-8; bytes that are not become U+FFFD), until it is closed.

    Read by a daemon thread: a terminal or a file cannot be waited for by the event loop, and a thread that waits
    for input must not keep the program from ending. The thread reads on only when the last piece was taken.
    """
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes | OSError] = asyncio.Queue(1)
    descriptor = sys.stdin.fileno()

    def read_all() -> None:
        while True:
            try:
                piece: bytes | OSError = os.read(descriptor, _READ_BYTES)
            except OSError as error:
                piece = error
            try:
                asyncio.run_coroutine_threadsafe(pieces.put(piece), loop).result()
            except (RuntimeError, asyncio.CancelledError):
                return  # the program is ending
            if not piece or isinstance(piece, OSError):
                return

    threading.Thread(target=read_all, name="stdin", daemon=True).start()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while piece := await pieces.get():
        if isinstance(piece, OSError):
            raise piece
        if text := decoder.decode(piece):
            yield text
    if rest := decoder.decode(b"", final=True):
        yield rest
