"""The server's TLS certificate, key and client authority, reloaded when their files change.

The one source for gRPC and for servers that use Python's `ssl`.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc

from service.access.watched_file import WatchedFiles
from service.config import TlsFiles
from service.telemetry.metrics import CERTIFICATE_EXPIRY

_DER_VERSION, _DER_UTC_TIME = 0xA0, 0x17


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
        CERTIFICATE_EXPIRY.set_if(True, expiry_s(pem[0].decode("latin-1")))
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


def expiry_s(pem: str) -> float:
    """Returns the end of the first certificate in a PEM file, in Unix time.

    Python's ssl reads this field only of a peer's certificate that it has verified. In a certificate's DER (RFC 5280)
    it is the second time of the fifth field, or of the fourth where the version is left out.
    """
    start, end = pem.index("-----BEGIN CERTIFICATE-----"), pem.index("-----END CERTIFICATE-----")
    der = ssl.PEM_cert_to_DER_cert(pem[start:end] + "-----END CERTIFICATE-----")
    (_, certificate), *_ = _der_values(der)
    (_, signed), *_ = _der_values(certificate)
    fields = _der_values(signed)
    validity = fields[4 if fields[0][0] == _DER_VERSION else 3][1]
    tag, ends = _der_values(validity)[1]
    years = "%y" if tag == _DER_UTC_TIME else "%Y"
    return datetime.strptime(ends.decode(), f"{years}%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _der_values(der: bytes) -> list[tuple[int, bytes]]:
    """The tags and contents of values that follow each other."""
    values, at = [], 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size]), at + size
        values.append((tag, der[at : at + length]))
        at += length
    return values


def _bare_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # each costs the event loop a handshake
    return context


def _ask_for_certificate(context: ssl.SSLContext) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
