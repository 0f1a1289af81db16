"""`python -m ui`: serves the page until SIGTERM or SIGINT and prints its address."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

from ui.config import ConfigError, PageConfig, read_config


def main() -> None:
    """Exits with status 0 after a signal, 2 for an invalid configuration."""
    try:
        config = read_config(sys.argv[1:])
        api_key = config.api_key(os.environ)
        listener = _listen(config)
    except ConfigError as error:
        print(f"mynah-page: {error}", file=sys.stderr)
        sys.exit(2)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it at import
    asyncio.run(serve(config, api_key, listener))


async def serve(config: PageConfig, api_key: str | None, listener: socket.socket) -> None:
    """Serve until a signal."""
    import uvicorn

    from ui.app import make_app

    server = uvicorn.Server(
        uvicorn.Config(
            make_app(config, api_key),
            ssl_certfile=config.tls_certificate,
            ssl_keyfile=config.tls_key,
            log_level="warning",
            ws="websockets-sansio",
            ws_max_size=2**20,
            ws_per_message_deflate=False,  # compression adds delay, and PCM hardly shrinks
            timeout_graceful_shutdown=1,  # status streams do not end by themselves
        )
    )
    scheme = "http" if config.tls_certificate is None else "https"
    port = listener.getsockname()[1]
    print(f"mynah-page: open {scheme}://{config.host}:{port}{config.root_path}/ (server {config.server})", flush=True)
    await server.serve(sockets=[listener])


def _listen(config: PageConfig) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        return socket.create_server((config.host, config.port), family=family)
    except OSError as error:
        raise ConfigError(f"Cannot listen on {config.listen}: {error}.") from error


if __name__ == "__main__":
    main()
