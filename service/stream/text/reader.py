"""A stream's text to what is done with it: segments with their spoken forms, pauses and marks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from engines.text.front_end import FrontEnd
from engines.text.languages import ENGLISH
from engines.text.reading import Claim, Reading
from service.stream.markup import MarkupFilter
from service.stream.segmenter import Segmenter
from service.stream.settings import Emoji, TextSettings
from service.stream.text.code_blocks import CodeBlocks
from service.stream.text.items import BOUNDARY, INLINE, Anchors, Boundary, Mark, Pause, Rate, without_anchors
from service.stream.text.pause_tags import PauseTags
from service.stream.text.spoken_limits import SpokenLimits

_PIECES = re.compile(r"\S+|\s+")


@dataclass(frozen=True)
class Utterance:
    """A segment's text, as written and as spoken, and the speed that its markup asks for."""

    reading: Reading
    speed: float = 1.0


Item = Utterance | Pause | Mark


class TextReader:
    """Reads one stream's text. The items do not depend on how the text was fragmented."""

    def __init__(
        self, segmenter: Segmenter, settings: TextSettings, limits: SpokenLimits, language: str = ENGLISH
    ) -> None:
        self._segmenter, self._limits = segmenter, limits
        self._anchors = Anchors()
        self._markup = MarkupFilter(settings, self._anchors, language)
        self._code_blocks = CodeBlocks() if settings.normalize else None
        self._pause_tags = PauseTags(self._anchors) if settings.normalize else None
        self._front_end = FrontEnd(
            normalize=settings.normalize,
            name_emoji=settings.emoji is Emoji.NAME,
            dictionary=settings.dictionary,
            language=language,
        )
        self._paragraph_pause_s = settings.paragraph_pause_s
        self._begin()

    def _begin(self) -> None:
        self._speed = 1.0
        self._line_feeds = 0  # since the last word
        self._in_paragraph = False  # whether there was a word since the last pause

    @property
    def pending_chars(self) -> int:
        """The characters that wait for their segment's end."""
        filters = (self._markup, self._code_blocks, self._pause_tags, self._segmenter)
        return sum(each.pending_chars for each in filters if each is not None)

    def feed(self, fragment: str) -> list[Item]:
        """Append a fragment. Returns what it proves, in order; often nothing. Raises InvalidInput for markup."""
        return self._items(self._code_and_pauses(self._markup.feed(without_anchors(fragment))))

    @property
    def pending(self) -> tuple[str, int]:
        """The unfinished sentence as the segmenter has it."""
        return self._segmenter.pending

    def cut(self, length: int) -> list[Item]:
        """End the unfinished sentence after `length` characters. Returns what that begins with."""
        return [*self._utterances([self._segmenter.cut(length)])]

    def flush(self) -> list[Item]:
        """Returns all that is left, as if the text ended here. SSML elements stay open. Raises InvalidInput for one
        that is spoken as a whole: sub, say-as, phoneme."""
        rest = self._code_and_pauses(self._markup.flush())
        if self._code_blocks is not None and self._pause_tags is not None:
            rest += self._pause_tags.feed(self._code_blocks.flush()) + self._pause_tags.flush()
        return [*self._items(rest), *self._utterances(self._segmenter.flush())]

    def end(self) -> list[Item]:
        """Returns all that is left of a complete text. Raises InvalidInput for an SSML element that is open."""
        items = self.flush()
        self._markup.end()
        return items

    def reset(self) -> None:
        """Forget the text fed so far."""
        for each in (self._markup, self._code_blocks, self._pause_tags):
            if each is not None:
                each.reset()
        self._segmenter.flush()
        self._anchors.clear()
        self._begin()

    def _code_and_pauses(self, text: str) -> str:
        if self._code_blocks is None or self._pause_tags is None:
            return text
        return self._pause_tags.feed(self._code_blocks.feed(text))

    def _items(self, text: str) -> list[Item]:
        if text.isascii():
            return self._paragraphs(text)
        items: list[Item] = []
        for part in BOUNDARY.split(text):
            if BOUNDARY.fullmatch(part):
                items += self._boundary(self._anchors.take_boundary(part))
            else:
                items += self._paragraphs(part)
        return items

    def _boundary(self, boundary: Boundary) -> list[Item]:
        items: list[Item] = [*self._utterances(self._segmenter.flush())]
        if isinstance(boundary, Rate):
            self._speed = boundary.speed
        elif isinstance(boundary, Pause | Mark):
            items.append(boundary)
            self._in_paragraph = self._in_paragraph and not isinstance(boundary, Pause)
        return items

    def _paragraphs(self, text: str) -> list[Item]:
        """Adds a pause between two paragraphs, once the second one begins."""
        if not self._paragraph_pause_s:
            return [*self._utterances(self._segmenter.feed(text))]
        items: list[Item] = []
        for piece in _PIECES.findall(text):
            if piece.isspace():
                self._line_feeds += piece.count("\n")
            else:
                if self._line_feeds >= 2 and self._in_paragraph:
                    items.append(Pause(self._paragraph_pause_s))
                self._line_feeds, self._in_paragraph = 0, True
            items += self._utterances(self._segmenter.feed(piece))
        return items

    def _utterances(self, segments: list[str]) -> Iterator[Utterance]:
        for text in segments:
            written, fixed = self._expanded(text)
            if self._front_end.changes_nothing and not fixed:
                yield Utterance(Reading(written, written), self._speed)
            else:
                for part in self._limits.parts(self._front_end.read(written, fixed)):
                    yield Utterance(part, self._speed)

    def _expanded(self, text: str) -> tuple[str, list[Claim]]:
        """The text with what was written for each anchor in it, and what is spoken there."""
        if text.isascii():
            return text, []
        parts: list[str] = []
        fixed: list[Claim] = []
        at = chars = 0
        for match in INLINE.finditer(text):
            item = self._anchors.take_fixed(match[0])
            parts += (text[at : match.start()], item.written)
            start = chars + match.start() - at
            chars = start + len(item.written)
            fixed.append(Claim(start, chars, item.spoken))
            at = match.end()
        return "".join([*parts, text[at:]]), fixed
