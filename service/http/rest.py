"""JSON endpoints: models, the server's info, health, and voices (list, create, get, delete)."""

from __future__ import annotations

import reprlib
import time
from contextlib import aclosing
from typing import Any

from google.protobuf.message import Message
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engines.conditioning.limits import HEAD_BYTES, check_head, too_large
from engines.errors import InvalidInput
from mynah.v1 import voices_pb2
from service.access.admission import Admission
from service.access.turns import Account
from service.errors import NotFound
from service.handlers.messages import server_info
from service.handlers.stream_log import Origin
from service.handlers.voice_catalogue import MAX_PAGE_SIZE, VoiceCatalogue
from service.http.frames import json_fields
from service.http.requests import Body, require_media_type, while_connected
from service.http.speech_request import MODEL_ALIASES
from service.models import Models, model_not_found
from service.stream.policy import StreamPolicy

_FORM = "multipart/form-data"
_FIELDS = ("name", "consent", "voice_id", "normalize_loudness", "keep_recording", "model", "audio")
_OTHER_FIELDS_BYTES = 64 * 1024
_VOICES_AT_ONCE = 50


class RestEndpoints:
    """The endpoints that answer in JSON."""

    def __init__(
        self, models: Models, voices: VoiceCatalogue, admission: Admission, policy: StreamPolicy, version: str
    ) -> None:
        self._models = models
        self._voices = voices
        self._admission = admission
        self._policy = policy
        self._version = version
        self._created_s = int(time.time())

    async def models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": list(map(self._model, self._models.names))})

    async def model(self, request: Request) -> Response:
        name, known = request.path_params["model"], (*self._models.names, *MODEL_ALIASES)
        if name not in known:
            raise model_not_found(name, known)
        return JSONResponse(self._model(name))

    async def audio_models(self, _: Request) -> Response:
        """The models, where Open WebUI and others ask for them."""
        return JSONResponse({"models": [{"id": name, "name": name} for name in self._models.names]})

    async def audio_voices(self, _: Request) -> Response:
        """All voices, where Open WebUI and others ask for them."""
        listing = voices_pb2.ListVoicesRequest(page_size=MAX_PAGE_SIZE)
        voices: list[dict[str, str]] = []
        while True:
            page = await self._voices.list(listing)
            voices += [{"id": voice.voice_id, "name": voice.name} for voice in page.voices]
            if not page.next_page_token:
                return JSONResponse({"voices": voices})
            listing.page_token = page.next_page_token

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created_s, "owned_by": "mynah"}

    async def info(self, _: Request) -> Response:
        """GetServerInfo over HTTP."""
        open_streams = self._admission.streams.in_use
        return _json(server_info(self._models.infos, self._policy, self._version, open_streams))

    async def healthz(self, _: Request) -> Response:
        self._admission.check_alive()
        return JSONResponse({"status": "alive"})

    async def readyz(self, _: Request) -> Response:
        self._admission.check_serving()
        return JSONResponse({"status": "ready"})

    async def list_voices(self, request: Request) -> Response:
        query = dict(request.query_params)
        if len(query) != len(request.query_params.multi_items()) or not query.keys() <= {"page_size", "page_token"}:
            allowed = "page_size and page_token, each at most once"
            message = f"The query has an unknown or repeated parameter; allowed are {allowed}."
            raise InvalidInput("query", message, "FIELD_UNKNOWN", value=", ".join(query), allowed=allowed)
        listing = voices_pb2.ListVoicesRequest(page_token=query.get("page_token", ""))
        listing.page_size = _page_size(query.get("page_size", "0"))
        return JSONResponse(await self._page(await self._voices.list(listing)))

    async def _page(self, page: voices_pb2.ListVoicesResponse) -> dict[str, Any]:
        """The page's JSON. A thousand voices take as long as a chunk of audio may wait, so they take turns."""
        turns, account, voices = self._admission.turns, Account(), []
        for start in range(0, len(page.voices), _VOICES_AT_ONCE):
            await turns.wait(account)
            with turns.spending(account):
                voices += [json_fields(voice) for voice in page.voices[start : start + _VOICES_AT_ONCE]]
        del page.voices[:]
        return json_fields(page) | {"voices": voices}

    async def voice(self, request: Request) -> Response:
        return _json(await self._voices.get(request.path_params["voice_id"]))

    async def delete_voice(self, request: Request) -> Response:
        await self._voices.delete(request.path_params["voice_id"], _origin(request))
        return Response(status_code=204)

    async def create_voice(self, request: Request) -> Response:
        require_media_type(request.scope, _FORM)
        with self._admission.upload():
            max_bytes = self._policy.max_upload_bytes + _OTHER_FIELDS_BYTES
            limit = too_large("audio", self._policy.max_upload_bytes, "the body's length")
            body = Body(request.scope, request.receive, max_bytes, self._policy.stall_timeout_s, advice=str(limit))
            new, audio = await _read_form(Request(request.scope, body), self._policy.max_upload_bytes)
            voice = await while_connected(request.receive, self._create(new, audio, _origin(request)))
        return _json(voice, 201)

    async def _create(self, new: voices_pb2.NewVoice, audio: bytes, origin: Origin) -> voices_pb2.Voice:
        try:
            return await self._voices.create(new, audio, origin)
        except InvalidInput as error:  # a form's fields have no prefix
            raise error.named(error.field.removeprefix("metadata.")) from None
        except NotFound as error:
            error.field = error.field.removeprefix("metadata.")
            raise


def _origin(request: Request) -> Origin:
    return Origin.of_address("http", request.scope["client"])


class _FormInMemory(MultiPartParser):
    """A parser that keeps an upload in memory, where it ends up anyway, and so needs neither a disk nor threads.

    The number of uploads and the bytes of each are limited.
    """

    spool_max_size = 0  # no limit beyond which a temporary file is written
    _head: bytes | None = b""  # of the recording; None once it is checked

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Takes a part's next bytes. Raises InvalidInput if a recording's first bytes state that it is too long."""
        super().on_part_data(data, start, end)
        if self._current_part.file is not None and self._head is not None:
            self._head += data[start : min(end, start + HEAD_BYTES)]
            if len(self._head) >= HEAD_BYTES:
                check_head(self._head)
                self._head = None


async def _read_form(request: Request, max_upload_bytes: int) -> tuple[voices_pb2.NewVoice, bytes]:
    """Raises InvalidInput, and as Body."""
    try:
        async with aclosing(request.stream()) as body:
            form = await _FormInMemory(request.headers, body, max_files=1, max_fields=len(_FIELDS)).parse()
    except (MultiPartException, ValueError) as error:
        allowed = f"{_FORM} with the fields {', '.join(_FIELDS)}"
        message = f"The body is not a valid form; send {allowed}."
        raise InvalidInput("body", message, "MESSAGE_INVALID", allowed=allowed) from error
    try:
        fields = dict(form)
        if len(fields) != len(form.multi_items()) or not fields.keys() <= set(_FIELDS):
            allowed = f"{', '.join(_FIELDS)}, each at most once"
            message = f"The form has an unknown or repeated field; allowed are {allowed}."
            raise InvalidInput("body", message, "FIELD_UNKNOWN", value=", ".join(fields), allowed=allowed)
        new = voices_pb2.NewVoice(name=_text(fields, "name"), consent=_consent(_text(fields, "consent")))
        if "voice_id" in fields:
            new.voice_id = _text(fields, "voice_id")
        if "normalize_loudness" in fields:
            new.normalize_loudness = _switch(fields, "normalize_loudness")
        if "model" in fields:
            new.model = _text(fields, "model")
        if "keep_recording" in fields:
            new.keep_recording = _switch(fields, "keep_recording")
        return new, await _audio(fields, max_upload_bytes)
    finally:
        await form.close()


async def _audio(fields: dict[str, Any], max_upload_bytes: int) -> bytes:
    file = fields.get("audio")
    if not isinstance(file, UploadFile):
        raise InvalidInput("audio", "audio is missing; send an audio file.", "AUDIO_EMPTY", allowed="an audio file")
    if file.size is not None and file.size > max_upload_bytes:
        raise too_large("audio", max_upload_bytes, f"{file.size} bytes")
    return await file.read()


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise InvalidInput(name, f"{name} is a file; send a text.", "VALUE_INVALID", value="a file", allowed="a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        message = f"{name} is not valid Unicode; send it as UTF-8."
        raise InvalidInput(name, message, "VALUE_INVALID", allowed="UTF-8") from None
    return value


def _consent(text: str) -> bool:
    if text.lower() not in ("", "true", "false"):
        message = f"consent is {reprlib.repr(text)}; it must be true, which says that the speaker agreed."
        raise InvalidInput("consent", message, "CONSENT_REQUIRED", value=repr(text), allowed="true")
    return text.lower() == "true"


def _switch(fields: dict[str, Any], name: str) -> bool:
    text = _text(fields, name)
    if text.lower() not in ("true", "false"):
        message = f"{name} is {reprlib.repr(text)}; it must be true or false."
        raise InvalidInput(name, message, "VALUE_INVALID", value=repr(text), allowed="true or false")
    return text.lower() == "true"


def _page_size(text: str) -> int:
    try:
        if not text.isascii():
            raise ValueError
        value = int(text)
        if not -(2**31) <= value < 2**31:
            raise ValueError
    except ValueError:
        message = f"page_size is {reprlib.repr(text)}; it must be a whole number."
        raise InvalidInput(
            "page_size", message, "PAGE_SIZE_OUT_OF_RANGE", value=repr(text), allowed="a whole number"
        ) from None
    return value


def _json(message: Message, status_code: int = 200) -> Response:
    return JSONResponse(json_fields(message), status_code)
