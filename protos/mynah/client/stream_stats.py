"""The statistics of a stream as its client measures them: time to first audio, real-time factor, chunks."""

from __future__ import annotations

from dataclasses import dataclass

from mynah.client.events import AudioChunk


@dataclass
class StreamStats:
    """Statistics of one stream. The caller passes the times."""

    sample_rate_hz: int
    started_s: float | None = None
    first_audio_s: float | None = None
    last_audio_s: float | None = None
    samples: int = 0
    chunks: int = 0

    def text_sent(self, now_s: float) -> None:
        """Record that text is being sent. Only the first call counts."""
        if self.started_s is None:
            self.started_s = now_s

    def chunk_received(self, chunk: AudioChunk, now_s: float) -> None:
        if self.first_audio_s is None:
            self.first_audio_s = now_s
        self.last_audio_s = now_s
        self.samples += chunk.samples
        self.chunks += 1

    @property
    def audio_s(self) -> float:
        """Seconds of audio received."""
        return self.samples / self.sample_rate_hz

    @property
    def ttfa_s(self) -> float | None:
        """Seconds from the first text to the first audio; None before the first audio."""
        if self.started_s is None or self.first_audio_s is None:
            return None
        return self.first_audio_s - self.started_s

    @property
    def rtf(self) -> float | None:
        """Seconds from the first text to the last audio, per second of audio; None before the first audio."""
        if self.started_s is None or self.last_audio_s is None or not self.samples:
            return None
        return (self.last_audio_s - self.started_s) / self.audio_s
