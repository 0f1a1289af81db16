"""A server process with real nets, used by the client through a real socket."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import mynah
from bench.demo import server
from tests.clips import speech, wav_bytes

TEXT = "Good morning. This is a short test of the whole thing; it ends here."


class Served:
    """A running server and the event loop of its clients."""

    def __init__(self, runner: asyncio.Runner, address: str) -> None:
        self.runner, self.address = runner, address

    def run(self, conversation):
        async def connected():
            async with mynah.Client(self.address) as client:
                return await conversation(client)

        return self.runner.run(connected())


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with asyncio.Runner() as runner:
        running = server("random:tiny", "--max-streams", "16")
        address = runner.run(running.__aenter__())
        yield Served(runner, address)
        runner.run(running.__aexit__(None, None, None))


async def speak(client: mynah.Client, text: str, voice: str | None = None, schedule: str = "balanced") -> bytes:
    sampling = mynah.Sampling(seed=3, max_speech_tokens=60)
    data = b""
    async with client.stream(voice=voice, sampling=sampling, schedule=schedule) as stream:
        for word in text.split(" "):
            await stream.send(word + " ")
        await stream.end()
        async for chunk in stream:
            data += chunk.data
    return data


def test_text_word_by_word_becomes_sound_and_a_seed_with_a_schedule_repeats_it(served: Served) -> None:
    samples, again = (np.frombuffer(served.run(lambda client: speak(client, TEXT)), "<i2") for _ in range(2))
    assert len(samples) == len(again)
    # windows of the two segments share a call or not, by what is ready: the same up to rounding (docs/api.md)
    assert np.abs(samples.astype(int) - again).max() <= 10  # 3e-4, as for rows of the vocoder
    assert len(samples) > 24_000
    assert samples.std() > 30


def test_speech_starts_while_text_is_still_to_come(served: Served) -> None:
    async def converse(client: mynah.Client) -> bool:
        async with client.stream(sampling=mynah.Sampling(seed=1, max_speech_tokens=60)) as stream:
            await stream.send("This is the first sentence. And")
            async for _ in stream:
                break  # received before the second sentence was sent
            await stream.send(" this is the second.")
            await stream.end()
            return sum([1 async for _ in stream]) > 0

    assert served.run(converse)


def test_a_voice_cloned_from_a_clip_speaks(served: Served) -> None:
    async def converse(client: mynah.Client) -> tuple[bytes, bytes]:
        voice = await client.voices.create("slt", wav_bytes(*speech(8.0)), consent=True)
        mine = await speak(client, TEXT, voice.voice_id)
        await client.voices.delete(voice.voice_id)
        return mine, await speak(client, TEXT)

    mine, default = served.run(converse)
    assert len(mine) > 48_000
    assert mine != default


def test_cancel_is_answered_and_the_stream_goes_on(served: Served) -> None:
    async def converse(client: mynah.Client) -> tuple[int, int]:
        after = 0
        async with client.stream(sampling=mynah.Sampling(seed=2, max_speech_tokens=200)) as stream:
            await stream.send("A long sentence that is cancelled before its end, however long it takes. ")
            await stream.flush()
            async for _ in stream:
                break
            await stream.cancel()
            async for event in stream.events():
                if isinstance(event, mynah.Cancelled):
                    made = event.made_samples
                    break
            await stream.send("Something else.")
            await stream.end()
            async for chunk in stream:
                after += chunk.samples
        return made, after

    made, after = served.run(converse)
    assert made > 0
    assert after > 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"voice": "nobody"}, "VOICE_NOT_FOUND"),
        ({"sampling": mynah.Sampling(temperature=float("nan"))}, "SAMPLING_OUT_OF_RANGE"),
        ({"sampling": mynah.Sampling(top_p=1.5)}, "SAMPLING_OUT_OF_RANGE"),
    ],
)
def test_bad_settings_are_reported_and_the_server_goes_on(served: Served, settings: dict, reason: str) -> None:
    async def converse(client: mynah.Client) -> str:
        with pytest.raises(mynah.MynahError) as caught:
            async with client.stream(**settings):
                pass
        return caught.value.reason

    assert served.run(converse) == reason
    assert served.run(lambda client: speak(client, "Still here."))


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        (b"RIFFnothing at all", "AUDIO_NOT_DECODABLE"),
        (wav_bytes(np.zeros(24_000 * 6, np.float32), 24_000), "AUDIO_SILENT"),
        (wav_bytes(np.full(24_000, 0.1, np.float32), 24_000), "AUDIO_TOO_SHORT"),
    ],
)
def test_unusable_clips_have_different_reasons(served: Served, audio: bytes, reason: str) -> None:
    async def converse(client: mynah.Client) -> str:
        with pytest.raises(mynah.InvalidArgument) as caught:
            await client.voices.create("bad", audio, consent=True)
        return caught.value.reason

    assert served.run(converse) == reason


def test_the_command_line_leaves_a_wav(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "said.wav"
    command = [sys.executable, "-m", "mynah", "--server", served.address, "say", "Hello there.", "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels()) == (24_000, 1)
        assert file.getnframes() > 0
