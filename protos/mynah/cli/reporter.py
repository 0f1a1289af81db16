"""Progress and summary of `mynah say` on standard error."""

from __future__ import annotations

import sys

from mynah.client.stream import SpeechStream
from mynah.client.stream_stats import StreamStats


def print_note(line: str) -> None:
    print(f"mynah: {line}", file=sys.stderr)


class NullReporter:
    """Prints nothing."""

    def opened(self, stream: SpeechStream) -> None: ...

    def progress(self, stats: StreamStats) -> None: ...

    def finished(self, stats: StreamStats, output: str) -> None: ...


class ProgressReporter(NullReporter):
    """Prints notices and a summary; at a terminal also the seconds of audio so far."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def opened(self, stream: SpeechStream) -> None:
        if stream.opened.notice:
            print_note(stream.opened.notice)

    def progress(self, stats: StreamStats) -> None:
        if self._live:
            print(f"\r{stats.audio_s:6.1f} s of audio", end="", file=sys.stderr, flush=True)

    def finished(self, stats: StreamStats, output: str) -> None:
        if self._live:
            print("\r", end="", file=sys.stderr)
        print_note(summary(stats, output))


def summary(stats: StreamStats, output: str) -> str:
    """Returns one line with the amount of audio, its timing and the output."""
    assert stats.ttfa_s is not None
    assert stats.rtf is not None
    return (
        f"{stats.audio_s:.2f} s of audio in {stats.chunks} chunks; time to first audio {stats.ttfa_s * 1000:.0f} ms, "
        f"real-time factor {stats.rtf:.2f}; {output}"
    )
