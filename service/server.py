"""The server around an engine: its surfaces, its health, start and shutdown."""

from __future__ import annotations

import asyncio
import logging
from importlib.metadata import version
from importlib.util import find_spec

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from engines.api import Engine
from mynah.v1 import speech_pb2, speech_pb2_grpc, voices_pb2, voices_pb2_grpc
from service.access.admission import Admission
from service.access.auth import Authenticator
from service.access.keys import KeyFileError
from service.access.tls import Certificates
from service.admin import AdminServer
from service.config import ConfigError, ServerConfig
from service.grpc.auth_interceptor import AuthInterceptor
from service.grpc.speech import SpeechService
from service.grpc.voices import VoicesService
from service.handlers.speech_handler import SpeechHandler
from service.handlers.voice_catalogue import VoiceCatalogue
from service.handlers.voice_check import VoiceCheck
from service.http.routes import build_app
from service.http.server import HttpServer
from service.http.speech_request import VOICE_ALIASES
from service.listening import check_available, unavailable
from service.options import MEMORY
from service.voices.lookup import VoiceLookup
from service.voices.store import VoiceStore

log = logging.getLogger("mynah.service")

_SPEECH = speech_pb2.DESCRIPTOR.services_by_name["Speech"].full_name
_VOICES = voices_pb2.DESCRIPTOR.services_by_name["Voices"].full_name
_HEALTH_OF = ("", _SPEECH, _VOICES)
# SERVING from start to end, so that an orchestrator does not kill a server that warms up or drains
LIVENESS = "liveness"
_END_TIMEOUT_S = 1.0  # for calls to end by themselves once the grace period is over

_OPTIONS = [
    ("grpc.so_reuseport", 0),  # a port in use is an error; otherwise two servers would share it
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    # a client that disappeared without closing is noticed after half a minute, and its work stops
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
]


class Server:
    """One engine and its surfaces. Use `start`, then `warm_up`, then at the end `stop`.

    Health says NOT_SERVING until the warm-up is done, while the engine is unhealthy, and from the moment of `stop`;
    new streams are refused with UNAVAILABLE before and after.
    """

    def __init__(self, engine: Engine, config: ServerConfig) -> None:
        """Raises ConfigError, InvalidInput or OSError if a file or folder of the configuration cannot be used."""
        self._engine = engine
        self._config = config
        try:
            self.gate = Authenticator(config.api_keys)
            self.certificates = None if config.tls is None else Certificates(config.tls)
        except (KeyFileError, OSError) as error:
            raise ConfigError(str(error)) from error
        self.admission = Admission(engine.info.limits.max_streams, config.max_uploads, self.gate)
        self._admin = AdminServer(engine, self.admission)
        self._voices = VoiceStore(
            lambda: engine.default_voice,
            None if config.voices_dir == MEMORY else config.voices_dir,
            max_voices=config.max_voices,
            max_loaded=config.max_voices_in_memory,
            others=lambda: engine.other_voices,
        )
        self._catalogue = VoiceCatalogue(engine, self._voices, VoiceCheck(engine, self.admission))
        self._speech_handler = SpeechHandler(engine, VoiceLookup(self._voices), self.admission, config.policy)
        self._health = health.aio.HealthServicer()
        self._warm = False
        self._health_updates: set[asyncio.Future[None]] = set()
        self._grpc = grpc.aio.server(options=_OPTIONS, interceptors=[AuthInterceptor(self.gate)])
        self._add_services()
        self._http = None if config.http_listen is None else self._make_http()

    @property
    def grace_s(self) -> float:
        """How long `stop` waits for open streams."""
        return self._config.grace_s

    def _add_services(self) -> None:
        policy = self._config.policy
        speech = SpeechService(self._engine, self._speech_handler, self.admission, policy, version("mynah"))
        speech_pb2_grpc.add_SpeechServicer_to_server(speech, self._grpc)  # type: ignore[no-untyped-call]
        voices = VoicesService(self._catalogue, self.admission, policy)
        voices_pb2_grpc.add_VoicesServicer_to_server(voices, self._grpc)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        names = [_SPEECH, _VOICES, health.SERVICE_NAME, reflection.SERVICE_NAME, *self._add_riva()]
        reflection.enable_server_reflection(names, self._grpc)

    def _make_http(self) -> HttpServer:
        policy, cors_origins = self._config.policy, self._config.cors_origin
        openai_voices = VoiceLookup(self._voices, VOICE_ALIASES if self._config.openai_voices else ())
        app = build_app(
            self._engine,
            self._speech_handler,
            SpeechHandler(self._engine, openai_voices, self.admission, policy),
            self._catalogue,
            self.admission,
            policy,
            version("mynah"),
            cors_origins,
        )
        return HttpServer(app, policy.stall_timeout_s)

    def _add_riva(self) -> list[str]:
        """Serve Riva's clients if nvidia-riva-client is installed. Returns the names of the added services."""
        if find_spec("riva") is None:
            log.info("Riva's clients are not served: nvidia-riva-client is not installed")
            return []
        from service.grpc import riva

        riva.add_to(self._grpc, self._engine, self._voices, self.admission, self._config.policy)
        return [riva.SERVICE]

    async def start(self) -> str:
        """Listen for gRPC. Returns the bound HOST:PORT. Raises ConfigError if the address is not available."""
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        loop = asyncio.get_running_loop()

        def on_change(_: bool) -> None:
            loop.call_soon_threadsafe(self._follow_engine)

        self._engine.health.watch(on_change)
        host = self._config.listen.rpartition(":")[0]
        port = self._bind()
        await self._grpc.start()
        return f"{host}:{port}"

    async def start_admin(self) -> str | None:
        """Listen for the operator, if configured. Returns the bound HOST:PORT. Raises ConfigError."""
        if self._config.admin_listen is None:
            return None
        return await self._admin.start(self._config.admin_listen)

    async def start_http(self) -> str | None:
        """Listen for HTTP, if configured. Returns the bound HOST:PORT. Raises ConfigError."""
        if self._http is None or self._config.http_listen is None:
            return None
        tls = None if self.certificates is None else self.certificates.ssl_context()
        return await self._http.start(self._config.http_listen, tls)

    def _bind(self) -> int:
        listen = self._config.listen
        check_available("--listen", listen)
        try:
            if self.certificates is None:
                return self._grpc.add_insecure_port(listen)
            return self._grpc.add_secure_port(listen, self.certificates.grpc_credentials())
        except (RuntimeError, OSError) as error:
            raise unavailable("--listen", listen, error) from error

    async def warm_up(self) -> float:
        """Warm up the engine, then admit clients. Returns the seconds it took. Raises what the engine raises."""
        clock = asyncio.get_running_loop().time
        began_s = clock()
        await self._engine.warm_up()
        self.admission.open(self._engine.info.limits.max_streams)
        self._warm = True
        await self._update_health()
        return clock() - began_s

    def _follow_engine(self) -> None:
        """Called on the event loop after the engine's health has changed."""
        if self._warm:
            task = asyncio.ensure_future(self._update_health())
            self._health_updates.add(task)
            task.add_done_callback(self._health_updates.discard)

    async def _update_health(self) -> None:
        healthy = self._engine.health.healthy
        status = health_pb2.HealthCheckResponse
        await self._set_health(status.SERVING if healthy else status.NOT_SERVING)

    async def stop(self, grace_s: float | None = None) -> None:
        """Refuse new calls, let open streams and uploads finish within the grace period, then end everything."""
        self.admission.drain()
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        allowed_s = self._config.grace_s if grace_s is None else grace_s
        if not await self._idle_within(allowed_s) and allowed_s > 0:
            log.warning("%d streams had not ended after %g s and are ended", self.admission.streams.in_use, allowed_s)
        self.admission.stopped.set()
        await self._grpc.stop(_END_TIMEOUT_S)
        if self._http is not None:
            await self._http.stop(_END_TIMEOUT_S)
        await self._idle_within(_END_TIMEOUT_S)  # gRPC does not wait for the cleanup of cancelled calls
        await self._engine.close()
        await self._admin.stop()

    async def _idle_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.admission.wait_idle()
        except TimeoutError:
            return False
        return True

    async def _set_health(self, status: int) -> None:
        for name in _HEALTH_OF:
            await self._health.set(name, status)
