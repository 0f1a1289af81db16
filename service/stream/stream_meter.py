"""One stream's figures for the metrics: how soon, how steady, how much."""

from __future__ import annotations

from engines.api import WindowFigures
from engines.model_spec import SAMPLE_RATE_HZ
from engines.playback import PlaybackClock
from service.audio.formats import AudioSettings
from service.telemetry import metrics


class StreamMeter:
    """Receives a stream's events from its session; `now_s` is on one clock throughout.

    A talkspurt begins with text on an idle stream and lasts until all of it is spoken and sent. Time to first audio is
    measured for its first chunk; from then on a simulated real-time listener plays. Between two talkspurts there is no
    text to speak, so underruns are not counted there. The metrics leave out the waits and gaps of a stream that has no
    listener.
    """

    def __init__(self, audio: AudioSettings, exemplar: dict[str, str], *, has_listener: bool = True) -> None:
        self._exemplar = exemplar
        self._has_listener = has_listener
        self._open_streams = metrics.STREAMS_ACTIVE if has_listener else metrics.STREAMS_OFFLINE
        self._rate_hz = audio.sample_rate_hz
        self._bytes = metrics.AUDIO_BYTES.labels(audio.audio_format.value)
        self._listener = PlaybackClock(self._rate_hz)
        self._speaking = False
        self._awaited_since_s: float | None = None
        self._last_chunk_s: float | None = None
        self._first_audio_s: float | None = None
        self._bytes_sent = self._underruns = self._cancels = 0

    def figures(self) -> dict[str, float | None]:
        """The stream's own figures so far; `first_audio_s` is the time to first audio of its first talkspurt."""
        first_audio_s = None if self._first_audio_s is None else round(self._first_audio_s, 3)
        sent = {"first_audio_s": first_audio_s, "audio_bytes": self._bytes_sent}
        return {**sent, "underruns": self._underruns, "cancels": self._cancels}

    def opened(self) -> None:
        metrics.STREAMS_ADMITTED.inc(exemplar=self._exemplar)
        self._open_streams.inc()

    def closed(self) -> None:
        """After `opened`, once."""
        self._open_streams.dec()

    def has_work(self, now_s: float) -> None:
        """There is text to speak. The first call of a talkspurt starts its clock."""
        if not self._speaking:
            self._speaking = True
            self._awaited_since_s = now_s
            self._last_chunk_s = None
            self._listener.begin_segment(now_s)

    def went_idle(self) -> None:
        """All text has been spoken and sent: the talkspurt ends."""
        self._speaking = False
        self._awaited_since_s = None

    def cancelled(self) -> None:
        """The talkspurt ends, and what the listener had buffered is dropped."""
        self.went_idle()
        self._listener = PlaybackClock(self._rate_hz)
        self._cancels += 1
        metrics.CANCELS.inc(exemplar=self._exemplar)

    @property
    def dry_at_s(self) -> float | None:
        """When the listener has played all that was sent; None before the first chunk."""
        return self._listener.dry_at_s

    def sent(self, now_s: float, samples: int, size_bytes: int) -> None:
        """A chunk was handed to the connection."""
        self._bytes.inc(size_bytes)
        self._bytes_sent += size_bytes
        if self._awaited_since_s is not None:
            waited_s = now_s - self._awaited_since_s
            if self._has_listener:
                metrics.TTFA.observe(waited_s, self._exemplar)
            self._first_audio_s = waited_s if self._first_audio_s is None else self._first_audio_s
            self._awaited_since_s = None
        if self._last_chunk_s is not None and self._has_listener:
            metrics.CHUNK_GAP.observe(now_s - self._last_chunk_s, self._exemplar)
            metrics.BUFFER_LEAD.observe(max(0.0, self._listener.lead_s(now_s)))
        self._last_chunk_s = now_s
        self._play(now_s, samples)

    def _play(self, now_s: float, samples: int) -> None:
        listener = self._listener
        underruns, underrun_s = listener.underruns, listener.underrun_s
        listener.deliver(now_s, samples)
        if listener.underruns > underruns:
            self._underruns += listener.underruns - underruns
            if self._has_listener:
                metrics.UNDERRUNS.inc(exemplar=self._exemplar)
                metrics.UNDERRUN_TIME.inc(listener.underrun_s - underrun_s)

    def made(self, samples: int, window: WindowFigures | None) -> None:
        """The engine made samples (at 24 kHz), in a window if it decodes in windows."""
        metrics.AUDIO.inc(samples / SAMPLE_RATE_HZ)
        if window is not None:
            metrics.HOP.observe(window.new_speech_tokens)
            metrics.WINDOW_WAIT.observe(window.queue_s, self._exemplar)
            metrics.WINDOW_DECODE.observe(window.decode_s, self._exemplar)

    def segment_done(self, samples: int, worked_s: float) -> None:
        """A segment is complete: `samples` at 24 kHz, and `worked_s` of waiting for the engine in all."""
        if samples:
            metrics.REAL_TIME_FACTOR.observe(worked_s * SAMPLE_RATE_HZ / samples, self._exemplar)
