"""Voices as the contract describes them, whatever carries the calls: checks, making, lists in pages.

Speaks the contract's messages. Bounds on an upload's bytes and time are the surface's; knows no RPC.
"""

from __future__ import annotations

from dataclasses import replace

from engines.api import Engine
from engines.errors import InvalidInput, invalid_value
from mynah.v1 import voices_pb2
from service.handlers import messages
from service.voices.ids import check_id
from service.voices.store import VoiceStore

MAX_NAME_CHARS = 80
MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 50


class VoiceCatalogue:
    """What every surface of voices does. Raises all refusals."""

    def __init__(self, engine: Engine, voices: VoiceStore) -> None:
        self._engine = engine
        self._voices = voices

    async def check(self, new: voices_pb2.NewVoice) -> None:
        """Whether `create` would come to looking at the audio. Raises InvalidInput, AlreadyExists, NoRoom."""
        _check_new(new)
        await self._voices.check_can_add(_id_of(new))

    async def create(self, new: voices_pb2.NewVoice, audio: bytes) -> voices_pb2.Voice:
        """Make a voice of an audio file and keep it. Raises as `check`, and InvalidInput for the audio."""
        await self.check(new)
        if not audio:
            raise invalid_value("audio", "0 bytes", "an audio file", "AUDIO_EMPTY")
        voice = await self._engine.make_voice(audio, name=new.name.strip())
        noted = replace(voice, metadata={**voice.metadata, "consent": "given by the uploader"})
        return messages.voice(await self._voices.add(noted, _id_of(new)))

    async def get(self, voice_id: str) -> voices_pb2.Voice:
        """Raises InvalidInput, NotFound."""
        return messages.voice(await self._voices.get(voice_id))

    async def list(self, request: voices_pb2.ListVoicesRequest) -> voices_pb2.ListVoicesResponse:
        """One page. Raises InvalidInput."""
        found, more = await self._voices.page(_page_start(request.page_token), _page_size(request.page_size))
        token = found[-1].voice_id if more else ""
        return voices_pb2.ListVoicesResponse(voices=map(messages.voice, found), next_page_token=token)

    async def delete(self, voice_id: str) -> None:
        """Raises InvalidInput, NotFound, OutOfOrder for the built-in voice."""
        await self._voices.remove(voice_id)


def _id_of(new: voices_pb2.NewVoice) -> str | None:
    return new.voice_id if new.HasField("voice_id") else None


def _check_new(new: voices_pb2.NewVoice) -> None:
    name = new.name.strip()
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
        allowed = f"1 to {MAX_NAME_CHARS} printable chars, not blank"
        raise invalid_value("metadata.name", new.name, allowed, "VOICE_NAME_INVALID")
    if not new.consent:
        raise invalid_value("metadata.consent", new.consent, "true: the speaker agreed", "CONSENT_REQUIRED")
    if new.HasField("voice_id"):
        check_id(new.voice_id)


def _page_size(asked: int) -> int:
    if not 0 <= asked <= MAX_PAGE_SIZE:
        raise invalid_value("page_size", asked, f"[0, {MAX_PAGE_SIZE}]", "PAGE_SIZE_OUT_OF_RANGE")
    return asked or DEFAULT_PAGE_SIZE


def _page_start(token: str) -> str:
    if token:
        try:
            check_id(token)
        except InvalidInput:
            allowed = "empty, or the next_page_token of the page before"
            raise invalid_value("page_token", token, allowed, "PAGE_TOKEN_INVALID") from None
    return token
