"""`python -m ui`: serves the page until SIGTERM or SIGINT and prints its address."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ui.config import ConfigError, PageConfig, read_config


def main() -> None:
    """Exits with status 0 after a signal, 2 for an invalid configuration or without the extra `ui`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # while Gradio is imported: Python would print a traceback
    try:
        config = read_config(sys.argv[1:])
        api_key = config.api_key(os.environ)
        listener = _listen(config)
    except ConfigError as error:
        print(f"mynah-page: {error}", file=sys.stderr)
        sys.exit(2)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it at import
    try:
        asyncio.run(serve(config, api_key, listener))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("mynah", "ui"):
            raise
        print(
            f"mynah-page: the package {error.name.partition('.')[0]!r} is not installed. The page needs an extra: "
            "pip install 'mynah-speech-server[ui]', in an environment other than the server's; in a clone of Mynah's "
            "repository: pip install ./protos '.[ui]'.",
            file=sys.stderr,
        )
        sys.exit(2)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process is ending; one more Ctrl-C would print a traceback


async def serve(config: PageConfig, api_key: str | None, listener: socket.socket) -> None:
    """Serve until a signal."""
    import uvicorn

    from ui.app import make_app
    from ui.connections import Connection, Socket

    class Server(uvicorn.Server):
        """A server whose signals end it: uvicorn's own handlers raise them again at the end."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self.handle_exit, number, None)
            yield

    server = Server(
        uvicorn.Config(
            make_app(config, api_key),
            ssl_certfile=config.tls_certificate,
            ssl_keyfile=config.tls_key,
            log_level="error",  # its warnings are about what a stranger sent, a line for each
            http=Connection,
            ws=Socket,
            ws_max_size=2**20,
            ws_per_message_deflate=False,  # compression adds delay, and PCM hardly shrinks
            timeout_graceful_shutdown=1,  # status streams do not end by themselves
        )
    )
    logging.getLogger("uvicorn.error").addFilter(_is_fault)  # after uvicorn has configured it
    scheme = "http" if config.tls_certificate is None else "https"
    port = listener.getsockname()[1]
    print(f"mynah-page: open {scheme}://{config.host}:{port}{config.root_path}/ (server {config.server})", flush=True)
    await server.serve(sockets=[listener])


def _is_fault(record: logging.LogRecord) -> bool:
    """Whether uvicorn reports more than that it ends what is still open at the page's end: each tab's status."""
    cancelled = isinstance(record.exc_info, tuple) and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not cancelled and "timeout graceful shutdown exceeded" not in str(record.msg)


def _listen(config: PageConfig) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        return socket.create_server((config.host, config.port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            allowed = "Stop it, or choose another address (--listen HOST:PORT)."
            raise ConfigError(f"cannot listen on {config.listen}: another program listens there. {allowed}") from error
        raise ConfigError(f"cannot listen on {config.listen}: {error.strerror}.") from error


if __name__ == "__main__":
    main()
