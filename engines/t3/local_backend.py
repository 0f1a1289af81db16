"""T3 in torch: requests of asyncio tasks, decoded together on a thread of their own.

Knows event loops and defaults; what a step does is decoder.py's, the thread is step_loop.py's.
"""

from __future__ import annotations

import asyncio
import contextlib

import torch

from engines.api import NULL_OBSERVER, Observer
from engines.checkpoints.checkpoint import Checkpoint
from engines.errors import EngineFailure
from engines.t3.backend import T3Request
from engines.t3.decoder import DecoderLimits, Progress, T3Decoder, check_request
from engines.t3.model import T3Net
from engines.t3.step_loop import StepLoop

# Enough for 375 prompt tokens, 1000 speech tokens and some 670 text tokens (1000 characters of English are 250).
_MAX_POSITIONS = 2048
# Prompt rows between two decode steps: on a CPU some 60 ms of Nano, which a running stream's buffer covers.
_PREFILL_CHUNK_POSITIONS = {"cpu": 64, "cuda": 512}
_PREFIX_CACHE_BYTES = 512 << 20  # a full voice prefix is 28 MB in Nano, 74 MB in Turbo


class TorchT3Backend:
    """T3Backend on any torch device, in float32; with `halves`, on a CPU that can, its weights are kept in float16.

    `max_streams` requests are decoded together, the others wait in order. One request may take `max_positions` of
    the KV cache at most, for prefix, text and speech in all. Cache memory is taken when it is needed, never more than
    max_streams x max_positions positions and `prefix_cache_bytes` (0: no reuse of voice prefixes).
    Raises CheckpointError when the weights do not fit the spec.
    """

    name = "torch"

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str,
        max_streams: int,
        max_positions: int = _MAX_POSITIONS,
        prefill_chunk_positions: int | None = None,
        prefix_cache_bytes: int = _PREFIX_CACHE_BYTES,
        halves: bool = False,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        target = torch.device(device)
        chunk = prefill_chunk_positions or _PREFILL_CHUNK_POSITIONS[target.type]
        self._spec = checkpoint.spec.t3
        self._max_positions = min(max_positions, self._spec.positions)
        net = T3Net.load(checkpoint.t3_path, checkpoint.spec, target, halves=halves)
        limits = DecoderLimits(max_streams, self._max_positions, chunk, prefix_cache_bytes)
        self._steps = StepLoop(T3Decoder(net, limits), observer)

    def start(self, request: T3Request) -> Generation:
        """As T3Backend.start. Raises InvalidInput as `check_request`, and EngineFailure after `close`."""
        check_request(request, self._spec, self._max_positions)
        generation = Generation(self._steps)
        if not self._steps.start(request, generation):
            raise EngineFailure("the engine is closed")
        return generation

    async def close(self) -> None:
        """As T3Backend.close. Idempotent."""
        await asyncio.to_thread(self._steps.close)


class Generation:
    """T3Generation: what was made for one request and not yet taken. Lives on the event loop that started it."""

    def __init__(self, steps: StepLoop) -> None:
        self._steps = steps
        self._loop = asyncio.get_running_loop()
        self._speech_tokens: list[int] = []
        self._ended = False
        self._failure: EngineFailure | None = None
        self._hit_token_limit = False
        self._news = asyncio.Event()
        self._freed: asyncio.Future[None] | None = None  # set by the first `cancel`

    def set_target(self, speech_tokens: int) -> None:
        """As T3Generation.want."""
        if not self._ended:
            self._steps.set_target(self, speech_tokens)

    def promote(self) -> None:
        """As T3Generation.promote."""

    @property
    def hit_token_limit(self) -> bool:
        return self._hit_token_limit

    async def next_codes(self) -> list[int]:
        """As T3Generation.next_codes. What was made before a failure is handed out before it is raised."""
        while not (self._speech_tokens or self._ended):
            self._news.clear()
            await self._news.wait()
        if not self._speech_tokens and self._failure is not None:
            raise self._failure
        speech_tokens, self._speech_tokens = self._speech_tokens, []
        return speech_tokens

    async def cancel(self) -> None:
        """As T3Generation.cancel. A `next_codes` that waits meanwhile returns []."""
        self._speech_tokens.clear()
        if self._freed is None and not self._ended:
            self._freed = self._loop.create_future()
            self._ended = True
            self._news.set()
            if not self._steps.cancel(self, self._post_freed):
                self._freed.set_result(None)
        if self._freed is not None:
            await asyncio.shield(self._freed)

    def post(self, progress: Progress) -> None:
        """As Listener.post: news from the step thread."""
        self._loop.call_soon_threadsafe(self._take, progress)

    def _take(self, progress: Progress) -> None:
        if self._freed is not None:
            return  # cancelled while this was on its way
        self._speech_tokens += progress.speech_tokens
        self._failure = progress.error
        self._ended = progress.over
        self._hit_token_limit = progress.over and progress.sequence.speech.hit_limit
        self._news.set()

    def _post_freed(self) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._set_freed)

    def _set_freed(self) -> None:
        if self._freed is not None and not self._freed.done():
            self._freed.set_result(None)
