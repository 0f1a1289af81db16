"""LiveKit Agents' NVIDIA and OpenAI plugins with this server as their endpoint: words in, audio and voices out."""

from __future__ import annotations

import pytest
from livekit.agents.utils.http_context import open as http_context
from livekit.plugins import nvidia, openai

from tests.clients.conftest import Addresses

SENTENCES = ["Good morning to everybody here. ", "This is the second sentence of three. ", "And that was it."]


def plugin(server: Addresses) -> nvidia.TTS:
    return nvidia.TTS(server=server.grpc, voice="mynah.default", use_ssl=False)


async def test_words_become_audio(server: Addresses):
    async with http_context(), plugin(server) as tts, tts.stream() as stream:
        for word in "".join(SENTENCES).split(" "):
            stream.push_text(word + " ")
        stream.end_input()
        frames = [audio.frame async for audio in stream]
    assert {frame.sample_rate for frame in frames} == {16_000}
    spoken_s = sum(len(sentence.strip()) for sentence in SENTENCES) * 0.04
    assert abs(sum(frame.duration for frame in frames) - spoken_s) < 0.1


async def test_the_plugin_lists_the_voices(server: Addresses):
    assert plugin(server).list_voices() == {"en-US": {"voices": ["mynah.default"]}}


async def test_the_openai_plugin_works_with_its_defaults(server: Addresses):
    text = "".join(SENTENCES)
    tts = openai.TTS(base_url=f"http://{server.http}/v1", api_key="unused")
    async with http_context(), tts, tts.synthesize(text) as stream:
        duration_s = sum([audio.frame.duration async for audio in stream])
    assert duration_s == pytest.approx(len(text) * 0.04, abs=0.5)  # MP3 pads
