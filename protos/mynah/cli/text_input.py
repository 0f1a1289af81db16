"""Bytes of a file or of standard input as text: UTF-8, or UTF-16 where a byte order mark says so."""

from __future__ import annotations

import codecs

from mynah.client.errors import InvalidArgument

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_MAX_BAD_SHARE, _MIN_BAD = 0.2, 8  # of the characters that are no UTF-8, in one piece; one torn word is let pass


class TextDecoder:
    """Decodes pieces as they arrive. Bytes that are not of the encoding become U+FFFD, if they are few.

    `source` begins the sentence of an error, e.g. "standard input".
    """

    def __init__(self, source: str) -> None:
        self._source, self._head = source, b""
        self._decoder: codecs.IncrementalDecoder | None = None

    def decode(self, piece: bytes, *, final: bool = False) -> str:
        """Returns the text of a piece and of what was left of those before it. Raises InvalidArgument."""
        if self._decoder is None:
            self._head += piece
            if not final and any(mark != self._head and mark.startswith(self._head) for mark in _MARKS):
                return ""  # it may be the begin of a mark
            encoding = next((name for mark, name in _MARKS.items() if self._head.startswith(mark)), "utf-8")
            self._decoder = codecs.getincrementaldecoder(encoding)("replace")
            piece, self._head = self._head, b""
        text = self._decoder.decode(piece, final)
        bad = text.count("\ufffd")
        if "\0" in text or (bad >= _MIN_BAD and bad > _MAX_BAD_SHARE * len(text)):
            raise self._not_text("NUL characters" if "\0" in text else "many bytes that are not UTF-8")
        return text

    def _not_text(self, content: str) -> InvalidArgument:
        allowed = "text in UTF-8, or in UTF-16 with a byte order mark"
        message = f"{self._source[0].upper()}{self._source[1:]} is not text: it has {content}. Send {allowed}."
        return InvalidArgument(message, reason="TEXT_NOT_DECODABLE", field="text", value=content, allowed=allowed)


def decoded(data: bytes, source: str) -> str:
    """Returns the text of all bytes at once. Raises InvalidArgument."""
    return TextDecoder(source).decode(data, final=True)


def lines_of(data: bytes, source: str) -> list[str]:
    """Returns the lines of a script's bytes. Raises InvalidArgument if they are no text.

    Only a line feed ends a line: a JSON string may hold the other characters that str.splitlines takes for ends.
    """
    return decoded(data, source).split("\n")
