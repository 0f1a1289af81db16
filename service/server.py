"""The server around an engine: its surfaces, its health, start and shutdown."""

from __future__ import annotations

import asyncio
import logging
import math
from importlib.util import find_spec

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from engines.api import Engine
from engines.errors import InvalidInput
from engines.version import VERSION
from mynah.v1 import speech_pb2, speech_pb2_grpc, voices_pb2, voices_pb2_grpc
from service.access import descriptors
from service.access.admission import Admission
from service.access.auth import Authenticator
from service.access.hosts import Hosts
from service.access.keys import KeyFileError
from service.access.listener import Listener
from service.access.tls import Certificates
from service.admin import AdminServer
from service.config import ConfigError, ServerConfig
from service.errors import Unavailable, file_problem
from service.grpc.auth_interceptor import AuthInterceptor
from service.grpc.health import HealthService
from service.grpc.size_interceptor import SizeInterceptor
from service.grpc.speech import SpeechService
from service.grpc.voices import VoicesService
from service.handlers.speech_handler import SpeechHandler
from service.handlers.voice_catalogue import VoiceCatalogue
from service.handlers.voice_check import VoiceCheck
from service.http.routes import build_app
from service.http.server import HttpServer
from service.http.speech_request import VOICE_ALIASES
from service.listening import check_available, unavailable
from service.models import Models
from service.options import MEMORY
from service.voices.lookup import VoiceLookup
from service.voices.store import VoiceStore
from service.watchdog import Watchdog, WatchedEngine

log = logging.getLogger("mynah.service")

_SPEECH = speech_pb2.DESCRIPTOR.services_by_name["Speech"].full_name
_VOICES = voices_pb2.DESCRIPTOR.services_by_name["Voices"].full_name
HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_HEALTH_OF = ("", _SPEECH, _VOICES)
# SERVING until the engine stalls or the server ends: an orchestrator must not kill one that warms up or drains
LIVENESS = "liveness"
_END_TIMEOUT_S = 1.0  # for calls to end by themselves once the grace period is over
_CLOSE_TIMEOUT_S = 10.0  # for the engine to finish what runs and to free its device
END_TIMEOUT_S = 4 * _END_TIMEOUT_S + _CLOSE_TIMEOUT_S  # for the whole of `stop` once the grace period is over

# Calls that are open on one connection: its streams and uploads, as many that are to be refused, and probes
_MIN_CALLS_OF_CONNECTION = 64
_MAX_CALLS = 10_000  # on all connections; each takes some 10 kB even if its client sends nothing
_MAX_TRUST_S = 600  # how long a connection lasts for whose client an authority vouched when it began

_OPTIONS = [
    ("grpc.so_reuseport", 0),  # a port in use is an error; otherwise two servers would share it
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    # a client that disappeared without closing is noticed after half a minute, and its work stops
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.server_handshake_timeout_ms", 10_000),  # TLS, and HTTP/2's first frame
    ("grpc.max_connection_idle_ms", 600_000),  # a connection without a call; clients open another when they need it
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 32 * 1024),
]


class Server:
    """The models and their surfaces. Use `start`, then `warm_up`, then at the end `stop`.

    Health says NOT_SERVING until the warm-up is done, while an engine is unhealthy, and from the moment of `stop`;
    new streams are refused with UNAVAILABLE before and after.
    """

    def __init__(self, models: Models | Engine, config: ServerConfig) -> None:
        """`models`: or the engine of the only one.

        Raises ConfigError, InvalidInput or OSError if a file or folder of the configuration cannot be used.
        """
        self._watchdog = Watchdog(config.hang_timeout_s, self._stall)
        self._models = models = models if isinstance(models, Models) else Models([models])
        models.wrap(lambda engine: WatchedEngine(engine, self._watchdog))
        self._config = config
        self._left_behind = False
        try:
            self.gate = Authenticator(config.api_keys)
            self.certificates = None if config.tls is None else Certificates(config.tls)
            config.policy.dictionary("")  # reads the folder
        except OSError as error:
            raise ConfigError(file_problem(error)) from error
        except (KeyFileError, InvalidInput) as error:
            raise ConfigError(str(error)) from error
        self.admission = Admission(models.max_streams, config.max_uploads, self.gate)
        self._connections = descriptors.connections()
        self._admin = AdminServer(
            models, self.admission, max_connections=self._connections.admin, allowed_hosts=config.allowed_host
        )
        self._voices = VoiceStore(
            models.engines,
            None if config.voices_dir == MEMORY else config.voices_dir,
            max_voices=config.max_voices,
            max_loaded=config.max_voices_in_memory,
            time_limit_s=config.store_timeout_s,
        )
        self._catalogue = VoiceCatalogue(models, self._voices, VoiceCheck(self.admission), self.gate)
        self._speech_handler = SpeechHandler(models, VoiceLookup(self._voices), self.admission, config.policy)
        self._health = HealthService()
        self._warm = False
        self.messages = SizeInterceptor(config.policy.max_protobuf_bytes)
        interceptors = [AuthInterceptor(self.gate), self.messages]
        self._grpc = grpc.aio.server(
            options=self._grpc_options(), interceptors=interceptors, maximum_concurrent_rpcs=_MAX_CALLS
        )
        self._add_services()
        self._http = None if config.http_listen is None else self._make_http()

    @property
    def grace_s(self) -> float:
        """How long `stop` waits for open streams."""
        return self._config.grace_s

    @property
    def _asks_clients(self) -> bool:
        """Whether clients need a certificate."""
        return self._config.tls is not None and self._config.tls.client_ca is not None

    def _grpc_options(self) -> list[tuple[str, int]]:
        calls = _MIN_CALLS_OF_CONNECTION + 2 * self._models.max_streams + self._config.max_uploads
        # Calls wait for Python in one queue. Its defaults of 1000 and 3000 are seconds of waiting for a new call.
        bounds = [
            ("grpc.max_allowed_incoming_connections", self._connections.grpc),
            ("grpc.max_concurrent_streams", calls),
            ("grpc.server.max_pending_requests", calls),
            ("grpc.server.max_pending_requests_hard_limit", 2 * calls),
        ]
        if self._asks_clients:
            bounds.append(("grpc.max_connection_age_ms", _MAX_TRUST_S * 1000))  # calls that are open then are finished
        return [*_OPTIONS, *bounds]

    def _add_services(self) -> None:
        policy = self._config.policy
        speech = SpeechService(self._models, self._speech_handler, self.admission, policy, VERSION)
        speech_pb2_grpc.add_SpeechServicer_to_server(speech, self._grpc)  # type: ignore[no-untyped-call]
        voices = VoicesService(self._catalogue, self.admission, policy)
        voices_pb2_grpc.add_VoicesServicer_to_server(voices, self._grpc)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        names = [_SPEECH, _VOICES, HEALTH_SERVICE, reflection.SERVICE_NAME, *self._add_riva()]
        reflection.enable_server_reflection(names, self._grpc)

    def _make_http(self) -> HttpServer:
        policy, cors_origins = self._config.policy, self._config.cors_origin
        openai_voices = VoiceLookup(self._voices, VOICE_ALIASES if self._config.openai_voices else ())
        app = build_app(
            self._models,
            self._speech_handler,
            SpeechHandler(self._models, openai_voices, self.admission, policy),
            self._catalogue,
            self.admission,
            policy,
            VERSION,
            cors_origins,
            self._hosts(),
        )
        return HttpServer(
            app,
            policy.stall_timeout_s,
            self.admission.turns,
            max_connections=self._connections.http,
            max_frame_bytes=policy.max_json_bytes,
            max_age_s=_MAX_TRUST_S if self._asks_clients else math.inf,
        )

    def _hosts(self) -> Hosts | None:
        """The hosts that the HTTP port answers to; None, for all, where a page cannot use a name that it pointed here.

        With keys it has none. With TLS the certificate does not fit its name.
        """
        config = self._config
        if config.http_listen is None or self.gate.requires_key or config.tls is not None:
            return None
        return Hosts(config.http_listen, config.allowed_host)

    def _add_riva(self) -> list[str]:
        """Serve Riva's clients if nvidia-riva-client is installed. Returns the names of the added services."""
        if find_spec("riva") is None:
            log.info("Riva's clients are not served: nvidia-riva-client is not installed")
            return []
        from service.grpc import riva

        riva.add_to(self._grpc, self._models, self._voices, self.admission, self._config.policy)
        return [riva.SERVICE]

    async def start(self) -> str:
        """Listen for gRPC. Returns the bound HOST:PORT. Raises ConfigError if the address is not available."""
        self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        loop = asyncio.get_running_loop()

        def on_change(_: bool) -> None:
            loop.call_soon_threadsafe(self._follow_engine)

        self._models.health.watch(on_change)
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
        tls = None if self.certificates is None else self.certificates.ssl_context
        return await self._http.start(self._config.http_listen, tls)

    @property
    def health(self) -> HealthService:
        return self._health

    @property
    def http_listener(self) -> Listener:
        """The connections of the HTTP port, which has been started."""
        assert self._http is not None
        return self._http.listener

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
        await self._models.warm_up()
        self._voices.log_foreign()
        self.admission.open(self._models.max_streams, self._models.max_offline_streams)
        self._warm = True
        self._watchdog.start(lambda: self._models.health.healthy)
        self._update_health()
        return clock() - began_s

    def end_if_the_interpreter_hangs(self) -> None:
        """From the warm-up on, ends the process if no Python code can run. To be called once, in a server's process."""
        self._watchdog.watch_interpreter()

    @property
    def left_behind(self) -> bool:
        """Whether `stop` gave up work that does not end: the interpreter's own end might wait for it for ever."""
        return self._left_behind or self._watchdog.left_behind

    def _stall(self, error: Unavailable) -> None:
        """The engine has stalled: end its streams, and say so everywhere."""
        self.admission.stall(error)
        self._follow_engine()

    def _follow_engine(self) -> None:
        """Called on the event loop after the engine's health has changed."""
        if self._warm:
            self._update_health()

    def _update_health(self) -> None:
        stalled = self.admission.stalled is not None
        status = health_pb2.HealthCheckResponse
        if stalled:
            self._health.set(LIVENESS, status.NOT_SERVING)
        serving = self._models.health.healthy and not stalled
        self._set_health(status.SERVING if serving else status.NOT_SERVING)

    async def stop(self, grace_s: float | None = None) -> None:
        """Refuse new calls, let open streams and uploads finish within the grace period, then end everything."""
        self.admission.drain()
        self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        allowed_s = self._config.grace_s if grace_s is None else grace_s
        if not await self._idle_within(allowed_s) and allowed_s > 0:
            log.warning("%d streams had not ended after %g s and are ended", self.admission.open_streams, allowed_s)
        self.admission.stopped.set()
        await self._grpc.stop(_END_TIMEOUT_S)
        if self._http is not None:
            await self._http.stop(_END_TIMEOUT_S)
        await self._idle_within(_END_TIMEOUT_S)  # gRPC does not wait for the cleanup of cancelled calls
        await self._close_engine()
        await self._admin.stop()
        self._watchdog.stop()

    async def _close_engine(self) -> None:
        closing = asyncio.ensure_future(self._models.close())
        await asyncio.wait([closing], timeout=_END_TIMEOUT_S if self.admission.stalled else _CLOSE_TIMEOUT_S)
        self._left_behind = not closing.done()
        if self._left_behind:
            log.error("the engine has not closed: a call of its libraries does not return")
        else:
            await closing

    async def _idle_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.admission.wait_idle()
        except TimeoutError:
            return False
        return True

    def _set_health(self, status: int) -> None:
        for name in _HEALTH_OF:
            self._health.set(name, status)
