"""Subtitles in SRT or WebVTT from the words of a stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mynah.client.errors import InvalidArgument
from mynah.client.events import Event, SegmentStarted, Words, WordTime

FORMATS = ("srt", "vtt")
_MAX_CHARS, _MAX_S, _MAX_PAUSE_S = 42, 6.0, 1.0  # of a cue, as broadcasters' guides say
_CLOSING = "\"'”’».,;:!?…)]}—"
_OPENING = "\"'“‘«([{¿¡"


@dataclass(frozen=True)
class Cue:
    """A line and its time."""

    start_s: float
    end_s: float
    text: str


@dataclass
class Subtitles:
    """Collects a stream's events; needs `word_times`.

    ```python
    async with mynah.Client("127.0.0.1:50051") as client, client.stream(word_times=True) as stream:
        await stream.send("Hello there. How are you?")
        await stream.end()
        subtitles = mynah.Subtitles(stream.opened.settings.sample_rate_hz)
        async for event in stream.events():
            subtitles.add(event)
    Path("hello.srt").write_text(subtitles.srt())
    ```
    """

    rate_hz: int | None
    _texts: dict[int, str] = field(default_factory=dict)
    _silent: dict[int, frozenset[int]] = field(default_factory=dict)  # chars of marks that are not spoken
    _words: dict[int, list[WordTime]] = field(default_factory=dict)

    def add(self, event: Event) -> None:
        """Take any event of the stream."""
        if isinstance(event, SegmentStarted):
            self._texts[event.segment_index] = event.text
            self._silent[event.segment_index] = frozenset(
                at
                for span in event.spoken_spans
                if span.spoken_start == span.spoken_end
                for at in range(span.written_start, span.written_end)
            )
        elif isinstance(event, Words):
            self._words.setdefault(event.segment_index, []).extend(event.words)

    def cues(self) -> list[Cue]:
        """The lines so far: each is part of one segment, and as long as can be read at once. Marks that are not spoken,
        such as those of Markdown, are left out."""
        cues = []
        for segment_index, words in sorted(self._words.items()):
            for line in self._lines(segment_index, words):
                start_s, end_s = line[0].start_samples / self._rate, line[-1].end_samples / self._rate
                cues.append(Cue(start_s, end_s, self._written(segment_index, line)))
        return cues

    def written(self, event: Words) -> list[str]:
        """An event's words with the marks around them, for a transcript: "Well," instead of "Well"."""
        return [self._written(event.segment_index, [word]) for word in event.words]

    @property
    def _rate(self) -> int:
        assert self.rate_hz, "the stream is open, so its rate is known"
        return self.rate_hz

    def _lines(self, segment_index: int, words: list[WordTime]) -> list[list[WordTime]]:
        lines: list[list[WordTime]] = []
        for word in words:
            if lines and self._fits(segment_index, lines[-1], word):
                lines[-1].append(word)
            else:
                lines.append([word])
        return lines

    def _fits(self, segment_index: int, line: list[WordTime], word: WordTime) -> bool:
        pause_s = (word.start_samples - line[-1].end_samples) / self._rate
        line_s = (word.end_samples - line[0].start_samples) / self._rate
        chars = len(self._shown(segment_index, line[0].start_char, word.end_char))
        return chars <= _MAX_CHARS and line_s <= _MAX_S and pause_s <= _MAX_PAUSE_S

    def _written(self, segment_index: int, line: list[WordTime]) -> str:
        """The text of a line with the marks around its words."""
        text, silent = self._texts.get(segment_index, ""), self._silent.get(segment_index, frozenset())
        start, end = line[0].start_char, line[-1].end_char
        if not text:
            return " ".join(word.text for word in line)
        while end < len(text) and (text[end] in _CLOSING or end in silent):
            end += 1
        while start > 0 and (text[start - 1] in _OPENING or start - 1 in silent):
            start -= 1
        return self._shown(segment_index, start, end)

    def _shown(self, segment_index: int, start: int, end: int) -> str:
        """The chars of a segment's text that are read; without its text all count."""
        silent = self._silent.get(segment_index, frozenset())
        text = self._texts.get(segment_index, "") or "." * end
        return " ".join("".join(text[at] for at in range(start, min(end, len(text))) if at not in silent).split())

    def srt(self) -> str:
        """The subtitles as a SubRip file."""
        return "".join(
            f"{number}\n{_time(cue.start_s, ',')} --> {_time(cue.end_s, ',')}\n{cue.text}\n\n"
            for number, cue in enumerate(self.cues(), start=1)
        )

    def vtt(self) -> str:
        """The subtitles as a WebVTT file."""
        cues = [
            f"{_time(cue.start_s, '.')} --> {_time(cue.end_s, '.')}\n{_escaped(cue.text)}\n\n" for cue in self.cues()
        ]
        return "WEBVTT\n\n" + "".join(cues)

    def in_format(self, name: str) -> str:
        """The subtitles in a format of FORMATS."""
        return self.srt() if name == "srt" else self.vtt()


def subtitle_format(path: str | Path) -> str:
    """Returns the format that a file name asks for. Raises InvalidArgument for another one."""
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        allowed = "a name that ends in .srt or .vtt"
        message = f"The file name {str(path)!r} does not name a format of subtitles; it must be {allowed}."
        raise InvalidArgument(
            message, reason="SUBTITLES_NAME_INVALID", field="subtitles", value=str(path), allowed=allowed
        )
    return suffix


def _time(seconds: float, separator: str) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{separator}{ms % 1000:03}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
