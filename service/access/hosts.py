"""The check of `Host` where callers need no key: a page whose name was pointed at this server (DNS rebinding) is
refused.

A browser takes such a page for the server's own, so no check of origins can tell them apart.
"""

from __future__ import annotations

import ipaddress
import socket

ANY = "*"
_LOOPBACK_NAMES = ("localhost", "ip6-localhost", "ip6-loopback")
# Names that no public DNS has, so no stranger can point them anywhere.
_PRIVATE_SUFFIXES = ("localhost", "internal", "svc", "cluster.local", "home.arpa")


class Hosts:
    """The hosts that a port answers to.

    On a loopback address these are loopback's names and addresses. On others also any address in digits, names that
    public DNS cannot have, and the machine's own name. `allowed` names are answered everywhere; `*` allows all.
    """

    def __init__(self, listen: str, allowed: tuple[str, ...] = ()) -> None:
        own = _host(listen)
        self._any = ANY in allowed
        self._loopback_only = own in _LOOPBACK_NAMES or _is_loopback(own)
        self._names = {own, *_LOOPBACK_NAMES, *(name.lower() for name in allowed)}
        if not self._loopback_only:
            self._names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    def allows(self, host: str | None) -> bool:
        """Whether a `Host` header names this server. None, as in HTTP/1.0, comes from no browser."""
        return host is None or self._any or self._allows(_host(host))

    def _allows(self, host: str) -> bool:
        if host in self._names or host.endswith(".localhost") or _is_loopback(host):
            return True
        if self._loopback_only:
            return False
        return _is_address(host) or "." not in host or host.endswith(tuple(f".{name}" for name in _PRIVATE_SUFFIXES))


def _host(value: str) -> str:
    """The host of HOST or HOST:PORT, in lower case, without brackets and final dot."""
    host = value.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() and ":" not in name else host).removesuffix(".")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return _is_address(host) and ipaddress.ip_address(host).is_loopback
