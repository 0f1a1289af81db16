"""The HTTP application: the endpoint of each path, behind the middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from service.access.admission import Admission
from service.access.hosts import Hosts
from service.handlers.speech_handler import SpeechHandler
from service.handlers.voice_catalogue import VoiceCatalogue
from service.http.error_responses import HttpError
from service.http.middleware import with_middleware
from service.http.openapi import document
from service.http.rest import RestEndpoints
from service.http.speech import SpeechEndpoint
from service.http.stream import StreamEndpoint
from service.models import Models
from service.stream.policy import StreamPolicy

Endpoint = Callable[[Request], Awaitable[Response]]


def by_method(**endpoints: Endpoint) -> Endpoint:
    """Returns one endpoint for a path with several methods; HEAD is handled like GET."""

    async def endpoint(request: Request) -> Response:
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    return endpoint


async def _no_websocket(_: Request) -> Response:
    message = "This path is a WebSocket: connect to it with ws:// or wss://, as docs/http.md shows."
    raise HttpError(426, "UPGRADE_REQUIRED", message, allowed="a WebSocket's handshake")


def build_app(
    models: Models,
    speech_handler: SpeechHandler,
    openai_speech_handler: SpeechHandler,
    voices: VoiceCatalogue,
    admission: Admission,
    policy: StreamPolicy,
    version: str,
    cors_origins: tuple[str, ...],
    hosts: Hosts | None = None,
) -> ASGIApp:
    """Returns the ASGI application of all HTTP endpoints, for requests to `hosts` (None: to any).

    `openai_speech_handler` serves `/v1/audio/speech`.
    """
    rest = RestEndpoints(models, voices, admission, policy, version)

    async def openapi(_: Request) -> Response:
        return JSONResponse(document(models.infos, policy, version, keys=admission.authenticator.requires_key))

    routes: list[Route | WebSocketRoute] = [
        Route("/v1/audio/speech", SpeechEndpoint(models, openai_speech_handler, policy), methods=["POST"]),
        Route(
            "/dev/captioned_speech",
            SpeechEndpoint(models, openai_speech_handler, policy, captioned=True),
            methods=["POST"],
        ),
        Route("/v1/audio/models", rest.audio_models),
        Route("/v1/audio/voices", rest.audio_voices),
        WebSocketRoute("/v1/stream", StreamEndpoint(speech_handler, policy.stall_timeout_s, admission.turns)),
        Route("/v1/stream", _no_websocket),
        Route("/v1/info", rest.info),
        Route("/v1/models", rest.models),
        Route("/v1/models/{model:path}", rest.model),
        Route("/v1/voices", by_method(GET=rest.list_voices, POST=rest.create_voice), methods=["GET", "POST"]),
        Route(
            "/v1/voices/{voice_id}",
            by_method(GET=rest.voice, DELETE=rest.delete_voice),
            methods=["GET", "DELETE"],
        ),
        Route("/healthz", rest.healthz),
        Route("/readyz", rest.readyz),
        Route("/openapi.json", openapi),
    ]
    return with_middleware(routes, admission.authenticator, cors_origins, hosts)
