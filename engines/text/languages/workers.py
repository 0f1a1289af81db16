"""The threads in which languages are loaded and read: one for each language, with a time limit on each call.

A language's front end is entered by its own thread alone: some are bound to the thread that made them, and none says
that two may use it at once. One that hangs holds its own language only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from engines.errors import TimeLimitExceeded
from engines.worker_pool import WorkerPool

_log = logging.getLogger(__name__)
_LOAD_LIMIT_S = 120.0  # a net may have to be fetched
_READ_LIMIT_S = 20.0  # of less than a second for a text, behind those of other streams; less than an engine may hang
_REASON = "LANGUAGE_TIMEOUT"

P = ParamSpec("P")
T = TypeVar("T")


class LanguageWorkers:
    """Runs a language's work in its order, off the event loop. From any event loop."""

    def __init__(self, load_limit_s: float = _LOAD_LIMIT_S, read_limit_s: float = _READ_LIMIT_S) -> None:
        self._load_limit_s, self._read_limit_s = load_limit_s, read_limit_s
        self._workers: dict[str, WorkerPool] = {}
        self._late: set[str] = set()  # languages of which a call has exceeded the time limit

    async def load(self, language: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `read`, with the time that loading may take."""
        return await self._run(language, self._load_limit_s, partial(function, *args, **kwargs))

    async def read(self, language: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await a call in the language's thread.

        Raises what the function raises, and TimeLimitExceeded with reason LANGUAGE_TIMEOUT if it has not returned
        within the time limit, or at once while a call that did not is still running.
        """
        return await self._run(language, self._read_limit_s, partial(function, *args, **kwargs))

    async def _run(self, language: str, time_limit_s: float, work: Callable[[], T]) -> T:
        worker = self._worker(language)
        if language in self._late and worker.unfinished:
            message = f"The front end of language {language} hangs or is being loaded; retry later."
            raise TimeLimitExceeded(_REASON, message)
        self._late.discard(language)
        try:
            return await worker.run_within(time_limit_s, work)
        except TimeLimitExceeded:
            if language not in self._late:
                _log.error(
                    "the front end of language %s has not ended a call within %g s; texts in it are refused until it "
                    "has, other languages are spoken",
                    language,
                    time_limit_s,
                )
            self._late.add(language)
            raise

    def _worker(self, language: str) -> WorkerPool:
        if language not in self._workers:
            self._workers[language] = WorkerPool(
                f"language-{language}",
                workers=1,
                time_limit_s=self._load_limit_s,
                reason=_REASON,
                work=f"The front end of language {language}",
            )
        return self._workers[language]


WORKERS = LanguageWorkers()  # of the process: so are the front ends that have been loaded
