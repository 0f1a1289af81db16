"""The paths, and whose they are. Put together here, served by `server.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from engines.api import Engine
from service.access.admission import Admission
from service.handlers.speech_handler import SpeechHandler
from service.handlers.voice_catalogue import VoiceCatalogue
from service.http.app import application
from service.http.openapi import document
from service.http.rest import RestEndpoints
from service.http.speech import SpeechEndpoint
from service.http.stream import StreamEndpoint
from service.stream.policy import StreamPolicy

Endpoint = Callable[[Request], Awaitable[Response]]


def by_method(**endpoints: Endpoint) -> Endpoint:
    """One endpoint for a path with several methods; HEAD is answered like GET."""

    async def endpoint(request: Request) -> Response:
        return await endpoints["GET" if request.method == "HEAD" else request.method](request)

    return endpoint


def surface(
    engine: Engine,
    speech_handler: SpeechHandler,
    voices: VoiceCatalogue,
    admission: Admission,
    policy: StreamPolicy,
    version: str,
    cors_origins: tuple[str, ...],
) -> ASGIApp:
    """The whole HTTP surface as one application."""
    catalogue = RestEndpoints(engine, voices, admission, policy)

    async def openapi(_: Request) -> Response:
        return JSONResponse(document(engine.info, policy, version, keys=admission.gate.closed))

    routes: list[Route | WebSocketRoute] = [
        Route("/v1/audio/speech", SpeechEndpoint(engine, speech_handler, policy), methods=["POST"]),
        WebSocketRoute("/v1/stream", StreamEndpoint(speech_handler, policy.stall_timeout_s)),
        Route("/v1/models", catalogue.models),
        Route("/v1/models/{model:path}", catalogue.model),
        Route("/v1/voices", by_method(GET=catalogue.list_voices, POST=catalogue.create_voice), methods=["GET", "POST"]),
        Route(
            "/v1/voices/{voice_id}",
            by_method(GET=catalogue.voice, DELETE=catalogue.delete_voice),
            methods=["GET", "DELETE"],
        ),
        Route("/healthz", catalogue.alive),
        Route("/readyz", catalogue.ready),
        Route("/openapi.json", openapi),
    ]
    return application(routes, admission.gate, cors_origins)
