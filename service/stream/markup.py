"""Markup in text that arrives in fragments: tags and entities are removed, decoded or refused.

Only what has the form of a tag and the name of an SSML or HTML element is markup: "if a < b" and "x <y" are text.
"""

from __future__ import annotations

import html
import re
from html.entities import html5

from engines.errors import InvalidInput
from engines.text.languages import ENGLISH
from service.stream.settings import Markup, TextSettings
from service.stream.text.items import Anchors
from service.stream.text.ssml import SsmlReader


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MAX_TAG_CHARS = 1024  # a longer one is text
_THINKING = frozenset({"think", "thinking", "thought", "reasoning"})
_UNSPOKEN = frozenset({"script", "style"})  # with all that is in them
_SSML = _words("speak break prosody emphasis say-as phoneme voice lexicon lookup lang audio metadata")
_SSML_BLOCKS = frozenset({"p", "s"})  # of SSML and of HTML
_SSML_PREFIXES = ("amazon:", "google:", "mstts:")
_SSML_ATTRIBUTES = {"sub": "alias", "mark": "name"}  # without these they are HTML
_BLOCKS = _words(
    "address article blockquote body caption dd div dl dt figure footer form h1 h2 h3 h4 h5 h6 head header hr html li "
    "main nav ol p pre s section speak table title tr ul"
)
_HTML = _BLOCKS | _words(
    "a abbr b big br button center cite code col del details em figcaption font i img input ins kbd label link mark "
    "meta option q samp select small span strike strong sub summary sup tbody td tfoot th thead tt u var video"
)
_NAMES = _SSML | _HTML | _UNSPOKEN | _THINKING

_NAME = r"[A-Za-z][A-Za-z0-9:-]*"
_ATTRIBUTE = r"\s+[A-Za-z_:][\w:.-]*\s*=\s*(?:\"[^\"<]*\"|'[^'<]*'|[^\s\"'=<>`]+)"
_TAG = re.compile(rf"<(?P<end>/?)(?P<name>{_NAME})(?P<attributes>(?:{_ATTRIBUTE})*)\s*/?>")
_TAG_BEGUN = re.compile(
    rf"</?(?P<name>(?:{_NAME})?)(?P<attributes>(?:{_ATTRIBUTE})*"
    rf"(?:\s+[A-Za-z_:][\w:.-]*(?:\s*=\s*(?:\"[^\"<]*|'[^'<]*|[^\s\"'=<>`]*))?)?\s*/?)\Z"
)
_DECLARATION = re.compile(r"<!--.*?-->|<\?.*?\?>|<!doctype\b[^<>]*>", re.DOTALL | re.IGNORECASE)
_DECLARATION_BEGUN = re.compile(
    r"<(?:!(?:-(?:-(?:(?!-->).)*)?|d(?:o(?:c(?:t(?:y(?:p(?:e[^<>]*)?)?)?)?)?)?)?|\?(?:xml(?:(?!\?>).)*|x?m?)?)\Z",
    re.DOTALL | re.IGNORECASE,
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_ENTITY_BEGUN = re.compile(r"&(?:#(?:\d{0,7}|[xX][0-9A-Fa-f]{0,6})|[A-Za-z][A-Za-z0-9]{0,31})?\Z")
_NEXT = re.compile(r"[<&]")


class MarkupFilter:
    """One stream's filter. The joined results do not depend on how the text was fragmented.

    Holds back at most a tag or an entity that has begun. Takes time linear in the text.
    """

    def __init__(
        self, settings: TextSettings | None = None, anchors: Anchors | None = None, language: str = ENGLISH
    ) -> None:
        """`anchors`: where SSML that is obeyed puts what it asks for."""
        self._settings = settings or TextSettings()
        self._ssml: SsmlReader | None = None
        if self._settings.markup in (Markup.SSML, Markup.SSML_LENIENT):
            lenient = self._settings.markup is Markup.SSML_LENIENT
            self._ssml = SsmlReader(anchors or Anchors(), lenient=lenient, language=language)
        self._held = ""  # a tag or an entity that may have begun
        self._dropping = ""  # the element whose content is dropped

    @property
    def pending_chars(self) -> int:
        """The characters held back."""
        return len(self._held) + (self._ssml.pending_chars if self._ssml is not None else 0)

    def feed(self, fragment: str) -> str:
        """Append a fragment. Returns the text that follows from it. Raises InvalidInput for SSML that is refused."""
        text, self._held = self._held + fragment, ""
        plain: list[str] = [] if self._ssml is None else _Collected(self._ssml)
        position = 0
        while position < len(text):
            position = self._skip(text, position) if self._dropping else self._read(text, position, plain)
        return "".join(plain)

    def flush(self) -> str:
        """Returns what is held back, as if the text ended here. Inside an element that is dropped it stays held."""
        if self._dropping:
            return ""
        held, self._held = self._held, ""
        return held if self._ssml is None else self._ssml.text(held) + self._ssml.flush()

    def end(self) -> None:
        """The text, which was flushed, is complete. Raises InvalidInput for an SSML element that is open."""
        if self._ssml is not None:
            self._ssml.end()

    def reset(self) -> None:
        """Forget the text fed so far."""
        self._held = self._dropping = ""
        if self._ssml is not None:
            self._ssml.reset()

    def _skip(self, text: str, start: int) -> int:
        """Drop text up to the end of the dropped element. Returns where to go on."""
        name = self._dropping
        ended = re.compile(rf"</{name}\s*>", re.IGNORECASE).search(text, start)
        if ended is not None:
            self._dropping = ""
            return ended.end()
        begun = text.rfind("<", max(start, len(text) - _MAX_TAG_CHARS))
        if begun >= 0 and re.fullmatch(rf"</?{_prefixes(name)}\s*", text[begun:], re.IGNORECASE):
            self._held = text[begun:]
        return len(text)

    def _read(self, text: str, start: int, plain: list[str]) -> int:
        """Add the text up to the next tag or entity, and what that becomes. Returns where to go on."""
        found = _NEXT.search(text, start)
        if found is None:
            plain.append(text[start:])
            return len(text)
        at = found.start()
        plain.append(text[start:at])
        if found[0] == "&":
            return self._entity(text, at, plain)
        return self._tag(text, at, plain)

    def _entity(self, text: str, at: int, plain: list[str]) -> int:
        if self._settings.markup is not Markup.LITERAL:
            if (entity := _ENTITY.match(text, at)) is not None:
                known = entity[0][1] == "#" or entity[0][1:] in html5
                plain.append(html.unescape(entity[0]) if known else entity[0])
                return entity.end()
            if _ENTITY_BEGUN.match(text, at):
                self._held = text[at:]
                return len(text)
        plain.append("&")
        return at + 1

    def _tag(self, text: str, at: int, plain: list[str]) -> int:
        if (tag := _TAG.match(text, at, at + _MAX_TAG_CHARS)) is not None and self._is_markup(tag["name"].lower()):
            self._replace(tag, plain)
            return tag.end()
        literal = self._settings.markup is Markup.LITERAL
        if not literal and (declaration := _DECLARATION.match(text, at, at + _MAX_TAG_CHARS)) is not None:
            return declaration.end()
        if len(text) - at <= _MAX_TAG_CHARS and self._may_become_markup(text, at):
            self._held = text[at:]
            return len(text)
        plain.append("<")
        return at + 1

    def _replace(self, tag: re.Match[str], plain: list[str]) -> None:
        """Add what a tag becomes."""
        name = tag["name"].lower()
        thinking = name in _THINKING and self._settings.drop_thinking
        is_ssml = name in _SSML_BLOCKS or _is_ssml(name, tag["attributes"]) or (tag["end"] and name in _SSML_ATTRIBUTES)
        if self._ssml is not None and not thinking and is_ssml:
            end, empty = bool(tag["end"]), tag[0].endswith("/>")
            if name not in _SSML_ATTRIBUTES or not end or self._ssml.is_open(name):
                list.append(plain, self._ssml.tag(name, tag["attributes"], is_end=end, is_empty=empty))
                return
        plain.append(self._replacement(tag))

    def _is_markup(self, name: str) -> bool:
        """Whether the element of this name is not text."""
        if name in _THINKING and self._settings.drop_thinking:
            return True
        return self._settings.markup is not Markup.LITERAL and (name in _NAMES or name.startswith(_SSML_PREFIXES))

    def _may_become_markup(self, text: str, at: int) -> bool:
        begun = _TAG_BEGUN.match(text, at)
        if begun is None:
            return self._settings.markup is not Markup.LITERAL and _DECLARATION_BEGUN.match(text, at) is not None
        name = begun["name"].lower()
        if begun["attributes"]:
            return self._is_markup(name)
        names = [known for known in (*_NAMES, *_SSML_PREFIXES) if known.startswith(name)]
        return name.startswith(_SSML_PREFIXES) or any(map(self._is_markup, names))

    def _replacement(self, tag: re.Match[str]) -> str:
        """What a tag becomes. Raises InvalidInput for SSML that is refused."""
        name = tag["name"].lower()
        dropped = name in _UNSPOKEN or (name in _THINKING and self._settings.drop_thinking)
        if dropped and not tag["end"] and not tag[0].endswith("/>"):
            self._dropping = name
        if self._settings.markup is Markup.REFUSE and _is_ssml(name, tag["attributes"]):
            raise _unsupported(name)
        if name in _BLOCKS:
            return "\n\n"
        return "\n" if name == "br" else " " if name in ("break", "td", "th") else ""


class _Collected(list[str]):
    """Text, of which an SSML element may collect some."""

    def __init__(self, ssml: SsmlReader) -> None:
        super().__init__()
        self._ssml = ssml

    def append(self, text: str) -> None:
        super().append(self._ssml.text(text))


def _is_ssml(name: str, attributes: str) -> bool:
    if name in _SSML_ATTRIBUTES:
        return re.search(rf"\s{_SSML_ATTRIBUTES[name]}\s*=", attributes) is not None
    return name in _SSML or name.startswith(_SSML_PREFIXES)


def _unsupported(name: str) -> InvalidInput:
    allowed = "plain text, or any text with the setting markup at ssml, strip or literal"
    message = f"text.content has the SSML element <{name}>, which this server does not obey; send {allowed}."
    return InvalidInput("text.content", message, "MARKUP_UNSUPPORTED", value=f"<{name}>", allowed=allowed)


def _prefixes(name: str) -> str:
    """A pattern for the beginnings of `name`, the empty one and itself included."""
    pattern = ""
    for char in reversed(name):
        pattern = f"(?:{re.escape(char)}{pattern})?"
    return pattern
