"""The server's TLS certificate, key and client authority, reloaded when their files change.

The one source for gRPC and for servers that use Python's `ssl`.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

import grpc

from service.access.watched_file import WatchedFiles
from service.config import TlsFiles


@dataclass(frozen=True)
class _Loaded:
    context: ssl.SSLContext
    grpc: grpc.ServerCertificateConfiguration


class Certificates:
    """Certificates that reload themselves: every handshake checks whether the files have changed.

    A certificate that does not match its key (because one was written before the other) is not used; the former pair
    stays until both are new.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Raises OSError, ssl.SSLError included, if a file cannot be used."""
        self._files = files
        self._loaded = WatchedFiles(files.paths, self._load, "TLS certificate")

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Credentials for `add_secure_port`."""
        served = self._loaded.content()

        def newest() -> grpc.ServerCertificateConfiguration:
            nonlocal served
            loaded = self._loaded.content()
            if loaded is served:
                return None  # type: ignore[return-value]  # as gRPC documents it: no change
            served = loaded
            return loaded.grpc

        return grpc.dynamic_ssl_server_credentials(served.grpc, newest, self._files.client_ca is not None)

    def ssl_context(self) -> ssl.SSLContext:
        """A context for asyncio and uvicorn that passes every handshake to the newest context."""

        def newest(connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
            connection.context = self._loaded.content().context

        # a context of its own, because only its callback is used, never its certificate
        front = self._context()
        front.sni_callback = newest
        return front

    def _load(self) -> _Loaded:
        pem = [path.read_bytes() for path in self._files.paths]
        context = self._context()
        if [path.read_bytes() for path in self._files.paths] != pem:
            raise OSError("the files are being written")
        pair = [(pem[1], pem[0])]
        roots = pem[2] if self._files.client_ca else None
        return _Loaded(context, grpc.ssl_server_certificate_configuration(pair, root_certificates=roots))

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._files.certificate, self._files.key)
        except OSError as error:
            raise OSError(f"{self._files.certificate} with {self._files.key}: {error}") from error
        if self._files.client_ca is not None:
            context.load_verify_locations(self._files.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context
