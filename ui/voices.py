"""The routes of the voices: list them, create one from a recording, delete one.

A recording is the body of its request, never a file of this host.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

import mynah
from ui.error_messages import error_message
from ui.uploads import Uploads

DEFAULT_VOICE = "default"
_STATUS = {"AUDIO_TOO_LARGE": 413, "UPLOADS_EXHAUSTED": 429, "VOICE_NOT_FOUND": 404, "UNAVAILABLE": 503}


def voice_routes(client: mynah.Client, uploads: Uploads) -> APIRouter:
    router = APIRouter(prefix="/mynah/voices", default_response_class=JSONResponse)

    @router.get("")
    async def list_voices() -> JSONResponse:
        try:
            voices = await client.voices.list()
        except mynah.MynahError as error:
            return _failed(error)
        shown = [_shown(voice) for voice in voices]
        shown.sort(key=lambda voice: (not voice["built_in"], voice["id"] != DEFAULT_VOICE, voice["name"].casefold()))
        return _json({"voices": shown})

    @router.post("")
    async def create(
        request: Request, name: str = "", consent: bool = False, keep_recording: bool = False
    ) -> JSONResponse:
        """Create a voice from the body, the bytes of an audio file."""
        visitor = request.client.host if request.client else ""
        try:
            with uploads.slots.hold(visitor):
                audio = await uploads.read(request.stream())
                if not audio:
                    return _json({"message": "Record or choose a clip first.", "field": "clip"}, 400)
                voice = await client.voices.create(name, audio, consent=consent, keep_recording=keep_recording)
        except mynah.MynahError as error:
            return _failed(error)
        return _json({"created": voice.voice_id, "voice": _shown(voice)}, 201)

    @router.delete("/{voice_id}")
    async def delete(voice_id: str) -> JSONResponse:
        try:
            await client.voices.delete(voice_id)
        except mynah.MynahError as error:
            return _failed(error)
        return _json({"deleted": voice_id})

    return router


def _shown(voice: mynah.Voice) -> dict[str, Any]:
    """A voice as the page's JavaScript takes it: the client's fields, with the page's own names for some."""
    return {
        **asdict(voice),
        "id": voice.voice_id,
        "name": "Built-in voice" if voice.name == DEFAULT_VOICE else voice.name,
        "built_in": voice.built_in,
        "seconds": round(voice.reference_s, 1),
        "created": voice.created.isoformat() if voice.created else "",
    }


def _failed(error: mynah.MynahError) -> JSONResponse:
    shown = error_message(error)
    return _json(shown, _STATUS.get(error.reason, 503 if error.retryable else 400))


def _json(content: dict[str, Any], status: int = 200) -> JSONResponse:
    return JSONResponse(content, status, headers={"cache-control": "no-store"})
