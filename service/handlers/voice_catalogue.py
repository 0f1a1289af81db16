"""The handler of voices, whatever the transport: create, get, list in pages, delete.

Both sides speak the contract's messages. The surfaces bound an upload's bytes and time.
"""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

from engines.errors import InvalidInput
from mynah.v1 import voices_pb2
from service.access.auth import Authenticator
from service.handlers import messages
from service.handlers.stream_log import Origin, audit_voice
from service.handlers.voice_check import VoiceCheck
from service.models import Models
from service.telemetry.metrics import VOICE_CREATION
from service.voices.ids import check_id
from service.voices.lookup import VoiceLookup
from service.voices.store import VoiceStore
from service.voices.stored_voice import VoiceSummary

MAX_NAME_CHARS = 80
MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 50
CONSENT = "given by the uploader"  # without it no voice is made


class VoiceCatalogue:
    """Manages voices for every surface, and raises every refusal."""

    def __init__(self, models: Models, voices: VoiceStore, check: VoiceCheck, authenticator: Authenticator) -> None:
        self._models = models
        self._voices = voices
        self._check = check
        self._authenticator = authenticator
        self._lookup = VoiceLookup(voices)

    async def check(self, new: voices_pb2.NewVoice) -> None:
        """Raises what `create` would before it reads the audio: InvalidInput, AlreadyExists, ResourceExhausted, and
        NotFound for the model."""
        _check_new(new)
        self._models.named(new.model, "metadata.model")
        await self._voices.check_can_add(_id_of(new))

    async def create(self, new: voices_pb2.NewVoice, audio: bytes, origin: Origin) -> voices_pb2.Voice:
        """Make a voice from an audio file and store it. Raises as `check`, and InvalidInput for the audio."""
        await self.check(new)
        if not audio:
            message = "audio is empty: send an audio file."
            raise InvalidInput("audio", message, "AUDIO_EMPTY", value="0 bytes", allowed="an audio file")
        began_s = monotonic()
        normalize_loudness = not new.HasField("normalize_loudness") or new.normalize_loudness
        engine = self._models.named(new.model, "metadata.model")
        voice = await engine.make_voice(audio, name=new.name.strip(), normalize_loudness=normalize_loudness)
        checked = await self._check.checked(voice, engine)
        agreed = replace(checked, metadata={**checked.metadata, "consent": CONSENT})
        recording = audio if new.keep_recording else None
        stored = await self._voices.add(agreed, _id_of(new), recording, levelled=normalize_loudness)
        VOICE_CREATION.observe(monotonic() - began_s)
        self._audit("voice created", stored.voice_id, origin, CONSENT, recording is not None)
        return self._message(stored)

    async def get(self, voice_id: str) -> voices_pb2.Voice:
        """A voice by its id or name. Raises InvalidInput, NotFound."""
        return self._message(await self._lookup.get(voice_id))

    async def list(self, request: voices_pb2.ListVoicesRequest) -> voices_pb2.ListVoicesResponse:
        """One page. Raises InvalidInput."""
        summaries, more = await self._voices.page(_page_start(request.page_token), _page_size(request.page_size))
        token = summaries[-1].voice_id if more else ""
        return voices_pb2.ListVoicesResponse(voices=map(self._message, summaries), next_page_token=token)

    async def delete(self, voice_id: str, origin: Origin) -> None:
        """Deletes a voice by its id or name. Raises InvalidInput, NotFound, FailedPrecondition for a built-in one."""
        resolved = await self._lookup.resolve(voice_id)
        await self._voices.remove(resolved)
        self._audit("voice deleted", resolved, origin)

    def _audit(
        self, what: str, voice_id: str, origin: Origin, consent: str | None = None, recording_kept: bool | None = None
    ) -> None:
        audit_voice(what, self._authenticator.caller().name, origin, voice_id, consent, recording_kept)

    def _message(self, stored: VoiceSummary) -> voices_pb2.Voice:
        return messages.voice(stored, self._voices.kept)


def _id_of(new: voices_pb2.NewVoice) -> str | None:
    return new.voice_id if new.HasField("voice_id") else None


def _check_new(new: voices_pb2.NewVoice) -> None:
    name = new.name.strip()
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
        allowed = f"1 to {MAX_NAME_CHARS} printable chars, not blank"
        message = f"metadata.name must have {allowed}."
        raise InvalidInput("metadata.name", message, "VOICE_NAME_INVALID", value=new.name, allowed=allowed)
    if not new.consent:
        message = "metadata.consent must be true: a voice may only be made if its speaker agreed."
        raise InvalidInput("metadata.consent", message, "CONSENT_REQUIRED", value="false", allowed="true")
    if new.HasField("voice_id"):
        check_id(new.voice_id)


def _page_size(size: int) -> int:
    if not 0 <= size <= MAX_PAGE_SIZE:
        allowed = f"0 to {MAX_PAGE_SIZE}"
        message = f"page_size is {size}; it must be {allowed}."
        raise InvalidInput("page_size", message, "PAGE_SIZE_OUT_OF_RANGE", value=size, allowed=allowed)
    return size or DEFAULT_PAGE_SIZE


def _page_start(token: str) -> str:
    if token:
        try:
            check_id(token)
        except InvalidInput:
            allowed = "empty, or the next_page_token of the page before"
            message = f"page_token must be {allowed}."
            raise InvalidInput("page_token", message, "PAGE_TOKEN_INVALID", value=token, allowed=allowed) from None
    return token
