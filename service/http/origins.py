"""The check of `Origin`, in which a browser names the page whose script sends a request.

Allowed are pages of the server's own address and those that the operator lists. Without the check, a script of any
page could use every server that its visitor's browser can reach.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.types import Scope

from service.http.error_responses import HttpError
from service.http.requests import header

ANY = "*"
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")  # CORS keeps their responses from scripts that are not allowed


class Origins:
    """The origins that the operator lists; `*` allows all."""

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self.allowed = allowed

    def check(self, scope: Scope) -> None:
        """Raises HttpError for a WebSocket or an unsafe method of a page that is not allowed."""
        if scope["type"] == "http" and scope["method"] in _SAFE_METHODS:
            return
        origins = [value.decode("latin-1") for key, value in scope["headers"] if key == b"origin"]
        if not all(self._allows(origin, header(scope, b"host")) for origin in origins):
            message = "Scripts of this page may not use the server; its operator can allow the page with --cors-origin."
            raise HttpError(403, "ORIGIN_NOT_ALLOWED", message, field="origin", allowed="the server's own pages")

    def _allows(self, origin: str, host: str | None) -> bool:
        if ANY in self.allowed or origin in self.allowed:
            return True
        try:
            return host is not None and urlsplit(origin).netloc.lower() == host.lower()
        except ValueError:
            return False
