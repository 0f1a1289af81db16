"""What is at hand: the model, health, and voices - listed, made from an upload, forgotten."""

from __future__ import annotations

import time
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engines.api import Engine
from engines.errors import InvalidInput, invalid_value
from mynah.v1 import voices_pb2
from service.access.admission import Admission
from service.errors import NotFound
from service.handlers.voice_catalogue import VoiceCatalogue
from service.http.requests import Body, must_be, while_connected
from service.stream.policy import StreamPolicy

_FORM = "multipart/form-data"
_FIELDS = ("name", "consent", "voice_id", "audio")
_OTHER_FIELDS_BYTES = 64 * 1024


class RestEndpoints:
    """The endpoints that answer in JSON."""

    def __init__(self, engine: Engine, voices: VoiceCatalogue, admission: Admission, policy: StreamPolicy) -> None:
        self._engine = engine
        self._voices = voices
        self._admission = admission
        self._policy = policy
        self._since = int(time.time())

    async def models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        asked, model = request.path_params["model"], self._model()
        if asked != model["id"]:
            message = f"there is no model {asked!r} here"
            raise NotFound("MODEL_NOT_FOUND", message, field="model", value=asked, allowed=model["id"])
        return JSONResponse(model)

    def _model(self) -> dict[str, Any]:
        return {"id": self._engine.info.model, "object": "model", "created": self._since, "owned_by": "mynah"}

    async def alive(self, _: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(self, _: Request) -> Response:
        self._admission.must_serve()
        return JSONResponse({"status": "ready"})

    async def list_voices(self, request: Request) -> Response:
        query = dict(request.query_params)
        if len(query) != len(request.query_params.multi_items()) or not query.keys() <= {"page_size", "page_token"}:
            raise invalid_value("query", ", ".join(query), "page_size and page_token, each once", "FIELD_UNKNOWN")
        listing = voices_pb2.ListVoicesRequest(page_token=query.get("page_token", ""))
        listing.page_size = _whole("page_size", query.get("page_size", "0"))
        return _answer(await self._voices.list(listing))

    async def voice(self, request: Request) -> Response:
        return _answer(await self._voices.get(request.path_params["voice_id"]))

    async def delete_voice(self, request: Request) -> Response:
        await self._voices.delete(request.path_params["voice_id"])
        return Response(status_code=204)

    async def create_voice(self, request: Request) -> Response:
        must_be(request.scope, _FORM)
        with self._admission.upload():
            body = Body(
                request.receive, self._policy.max_upload_bytes + _OTHER_FIELDS_BYTES, self._policy.stall_timeout_s
            )
            new, audio = await _read_form(Request(request.scope, body), self._policy.max_upload_bytes)
            made = await while_connected(request.receive, self._create(new, audio))
        return _answer(made, 201)

    async def _create(self, new: voices_pb2.NewVoice, audio: bytes) -> voices_pb2.Voice:
        try:
            return await self._voices.create(new, audio)
        except InvalidInput as error:  # in a form the fields stand by themselves
            raise error.named(error.field.removeprefix("metadata.")) from None


async def _read_form(request: Request, max_upload_bytes: int) -> tuple[voices_pb2.NewVoice, bytes]:
    """Raises InvalidInput, and what the body raises. The parser keeps a long file in a temporary one."""
    try:
        form = await request.form(max_files=1, max_fields=len(_FIELDS))
    except (HTTPException, ValueError) as error:
        allowed = f"{_FORM} with {', '.join(_FIELDS)}"
        raise invalid_value("body", "what is no form", allowed, "MESSAGE_INVALID") from error
    try:
        given = dict(form)
        if len(given) != len(form.multi_items()) or not given.keys() <= set(_FIELDS):
            raise invalid_value("body", ", ".join(given), f"{', '.join(_FIELDS)}, each at most once", "FIELD_UNKNOWN")
        new = voices_pb2.NewVoice(name=_text(given, "name"), consent=_consent(_text(given, "consent")))
        if "voice_id" in given:
            new.voice_id = _text(given, "voice_id")
        return new, await _audio(given, max_upload_bytes)
    finally:
        await form.close()


async def _audio(given: dict[str, Any], max_upload_bytes: int) -> bytes:
    file = given.get("audio")
    if not isinstance(file, UploadFile):
        raise invalid_value("audio", "no file", "an audio file", "AUDIO_EMPTY")
    if file.size is not None and file.size > max_upload_bytes:
        raise invalid_value("audio", "a longer upload", f"at most {max_upload_bytes} bytes", "AUDIO_TOO_LARGE")
    return await file.read()


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str):
        raise invalid_value(name, "a file", "a text", "VALUE_INVALID")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise invalid_value(name, "what is no Unicode", "Unicode", "VALUE_INVALID") from None
    return value


def _consent(given: str) -> bool:
    if given.lower() not in ("", "true", "false"):
        raise invalid_value("consent", given, "true: the speaker agreed", "CONSENT_REQUIRED")
    return given.lower() == "true"


def _whole(name: str, text: str) -> int:
    try:
        if not text.isascii():
            raise ValueError
        value = int(text)
        if not -(2**31) <= value < 2**31:
            raise ValueError
    except ValueError:
        raise invalid_value(name, text, "a whole number", "PAGE_SIZE_OUT_OF_RANGE") from None
    return value


def _answer(message: Message, status_code: int = 200) -> Response:
    told = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return JSONResponse(told, status_code)
