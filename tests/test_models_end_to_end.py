"""Three models in one server on real engines: the shipped one, GPT-2 and Llama of random weights, at tiny size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

import mynah
from engines.model_spec import SAMPLES_PER_TOKEN
from service.config import build_config
from service.engine_loader import lazy_models
from service.server import Server
from tests.clips import speech, wav_bytes

MODELS = ("tiny", "noise=random:tiny", "random:multilingual-tiny")
NAMES = ["tiny", "noise", "multilingual-tiny"]
TOKENS = 8


@asynccontextmanager
async def three_models(voices_dir: Path) -> AsyncIterator[tuple[mynah.Client, httpx.AsyncClient]]:
    config = build_config(
        model=MODELS, device="cpu", threads=1, max_streams=3, strict_reference=True, watermark=False,
        listen="127.0.0.1:0", http_listen="127.0.0.1:0", voices_dir=voices_dir,
    )  # fmt: skip
    server = Server(lazy_models(config), config)
    address, http = await server.start(), await server.start_http()
    try:
        await server.warm_up()
        async with mynah.Client(address) as client, httpx.AsyncClient(base_url=f"http://{http}") as over_http:
            yield client, over_http
    finally:
        await server.stop(0)


async def spoken(client: mynah.Client, model: str | None, voice: str | None = None) -> bytes:
    sampling = mynah.Sampling(seed=3, max_speech_tokens=TOKENS)
    chunks = client.synthesize("Good morning.", model=model, voice=voice, sampling=sampling, schedule="balanced")
    return b"".join([chunk.data async for chunk in chunks])


async def test_three_models_speak_at_once_each_with_its_own_voice(tmp_path: Path):
    async with three_models(tmp_path) as (client, http):
        info = await client.info()
        assert [model.name for model in info.models] == NAMES
        assert [model.cfg_weight_default is None for model in info.models] == [True, True, False]
        assert [model.random_weights for model in info.models] == [False, True, True]
        assert info.limits.max_open_streams == 3
        at_once = await asyncio.gather(*(spoken(client, name) for name in NAMES))
        assert all(0 < len(audio) <= 2 * SAMPLES_PER_TOKEN * (TOKENS + 4) for audio in at_once)
        assert len(set(at_once)) == 3
        assert await spoken(client, None) == await spoken(client, "tiny")
        body = {"model": "noise", "input": "Good morning.", "response_format": "pcm", "seed": 3, "schedule": "balanced"}
        over_http = await http.post("/v1/audio/speech", json=body | {"max_speech_token_count": TOKENS})
        assert over_http.content == await spoken(client, "noise")

        clip = wav_bytes(*speech(7.0))
        await client.voices.create("Anna", clip, consent=True, voice_id="anna", keep_recording=True)
        await client.voices.create("Bert", clip, consent=True, voice_id="bert", model="noise")
        assert len({await spoken(client, name, "anna") for name in NAMES}) == 3
        assert await spoken(client, "noise", "bert")
        with pytest.raises(mynah.WrongState) as raised:
            await spoken(client, "tiny", "bert")
        assert raised.value.reason == "VOICE_OF_ANOTHER_MODEL"
