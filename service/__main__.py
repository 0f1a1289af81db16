"""`mynah-serve`: runs a server until SIGTERM or SIGINT, and prints its addresses and when it serves."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import NoReturn

from engines.api import EngineInfo
from engines.cuda_faults import DeviceLost
from engines.errors import EngineError
from service import stderr_filter
from service.access import descriptors
from service.config import ConfigError, ServerConfig, read_config, with_voices_place
from service.engine_loader import lazy_models
from service.errors import file_problem
from service.models import Models
from service.options import MEMORY
from service.server import END_TIMEOUT_S, Server
from service.shutdown import Signals, force_exit
from service.telemetry import logs, tracing

log = logging.getLogger("mynah.service")

EXIT_DEVICE_LOST = 70  # the GPU cannot be used by this process any more, but perhaps by a new one


def main() -> None:
    """Exits with 0 after a signal, 3 if then a thread does not end, 2 for a bad configuration, 1 if the engine cannot
    be loaded or warmed up or if a library holds the interpreter, and 70 as soon as the GPU fails or hangs. The last
    line on stderr names the status or the problem."""
    try:
        config = with_voices_place(read_config(sys.argv[1:], os.environ), os.environ)
    except ConfigError as error:
        _leave(2, error)
    _say.json = config.log_format == "json"
    try:
        stderr_filter.redirect(config.log_format)
    except OSError as error:
        _leave(1, ConfigError(f"the process that filters libraries' messages cannot be started: {error}."))
    logs.configure(config.log_level, config.log_format)
    try:
        ended_by = _run(config)
    except Exception:
        log.critical("the process ends with status 1", exc_info=True)
        sys.exit(1)
    log.log(_level(ended_by), "the process ends with status 0")


def _level(number: signal.Signals) -> int:
    """The level of lines about a signal. After Ctrl-C a terminal shows the end itself."""
    return logging.DEBUG if number is signal.SIGINT else logging.INFO


def _run(config: ServerConfig) -> signal.Signals:
    """Serve until a signal, which is returned. Ends the process if anything else ends the server."""
    models = lazy_models(config)
    models.health.watch_loss(_end_process)
    try:
        tracing.configure(config.otlp_endpoint)
        ended_by = asyncio.run(serve(models, config))
    except ConfigError as error:
        _leave(2, error)
    except OSError as error:
        _leave(1, ConfigError(file_problem(error)))
    except EngineError as error:
        _leave(1, error)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process is ending; one more Ctrl-C would print a traceback
        tracing.shut_down()
    if models.loading:
        log.log(_level(ended_by), "the process ends with status 0 while a model is loaded")
        stderr_filter.restore()
        os._exit(0)  # a library that a thread is still loading does not survive the interpreter's shutdown
    return ended_by


def _end_process(error: DeviceLost) -> None:
    """End now: no stream can go on, and threads that wait for the GPU would keep the process from ending."""
    _say_failure(EXIT_DEVICE_LOST, error)
    stderr_filter.restore()
    os._exit(EXIT_DEVICE_LOST)


async def serve(models: Models, config: ServerConfig) -> signal.Signals:
    """Serve until a signal, which is returned. A second signal ends the grace period."""
    descriptors.raise_limit()
    server = Server(models, config)
    server.end_if_the_interpreter_hangs()
    signalled = Signals(lambda count: END_TIMEOUT_S + (config.grace_s if count == 1 else 0.0)).received
    await _listen(server, config, " and ".join(models.names) + (" are" if len(models.names) > 1 else " is"))
    warming = asyncio.ensure_future(server.warm_up())
    stopping = asyncio.ensure_future(signalled.get())
    await asyncio.wait([warming, stopping], return_when=asyncio.FIRST_COMPLETED)
    try:
        if warming.done():
            took_s, streams = warming.result(), models.max_streams
            _say(_where_voices_are(config))
            at_once = "1 stream" if streams == 1 else f"{streams} streams"
            *others, last = map(_described, models.infos)
            described = "; and ".join([*(each.rstrip(".") for each in others), last])
            _say(f"serving after {took_s:.1f} s up to {at_once} with {described}")
        number = await stopping
        log.log(
            _level(number),
            "%s received: %d streams and %d uploads are open and have %g s",
            number.name,
            server.admission.open_streams,
            server.admission.uploads.in_use,
            server.grace_s,
        )
    finally:
        warming.cancel()
        stopping.cancel()
        await asyncio.gather(warming, stopping, return_exceptions=True)
        await _stop(server, signalled)
        if server.left_behind:
            force_exit("A thread of the engine has not ended.")
    return number


async def _listen(server: Server, config: ServerConfig, models: str) -> None:
    """Listen on every configured address, then print them. Raises ConfigError, without printing, if one is taken."""
    try:
        grpc, admin, http = await server.start(), await server.start_admin(), await server.start_http()
    except BaseException:
        await server.stop(0.0)  # gRPC's threads outlive the event loop otherwise, and print a traceback
        raise
    _say(f"listening on {grpc} while {models} loaded")
    if admin is not None:
        _say(f"metrics, health and readiness at http://{admin}")
    if http is not None:
        _say(f"HTTP at {'https' if config.tls else 'http'}://{http}")


async def _stop(server: Server, signalled: asyncio.Queue[signal.Signals]) -> None:
    """End within the grace period, or at the next signal."""
    if busy := server.admission.open_streams:
        streams = f"{busy} open streams have" if busy > 1 else "1 open stream has"
        _say(f"stopping: {streams} {server.grace_s:g} s to finish; a second signal ends at once")
    graceful = asyncio.ensure_future(server.stop())
    signalled_again = asyncio.ensure_future(signalled.get())
    await asyncio.wait([graceful, signalled_again], return_when=asyncio.FIRST_COMPLETED)
    if not graceful.done():
        log.info("%s received again: what is open ends now", signalled_again.result().name)
        graceful.cancel()
        await server.stop(0.0)
    signalled_again.cancel()


def _described(info: EngineInfo) -> str:
    engine = f"{info.model} on {info.device} (T3 {info.t3_runtime}, S3Gen {info.s3gen_runtime})"
    sentences = [sentence for sentence in (info.setting_reason, info.notice) if sentence]
    return f"{engine}: {'; '.join(sentences)}" if sentences else engine


def _where_voices_are(config: ServerConfig) -> str:
    if config.voices_dir in (None, MEMORY):
        return "uploaded voices are in memory and end with this server; --voices-dir FOLDER keeps them"
    return f"uploaded voices are kept in {config.voices_dir}"


class _Say:
    """Prints a line for the operator: as text, or as JSON like those of the log."""

    json = False

    def __call__(self, line: str) -> None:
        shown = logs.json_line("mynah.serve", logging.INFO, line) if self.json else f"mynah-serve: {line}"
        print(shown, flush=True)


_say = _Say()


def _say_failure(status: int, error: Exception) -> None:
    """Print why the process ends with this status, on stderr."""
    if _say.json:
        shown = logs.json_line("mynah.serve", logging.CRITICAL, f"the process ends with status {status}: {error}")
    else:
        shown = f"mynah-serve: {error}"
    print(shown, file=sys.stderr, flush=True)


def _leave(status: int, error: Exception) -> NoReturn:
    _say_failure(status, error)
    sys.exit(status)


if __name__ == "__main__":
    main()
