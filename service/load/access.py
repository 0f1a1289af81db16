"""How a load reaches a server: its key, its certificates."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from mynah import Tls


@dataclass(frozen=True)
class Access:
    """What a server asks of its clients. Without `tls` connections are not encrypted."""

    api_key: str | None = None
    tls: Tls | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.api_key is None else {"authorization": f"Bearer {self.api_key}"}

    @property
    def server_name(self) -> str | None:
        """The name in the server's certificate, if it is not the address's."""
        return None if self.tls is None else self.tls.server_name

    def ssl_context(self) -> ssl.SSLContext | None:
        """For HTTP; None without TLS. Raises OSError if a file cannot be read."""
        if self.tls is None:
            return None
        context = ssl.create_default_context(cafile=self.tls.root_certificates)
        if self.tls.certificate is not None:
            context.load_cert_chain(self.tls.certificate, self.tls.key)
        return context


OPEN = Access()
