"""The thread that owns a decoder: it accepts requests between two steps and steps while there is work to do."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

import torch

from engines.api import NULL_OBSERVER, Observer, T3Use
from engines.device import PLAIN_THREAD, DeviceThread
from engines.errors import EngineFailure
from engines.t3.backend import T3Request
from engines.t3.decoder import Progress, Sequence
from engines.worker_pool import WorkerPool

_log = logging.getLogger(__name__)

# for the backends: `StepLoop.close` blocks until the step that runs has ended
CLOSING = WorkerPool("t3-close", workers=1, time_limit_s=60.0, reason="CLOSE_TIMEOUT", work="Closing T3")


class TokenReceiver(Protocol):
    """The receiver of a request's speech tokens. Hashed by identity."""

    def post(self, progress: Progress) -> None:
        """Called on the step thread, in order; must not block. Raises RuntimeError if the receiver's event loop is
        closed."""
        ...


class Decoder(Protocol):
    """The interface of the decoders that a step loop can drive, on one thread; see T3Decoder."""

    @property
    def idle(self) -> bool: ...

    def add(self, request: T3Request) -> Sequence: ...

    def promote(self, sequence: Sequence) -> None: ...

    def release(self, sequence: Sequence) -> None: ...

    def step(self) -> list[Progress]: ...

    @property
    def use(self) -> T3Use: ...


class StepLoop:
    """A thread and its queue of commands. Methods may be called from any thread. Raises what `on_device.start` raises.

    After `close` the methods that return a bool do nothing and return False.
    """

    def __init__(
        self, decoder: Decoder, observer: Observer = NULL_OBSERVER, on_device: DeviceThread = PLAIN_THREAD
    ) -> None:
        self._start_thread = on_device.start
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()  # no command is added once `_closed` is set
        self._closed = False
        self._loop = _Loop(decoder, observer, on_device)
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="t3-steps", daemon=True)
        self._thread.start()
        self._started.result()

    def start(self, request: T3Request, receiver: TokenReceiver) -> bool:
        """Queue a request; its progress goes to `receiver`."""
        return self._submit(lambda: self._loop.begin(request, receiver))

    def set_target(self, receiver: TokenReceiver, speech_tokens: int) -> bool:
        """Pause the receiver's request once it has this many speech tokens."""
        return self._submit(lambda: self._loop.set_target(receiver, speech_tokens))

    def promote(self, receiver: TokenReceiver) -> bool:
        """Treat the receiver's request as if it had not been made ahead."""
        return self._submit(lambda: self._loop.promote(receiver))

    def cancel(self, receiver: TokenReceiver, freed: Callable[[], None]) -> bool:
        """Drop the receiver's request; `freed` is called on the thread once slot and cache are free."""

        def drop() -> None:
            self._loop.drop(receiver)
            freed()

        return self._submit(drop)

    def close(self) -> None:
        """Fail what still runs, end the thread, drop net and caches. Blocks until that is done; idempotent."""
        self._submit(lambda: None, last=True)  # wakes an idle thread
        self._thread.join()

    def _submit(self, command: Callable[[], None], *, last: bool = False) -> bool:
        with self._lock:
            if self._closed:
                return False
            self._closed = last
            self._commands.put(command)
            return True

    def _run(self) -> None:
        try:
            self._start_thread()
        except BaseException as error:
            self._started.set_exception(error)
            return
        self._started.set_result(None)
        torch.get_num_threads()  # makes this thread use the process's setting instead of OpenMP's default
        while not self._closed:
            # an idle thread sleeps in `get`
            while not self._closed and (self._loop.idle or not self._commands.empty()):
                self._commands.get()()
            self._loop.step()
        while not self._commands.empty():
            self._commands.get()()
        self._loop.end()
        del self._loop


class _Loop:
    """The state that only the step thread touches."""

    def __init__(self, decoder: Decoder, observer: Observer, on_device: DeviceThread) -> None:
        self._decoder = decoder
        self._device = on_device
        self._observer = observer
        self._sequences: dict[TokenReceiver, Sequence] = {}
        self._receivers: dict[Sequence, TokenReceiver] = {}

    @property
    def idle(self) -> bool:
        return self._decoder.idle

    def begin(self, request: T3Request, receiver: TokenReceiver) -> None:
        sequence = self._decoder.add(request)
        self._sequences[receiver] = sequence
        self._receivers[sequence] = receiver

    def set_target(self, receiver: TokenReceiver, speech_tokens: int) -> None:
        if (sequence := self._sequences.get(receiver)) is not None:
            sequence.target_tokens = speech_tokens

    def promote(self, receiver: TokenReceiver) -> None:
        if (sequence := self._sequences.get(receiver)) is not None:
            self._decoder.promote(sequence)

    def drop(self, receiver: TokenReceiver) -> None:
        sequence = self._sequences.pop(receiver, None)
        if sequence is not None:
            del self._receivers[sequence]
            self._decoder.release(sequence)
            self._observer.t3_used(self._decoder.use)

    def step(self) -> None:
        sequences, began_s = len(self._sequences), time.perf_counter()
        try:
            on_device = self._device.working("a step of T3") if sequences else contextlib.nullcontext()
            with self._observer.calling("t3"), on_device:
                results = self._decoder.step()
        except Exception as error:  # a fault of the decoder itself: it reports the failures of requests
            _log.exception("T3's step failed")
            self._device.failed(error)
            self._fail_all(f"T3 failed: {error!r}")
            return
        if sequences:  # otherwise the step only rebuilt vLLM's engine
            self._observer.step_ran(time.perf_counter() - began_s, sequences)
            self._observer.t3_used(self._decoder.use)
        for progress in results:
            if progress.error is not None:
                self._device.failed(progress.error)
            self._post(progress)

    def end(self) -> None:
        self._fail_all("the engine was closed while this segment was being made")

    def _fail_all(self, reason: str) -> None:
        for sequence in list(self._receivers):
            self._decoder.release(sequence)
            self._post(Progress(sequence, over=True, error=EngineFailure(reason)))

    def _post(self, progress: Progress) -> None:
        receiver = self._receivers[progress.sequence]
        try:
            if progress.reportable:
                receiver.post(progress)
        except RuntimeError:  # its event loop is closed, so that this request would never be cancelled
            self.drop(receiver)
        if progress.over:
            self.drop(receiver)
