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
    pem: list[bytes]  # certificate, key and, if clients need a certificate, the authorities

    def for_grpc(self) -> grpc.ServerCertificateConfiguration:
        """A new configuration: gRPC takes each over and uses it once."""
        roots = self.pem[2] if len(self.pem) > 2 else None
        return grpc.ssl_server_certificate_configuration([(self.pem[1], self.pem[0])], root_certificates=roots)


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
        """Credentials for `add_secure_port`. No session is resumed where clients need a certificate (`ssl_context`)."""
        served = self._loaded.content()
        asks_clients = self._files.client_ca is not None

        def newest() -> grpc.ServerCertificateConfiguration:
            """Called in each handshake. A configuration brings new keys of session tickets."""
            nonlocal served
            loaded = self._loaded.content()
            if loaded is served and not asks_clients:
                return None  # type: ignore[return-value]  # as gRPC documents it: no change
            served = loaded
            return loaded.for_grpc()

        return grpc.dynamic_ssl_server_credentials(served.for_grpc(), newest, asks_clients)

    def ssl_context(self) -> ssl.SSLContext:
        """A context for one connection, with the newest certificate.

        Where clients need a certificate, no connection can resume the session of another: a session holds the result of
        the check that an authority vouched for the client, and outlives the authority. OpenSSL keeps sessions, and the
        keys of session tickets, in the context that a connection begins with, so each connection begins with its own.
        """
        if self._files.client_ca is None:
            return self._loaded.content().context
        front = _bare_context()
        front.sni_callback = self._use_newest
        _ask_for_certificate(front)
        return front

    def _use_newest(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _front: ssl.SSLContext) -> None:
        """Called in each handshake: the certificate and the authorities are those of the newest context."""
        connection.context = self._loaded.content().context

    def _load(self) -> _Loaded:
        pem = [path.read_bytes() for path in self._files.paths]
        context = self._context()
        if [path.read_bytes() for path in self._files.paths] != pem:
            raise OSError("the files are being written")
        return _Loaded(context, pem)

    def _context(self) -> ssl.SSLContext:
        context = _bare_context()
        try:
            context.load_cert_chain(self._files.certificate, self._files.key)
        except OSError as error:
            raise OSError(f"{self._files.certificate} with {self._files.key}: {error}") from error
        if self._files.client_ca is not None:
            context.load_verify_locations(self._files.client_ca)
            _ask_for_certificate(context)
        return context


def _bare_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # each costs the event loop a handshake
    return context


def _ask_for_certificate(context: ssl.SSLContext) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
