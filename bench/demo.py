"""`make demo`: starts a server, streams a paragraph word by word through the client, writes a WAV and prints figures.

The figures are measured by the client, over a real socket. At a terminal the page is served afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import mynah
from tools import children

PARAGRAPH = (
    "Good morning, and welcome aboard. This is Mynah, and I begin to speak before the text is complete: words come in "
    "one at a time, the way a language model finds them, and you can listen to each sentence as soon as it is ready. "
    "Last year Dr. Miller measured it at 3.5 seconds; I hope to do better today. Shall we start?"
)
WORDS_PER_S = 12.0  # about the speed of a language model
GRPC_ADDRESS, HTTP_ADDRESS = r"listening on (\S+)", r"HTTP at http://(\S+)"
_READY = "serving after"


async def speak(address: str, wav: Path) -> None:
    """Stream the paragraph, write the WAV, print the figures."""
    async with mynah.Client(address) as client:
        info = await client.info()
        print(f"model {info.model} on {info.device}, T3 on {info.t3_runtime}, S3Gen on {info.s3gen_runtime}")
        if info.notice:
            print(f"note: {info.notice}")
        started_s = time.perf_counter()
        first_s, chunks, data = 0.0, 0, bytearray()
        stream = client.stream(audio_format="pcm_s16le", sample_rate_hz=24_000)
        async with stream, asyncio.TaskGroup() as tasks:
            tasks.create_task(_write_words(stream))
            async for chunk in stream:
                first_s = first_s or time.perf_counter() - started_s
                chunks += 1
                data += chunk.data
                _show_progress(len(data) / 48_000)
        wall_s = time.perf_counter() - started_s
    _show_progress(None)
    _save(wav, bytes(data))
    audio_s = len(data) / 48_000
    print(f"time to first audio  {first_s:.2f} s after the first word was sent")
    print(f"real-time factor     {wall_s / audio_s:.2f} ({audio_s:.1f} s of speech in {wall_s:.1f} s)")
    print(f"chunks               {chunks}")
    print(f"audio                {wav}")


def _show_progress(audio_s: float | None) -> None:
    """Show it at a terminal only; None ends the line."""
    if sys.stderr.isatty():
        print("" if audio_s is None else f"\r{audio_s:6.1f} s of speech", end="", file=sys.stderr, flush=True)
        if audio_s is None:
            print(file=sys.stderr)


async def _write_words(stream: mynah.SpeechStream) -> None:
    for word in re.findall(r"\S+\s*", PARAGRAPH):
        await stream.send(word)
        await asyncio.sleep(1 / WORDS_PER_S)
    await stream.end()


def _save(path: Path, pcm: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes(pcm)


@asynccontextmanager
async def server(model: str, *flags: str, pattern: str = GRPC_ADDRESS) -> AsyncIterator[str]:
    """A server process on a free port. Yields the address that matches `pattern` in its output once it is ready."""
    command = [
        sys.executable,
        "-m",
        "service.launch",
        "--model",
        model,
        "--listen",
        "127.0.0.1:0",
        "--voices-dir",
        "memory",
    ]
    command += flags
    async with children.child(*command, stdout=asyncio.subprocess.PIPE) as process:
        assert process.stdout is not None
        address = ""
        while line := (await process.stdout.readline()).decode():
            print(line.rstrip())
            if match := re.search(pattern, line):
                address = match[1]
            if _READY in line:
                break
        else:
            raise SystemExit(f"The server ended before it was ready, with exit code {await process.wait()}.")
        yield address


async def page(python: str, address: str) -> None:
    """Serve the page until a signal ends it."""
    async with children.child(python, "-m", "ui", "--server", address) as process:
        await process.wait()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="auto", help="see mynah-serve (default: auto)")
    parser.add_argument("--output", type=Path, default=Path("build/demo.wav"))
    parser.add_argument("--page", metavar="PYTHON", help="then serve the page with this Python interpreter")
    arguments = parser.parse_args()
    async with server(arguments.model, "--log-level", "warning") as address:
        await speak(address, arguments.output)
        if arguments.page is None:
            print("page                 make serve, then http://127.0.0.1:7860/")
        else:
            await page(arguments.page, address)


if __name__ == "__main__":
    sys.exit(children.run(main()))
