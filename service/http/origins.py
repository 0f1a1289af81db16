"""Which pages' scripts may use this server. A browser says in `Origin` whose script it runs; others say nothing.

Pages of the server's own address and those that the operator lists may; scripts of any other page could otherwise use
whatever the reader's browser can reach.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.types import Scope

from service.http.error_responses import HttpError
from service.http.requests import header

ANY = "*"
_HARMLESS = ("GET", "HEAD", "OPTIONS")  # their answers are not shown to a script that CORS does not allow


class Origins:
    """The operator's list; `*` allows all."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self.allowed = allowed

    def check(self, scope: Scope) -> None:
        """Raises HttpRefused for a WebSocket or a changing request of a page that may not."""
        if scope["type"] == "http" and scope["method"] in _HARMLESS:
            return
        origins = [value.decode("latin-1") for key, value in scope["headers"] if key == b"origin"]
        if not all(self._may(origin, header(scope, b"host")) for origin in origins):
            message = "scripts of this page may not use the server; an operator allows them with --cors-origin"
            raise HttpError(403, "ORIGIN_NOT_ALLOWED", message, field="origin", allowed="the server's own pages")

    def _may(self, origin: str, host: str | None) -> bool:
        if ANY in self.allowed or origin in self.allowed:
            return True
        try:
            return host is not None and urlsplit(origin).netloc.lower() == host.lower()
        except ValueError:
            return False
