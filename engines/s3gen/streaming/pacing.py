"""The plan of one segment on a live stream: its windows follow the listener's buffer and the load of the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from engines.playback import ActiveStreams, PlaybackClock
from engines.s3gen.streaming.decode_times import DecodeForecast
from engines.s3gen.streaming.schedule import Schedule
from engines.s3gen.streaming.windows import StreamPacing, Wait, Window, WindowPlanner


class StreamPacer:
    """The source of one stream's StreamPacing. Times are on the event loop's clock."""

    def __init__(
        self,
        playback: PlaybackClock,
        active_streams: ActiveStreams,
        decode_times: DecodeForecast,
        schedule: Schedule,
        prompt_tokens: int,
    ) -> None:
        """`active_streams` knows the stream by its `playback`; `prompt_tokens` is the length of the voice's prompt."""
        self._playback, self._active_streams = playback, active_streams
        self._decode_times, self._schedule = decode_times, schedule
        self._prompt_tokens = prompt_tokens

    def pacing(self, now_s: float, token_s: float, speed: float = 1.0) -> StreamPacing:
        """`token_s`: the time in which T3 makes one speech token; `speed`: at which the segment is played."""
        return StreamPacing(self._playback.lead_s(now_s), token_s, self._call_s, partial(self._queue_s, now_s), speed)

    def _call_s(self, context_tokens: int, block_tokens: int) -> float:
        return self._decode_times.call_s(self._prompt_tokens + context_tokens, block_tokens, len(self._active_streams))

    def _queue_s(self, now_s: float, due_in_s: float, block_tokens: int) -> float:
        speaking, silent = self._active_streams.streams_due_before(self._playback, now_s + due_in_s)
        context_tokens = self._prompt_tokens + self._schedule.left_context_tokens
        # Those that speak have windows as large as they become under load. Those that are about to begin plan as this
        # stream does, and take windows of its size.
        times = self._decode_times
        speaking_s = times.queue_s(context_tokens, self._schedule.max_block_tokens, speaking, now_s)
        return speaking_s + times.queue_s(context_tokens, block_tokens, silent, now_s) - times.busy_s(now_s)


@dataclass
class TokenProgress:
    """The speech tokens that T3 has made of a segment so far, and the time that it took."""

    speech_tokens: list[int] = field(default_factory=list)
    ended: bool = False
    first_token_s: float = 0.0  # from the start of the request
    last_token_s: float = 0.0

    @property
    def token_s(self) -> float:
        """Time per speech token after the prompt was read."""
        return (self.last_token_s - self.first_token_s) / max(1, len(self.speech_tokens) - 1)

    def add(self, speech_tokens: list[int], elapsed_s: float) -> None:
        if not self.speech_tokens:
            self.first_token_s = elapsed_s
        self.last_token_s = elapsed_s
        self.speech_tokens.extend(speech_tokens)


class SegmentPlan:
    """One segment's windows on the speech tokens made so far; it keeps T3's target ahead of what is decoded."""

    def __init__(
        self, schedule: Schedule, progress: TokenProgress, pacer: StreamPacer | None, set_target: Callable[[int], None]
    ) -> None:
        """`pacer`: None for windows that depend on nothing but the tokens. `set_target`: T3Generation's."""
        self._planner = WindowPlanner(schedule)
        self._progress, self._pacer, self._set_target = progress, pacer, set_target
        self.speed = 1.0  # at which the segment is played
        self._update_target()

    @property
    def finished(self) -> bool:
        return self._planner.finished

    @property
    def made_tokens(self) -> int:
        """The speech tokens that T3 has made so far."""
        return len(self._progress.speech_tokens)

    @property
    def decoded_tokens(self) -> int:
        """The speech tokens of all windows so far."""
        return self._planner.decoded_tokens

    def needs_more_than(self, tokens: int) -> bool:
        """Whether `tokens` are too few for the first window of a plan without a pacer."""
        return tokens <= self._planner.schedule.step(0).block_tokens

    @property
    def wait(self) -> Wait:
        """When to ask again after `next` has returned None."""
        return self._planner.wait

    def next(self, now_s: float) -> Window | None:
        """As WindowPlanner.next."""
        progress = self._progress
        window = self._planner.next(len(progress.speech_tokens), progress.ended, self._pacing(now_s))
        if window is not None or self.finished:
            self._update_target()
        return window

    def enlarge(self, window: Window, now_s: float) -> Window:
        """As WindowPlanner.enlarge; not for a plan without a pacer."""
        pacing, progress = self._pacing(now_s), self._progress
        assert pacing is not None, "windows of a repeatable plan never change"
        larger = self._planner.enlarge(window, len(progress.speech_tokens), progress.ended, pacing)
        if larger != window:
            self._update_target()
        return larger

    def _pacing(self, now_s: float) -> StreamPacing | None:
        return None if self._pacer is None else self._pacer.pacing(now_s, self._progress.token_s, self.speed)

    def _update_target(self) -> None:
        self._set_target(self._planner.decoded_tokens + self._planner.schedule.ahead_tokens)
