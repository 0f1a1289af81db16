"""Authentication by API key, and the limits of each key, for all transports.

A transport passes a call's `authorization` to `Authenticator.authenticate`, which stores the caller in a context
variable of the current task. `Admission` counts the caller's streams from there, so no transport can forget to.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from service.access.keys import ApiKey, digest, read_keys
from service.access.watched_file import WatchedFiles
from service.errors import ResourceExhausted, Unauthenticated

_SCHEME = "bearer"
_WINDOW_S = 60.0
_RETRY_AFTER_S = 1.0
ANONYMOUS = ApiKey("anyone", "0" * 64)  # the caller of a server without a key file
_CALLER: ContextVar[ApiKey | None] = ContextVar("caller", default=None)


@dataclass
class _Account:
    """A key's open streams, and when it started streams and uploads in the last minute."""

    open_streams: int = 0
    starts_s: deque[float] = field(default_factory=deque)


class Authenticator:
    """Authenticates callers by API key; without a key file, every call is anonymous. Used from one event loop.

    A change of the file takes effect with the next call. A removed key cannot start streams; its open ones finish. A
    key's limits apply to all transports together.
    """

    def __init__(self, key_file: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises KeyFileError."""
        self._keys = None if key_file is None else WatchedFiles((key_file,), lambda: _by_hash(key_file), "API keys")
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    @property
    def requires_key(self) -> bool:
        return self._keys is not None

    def authenticate(self, authorization: str | None) -> ApiKey:
        """Returns the caller of "Bearer KEY" and makes it the current task's. Raises Unauthenticated."""
        caller = ANONYMOUS if self._keys is None else _owner(self._keys.content(), authorization)
        _CALLER.set(caller)
        return caller

    def caller(self) -> ApiKey:
        """Returns the current task's caller. Raises Unauthenticated if a key is required and none was authenticated."""
        caller = _CALLER.get()
        if self._keys is None:
            return caller or ANONYMOUS
        if caller is None or caller is ANONYMOUS:
            raise _unauthenticated("No API key was given")
        return caller

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Counts a stream as the caller's inside the block. Raises ResourceExhausted, Unauthenticated."""
        caller = self.caller()
        account = self._account(caller)
        if caller.max_streams is not None and account.open_streams >= caller.max_streams:
            allowed = f"{caller.max_streams} streams"
            message = f"This API key already has {allowed} open, its limit; retry when one has ended."
            raise ResourceExhausted("KEY_STREAMS_EXHAUSTED", message, allowed=allowed, retry_after_s=_RETRY_AFTER_S)
        self.count_start()
        account.open_streams += 1
        try:
            yield
        finally:
            account.open_streams -= 1

    def count_start(self) -> None:
        """Counts the start of a stream or an upload. Raises ResourceExhausted at the limit, Unauthenticated."""
        caller = self.caller()
        max_starts = caller.starts_per_minute
        if max_starts is None:
            return
        now_s, starts_s = self._clock(), self._account(caller).starts_s
        while starts_s and starts_s[0] <= now_s - _WINDOW_S:
            starts_s.popleft()
        if len(starts_s) >= max_starts:
            allowed = f"{max_starts} starts a minute"
            started = f"{len(starts_s)} streams and uploads in the last minute"
            message = f"This API key has started {started}; its limit is {allowed}."
            wait_s = starts_s[-max_starts] + _WINDOW_S - now_s
            raise ResourceExhausted("KEY_RATE_EXCEEDED", message, allowed=allowed, retry_after_s=wait_s)
        starts_s.append(now_s)

    def _account(self, caller: ApiKey) -> _Account:
        return self._accounts.setdefault(caller.name, _Account())


def _by_hash(key_file: Path) -> dict[str, ApiKey]:
    return {key.sha256: key for key in read_keys(key_file)}


def _owner(keys: dict[str, ApiKey], authorization: str | None) -> ApiKey:
    """Returns the key's entry. Raises Unauthenticated.

    The time of the look-up depends on the hash of what was sent, from which no part of a key can be guessed, and not
    on the number of keys.
    """
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != _SCHEME or not key.strip():
        raise _unauthenticated("No API key was given")
    owner = keys.get(digest(key.strip()))
    if owner is None:
        raise _unauthenticated("The API key is unknown")
    return owner


def _unauthenticated(problem: str) -> Unauthenticated:
    allowed = "authorization: Bearer KEY, with a key of this server"
    message = f"{problem}; send {allowed}."
    return Unauthenticated("API_KEY_INVALID", message, field="authorization", allowed=allowed)
