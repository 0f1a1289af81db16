"""Who calls, by API key, and how much of the server each caller may have. One gate for every surface.

A surface hands the call's `authorization` to `Authenticator.authenticate`; from then on the task that serves the call
has its caller, and `Admission` counts its streams without the surface having to remember that.
"""

from __future__ import annotations

import hmac
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
_NOBODY = ApiKey("anyone", "0" * 64)  # where no keys are asked for
_CALLER: ContextVar[ApiKey | None] = ContextVar("caller", default=None)


@dataclass
class _Account:
    """What one key has open, and when it began what it began in the last minute."""

    open_streams: int = 0
    starts_s: deque[float] = field(default_factory=deque)


class Authenticator:
    """Lets in who has a key; without a key file everybody. Used from one event loop.

    A change of the file counts from the next call on. A key that was removed begins nothing more; streams it has open
    are finished. The limits of a caller hold over all surfaces together.
    """

    def __init__(self, key_file: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises KeyFileError."""
        self._keys = None if key_file is None else WatchedFiles((key_file,), lambda: read_keys(key_file), "API keys")
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    @property
    def closed(self) -> bool:
        """Whether a key is asked for."""
        return self._keys is not None

    def authenticate(self, authorization: str | None) -> ApiKey:
        """The caller of "Bearer KEY"; also the current task's caller from here on. Raises NotAllowed."""
        caller = _NOBODY if self._keys is None else _owner(self._keys.content(), authorization)
        _CALLER.set(caller)
        return caller

    def caller(self) -> ApiKey:
        """Who the current task works for. Raises NotAllowed when nobody was let in and a key is asked for."""
        found = _CALLER.get()
        if self._keys is None:
            return found or _NOBODY
        if found is None or found is _NOBODY:
            raise _not_allowed("no API key was given")
        return found

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Count a stream as the caller's for as long as it is open. Raises NoRoom at once, NotAllowed."""
        caller = self.caller()
        account = self._account(caller)
        most = caller.max_streams
        if most is not None and account.open_streams >= most:
            message = f"all {most} streams of this API key are taken; retry when one has ended"
            raise ResourceExhausted(
                "KEY_STREAMS_EXHAUSTED", message, allowed=f"{most} streams", retry_after_s=_RETRY_AFTER_S
            )
        self.count_start()
        account.open_streams += 1
        try:
            yield
        finally:
            account.open_streams -= 1

    def count_start(self) -> None:
        """Count the beginning of a stream or an upload. Raises NoRoom when the minute has had enough, NotAllowed."""
        caller = self.caller()
        most = caller.starts_per_minute
        if most is None:
            return
        now_s, starts_s = self._clock(), self._account(caller).starts_s
        while starts_s and starts_s[0] <= now_s - _WINDOW_S:
            starts_s.popleft()
        if len(starts_s) >= most:
            allowed = f"{most} starts a minute"
            message = (
                f"this API key has begun {len(starts_s)} streams and uploads in the last minute; {allowed} at most"
            )
            wait_s = starts_s[-most] + _WINDOW_S - now_s
            raise ResourceExhausted("KEY_RATE_EXCEEDED", message, allowed=allowed, retry_after_s=wait_s)
        starts_s.append(now_s)

    def _account(self, caller: ApiKey) -> _Account:
        return self._accounts.setdefault(caller.name, _Account())


def _owner(keys: tuple[ApiKey, ...], authorization: str | None) -> ApiKey:
    """Whose key it is; takes as long for a wrong key as for any right one."""
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != _SCHEME or not key.strip():
        raise _not_allowed("no API key was given")
    given = digest(key.strip())
    found = [known for known in keys if hmac.compare_digest(known.sha256, given)]
    if not found:
        raise _not_allowed("this API key is not known")
    return found[0]


def _not_allowed(why: str) -> Unauthenticated:
    allowed = "authorization: Bearer KEY, with a key of this server"
    return Unauthenticated("API_KEY_INVALID", f"{why}; allowed: {allowed}", field="authorization", allowed=allowed)
