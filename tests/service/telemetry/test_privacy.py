"""Texts, voices and keys are never logged at the default level."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

import mynah
from engines.errors import EngineFailure
from engines.fake import Script
from service.access.keys import ApiKey, digest, write_keys
from tests.service.serving import REFERENCE, serving

SECRET = "xylophone"  # a word that the service never uses
KEY = f"mynah-{SECRET}-key"


@pytest.mark.parametrize(
    "script",
    [
        Script(),
        Script(failure=EngineFailure(f"could not say {SECRET}"), fail_after_chunks=1),
        Script(failure=EngineFailure(f"could not say {SECRET}")),
        Script(failure=ValueError(f"could not say {SECRET}"), fail_after_chunks=1),
    ],
    ids=["well", "fails", "fails-at-once", "fault"],
)
async def test_neither_text_nor_names_nor_audio_nor_keys_are_logged(
    script: Script, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    keys = tmp_path / "keys.json"
    write_keys(keys, [ApiKey("anna", digest(KEY))])
    caplog.set_level(logging.INFO)  # the server's default, here for every library too
    async with serving(script, api_keys=keys, voices_dir=tmp_path / "voices", max_pending_text_chars=1000) as at:
        async with mynah.Client(at.address, api_key=KEY) as client:
            await client.voices.create(f"{SECRET} voice", REFERENCE + SECRET.encode(), consent=True, voice_id="anna")
            await send_everything(client)
        async with mynah.Client(at.address, api_key=f"{KEY}-wrong") as stranger:
            await send_everything(stranger)
        await at.settled()
    assert caplog.records, "the log is not empty"
    for record in caplog.records:
        shown = f"{logging.Formatter().format(record)} {getattr(record, 'fields', '')}"
        for hidden in (SECRET, SECRET[:6], REFERENCE[:8].decode("latin-1"), digest(KEY)):
            assert hidden not in shown, shown


async def send_everything(client: mynah.Client) -> None:
    """Sends the secret in every field that a client can set, in valid and in invalid calls."""
    for text in (f"The {SECRET} plays.", f"{SECRET} " * 500, "..."):
        await attempt(spoken(client, text))
    await attempt(spoken(client, f"The {SECRET}.", voice=f"{SECRET} no id"))
    await attempt(spoken(client, f"The {SECRET}.", voice=f"{SECRET}-unknown"))
    await attempt(streamed(client, f"The {SECRET} streams."))
    await attempt(streamed(client, f"The {SECRET} " * 500))
    await attempt(client.voices.create(SECRET, b"broken" + SECRET.encode(), consent=True))
    await attempt(client.voices.create(SECRET, REFERENCE, consent=False))
    await attempt(client.voices.create(SECRET * 50, REFERENCE, consent=True))
    await attempt(client.voices.delete(f"{SECRET}-unknown"))


async def spoken(client: mynah.Client, text: str, voice: str = "anna") -> None:
    async for _ in client.synthesize(text, voice=voice):
        pass


async def streamed(client: mynah.Client, text: str) -> None:
    async with client.stream() as stream:
        await stream.send(text)
        await stream.flush()
        await stream.end()
        async for _ in stream:
            pass


async def attempt(call: Coroutine[Any, Any, object]) -> None:
    try:
        await call
    except mynah.MynahError:
        return
