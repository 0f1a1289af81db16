"""SSML, the part that is obeyed: speak, p, s, break, sub, say-as, phoneme, prosody rate, mark.

Tags come from MarkupFilter, which has no entities but the predefined ones and bounds a tag's length.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from engines.errors import InvalidInput
from engines.text.dictionary import Entry, check
from engines.text.english.say_as import SAY_AS, say_as
from engines.text.languages import ENGLISH
from service.stream.text.items import MAX_PAUSE_S, Anchors, Cut, Fixed, Mark, Pause, Rate

ELEMENTS = ("speak", "p", "s", "break", "sub", "say-as", "phoneme", "prosody", "mark")
MAX_DEPTH = 32
MAX_CONTENT_CHARS = 500  # of sub, say-as and phoneme
_MAX_NAME_CHARS = 200
_ATTRIBUTE = re.compile(r"\s([A-Za-z_:][\w:.-]*)\s*=\s*(?:\"([^\"<]*)\"|'([^'<]*)'|([^\s\"'=<>`]+))")
_DURATION = re.compile(r"\+?(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})(ms|s)")
_PERCENT = re.compile(r"([+-]?)(\d{1,4}(?:\.\d{1,4})?)%")
_STRENGTHS = {"none": 0.0, "x-weak": 0.1, "weak": 0.2, "medium": 0.4, "strong": 0.7, "x-strong": 1.2}
_RATES = {"x-slow": 0.5, "slow": 0.75, "medium": 1.0, "default": 1.0, "fast": 1.35, "x-fast": 1.75}
_MIN_SPEED, _MAX_SPEED = 0.5, 2.0
_CONTENT = ("sub", "say-as", "phoneme")
_RESPELLINGS = ("", "x-respelling", "respelling")


def duration_s(text: str) -> float | None:
    """Returns the seconds of "500ms" or "1.5s", or None."""
    match = _DURATION.fullmatch(text.strip())
    return None if match is None else float(match[1]) * (0.001 if match[2] == "ms" else 1.0)


@dataclass
class _Open:
    """An element that has begun, with its attributes."""

    name: str
    attributes: dict[str, str]
    speed: float = 1.0


class SsmlReader:
    """One stream's elements. `tag` returns what a tag becomes in the text; `text` collects what stands in sub, say-as
    and phoneme, which become one word.

    lenient  ignore what cannot be obeyed instead of raising InvalidInput
    can_change_speed  whether prosody's rate is obeyed
    language  of the text: say-as has words in English only
    """

    def __init__(
        self, anchors: Anchors, *, lenient: bool = False, can_change_speed: bool = True, language: str = ENGLISH
    ) -> None:
        self._language = language
        self._anchors, self._lenient, self._can_change_speed = anchors, lenient, can_change_speed
        self.reset()

    def reset(self) -> None:
        """Forget the text read so far."""
        self._open: list[_Open] = []
        self._content = ""

    @property
    def pending_chars(self) -> int:
        """The characters held back."""
        return len(self._content)

    @property
    def _collecting(self) -> bool:
        return bool(self._open) and self._open[-1].name in _CONTENT

    def is_open(self, name: str) -> bool:
        """Whether an element of this name has begun."""
        return any(element.name == name for element in self._open)

    def text(self, text: str) -> str:
        """Returns the text that goes on, none of it inside of an element that is read as a whole."""
        if not self._collecting:
            return text
        self._content += text
        if len(self._content) > MAX_CONTENT_CHARS:
            return self._fault(
                f"<{self._open[-1].name}> has more than {MAX_CONTENT_CHARS} characters", "close it earlier", self._close
            )
        return ""

    def flush(self) -> str:
        """Returns what was held back. The other elements that are open stay so. Raises InvalidInput for one with
        content, which cannot be spoken in part."""
        return self._unclosed(self._close) if self._collecting else ""

    def end(self) -> None:
        """The text is complete. Raises InvalidInput for an element that is open."""
        if self._open:
            self._unclosed()

    def _unclosed(self, instead: object = None) -> str:
        name = self._open[-1].name
        return self._fault(f"<{name}> is not closed", f"</{name}> before the text ends", instead)

    def tag(self, name: str, attributes: str, *, is_end: bool, is_empty: bool) -> str:
        """Returns what a tag becomes. Raises InvalidInput with reason SSML_INVALID or SSML_UNSUPPORTED."""
        if name not in ELEMENTS:
            return self._unsupported(f"the element <{name}>", f"one of {', '.join(ELEMENTS)}")
        if is_end:
            return self._end_of(name)
        if self._collecting:
            parent = self._open[-1].name
            return self._fault(f"<{name}> stands inside of <{parent}>", "text alone in it")
        values = {
            key.lower(): html.unescape(double or single or bare)
            for key, double, single, bare in _ATTRIBUTE.findall(attributes)
        }
        if name == "break":
            return self._break(values)
        if name == "mark":
            return self._mark(values)
        return "" if is_empty else self._start_of(name, values)

    def _start_of(self, name: str, values: dict[str, str]) -> str:
        if len(self._open) >= MAX_DEPTH:
            return self._fault(f"elements are nested more than {MAX_DEPTH} deep", "fewer")
        before = self._speed
        element = _Open(name, values, before)
        if name == "prosody":
            element.speed = self._prosody(values, before)
        self._open.append(element)
        if name == "prosody" and element.speed != before:
            return self._anchors.add(Rate(element.speed))
        return "\n\n" if name in ("p", "speak") else self._anchors.add(Cut()) if name == "s" else ""

    def _end_of(self, name: str) -> str:
        if name in ("break", "mark"):
            return ""
        if not self._open or self._open[-1].name != name:
            return self._fault(f"</{name}> closes nothing", "the end of the element opened last")
        if name in _CONTENT:
            return self._close()
        closed = self._open.pop()
        if name == "prosody" and closed.speed != self._speed:
            return self._anchors.add(Rate(self._speed))
        return "\n\n" if name in ("p", "speak") else self._anchors.add(Cut()) if name == "s" else ""

    @property
    def _speed(self) -> float:
        return self._open[-1].speed if self._open else 1.0

    def _close(self) -> str:
        """Returns the word that an element with content becomes."""
        element, content = self._open.pop(), self._content
        self._content = ""
        spoken = self._spoken(element, content)
        lead = content[: len(content) - len(content.lstrip())]
        tail = content[len(content.rstrip()) :]
        if not content.strip() and not spoken.strip():
            return content
        return lead + self._anchors.add(Fixed(content.strip(), spoken)) + tail

    def _spoken(self, element: _Open, content: str) -> str:
        values = element.attributes
        if element.name == "sub":
            if "alias" not in values:
                self._fault("<sub> has no alias", 'an attribute, as in <sub alias="...">')
            return values.get("alias", content)[:MAX_CONTENT_CHARS]
        if element.name == "phoneme":
            return self._respelled(values, content)
        return self._said_as(values, content)

    def _respelled(self, values: dict[str, str], content: str) -> str:
        alphabet, respelling = values.get("alphabet", ""), values.get("ph", "")
        if alphabet not in _RESPELLINGS:
            self._unsupported(
                f'alphabet="{alphabet[:40]}" of <phoneme>', 'alphabet="x-respelling", as in ph="toe MAY toe"'
            )
            return content
        try:
            check(Entry("word", respelling))
        except InvalidInput:
            self._unsupported(f'ph="{respelling[:40]}" of <phoneme>', "a respelling in ordinary letters")
            return content
        return respelling

    def _said_as(self, values: dict[str, str], content: str) -> str:
        if self._language != ENGLISH:
            self._unsupported(f"<say-as> in a text whose language is {self._language}", "it in English text")
            return content
        kind, order = values.get("interpret-as", ""), values.get("format", "")
        spoken = say_as(kind, content.strip(), order)
        if spoken is None:
            shown = f'interpret-as="{kind[:40]}"' + (f' format="{order[:40]}"' if order else "")
            self._unsupported(f"{shown} of <say-as>", f"one of {', '.join(SAY_AS)}, and text of that kind")
            return content
        return spoken

    def _break(self, values: dict[str, str]) -> str:
        if "time" not in values:
            strength = values.get("strength", "medium")
            if strength not in _STRENGTHS:
                return self._fault(f'<break> has strength="{strength[:40]}"', f"one of {', '.join(_STRENGTHS)}")
            seconds: float | None = _STRENGTHS[strength]
        else:
            seconds = duration_s(values["time"])
        if seconds is None:
            return self._fault(f'<break> has time="{values["time"][:40]}"', "a time such as 500ms or 1.5s")
        if seconds > MAX_PAUSE_S:
            self._fault(f"<break> is {seconds:g} s long", f"at most {MAX_PAUSE_S:g} s")
        return self._anchors.add(Pause(min(seconds, MAX_PAUSE_S))) if seconds else ""

    def _mark(self, values: dict[str, str]) -> str:
        name = values.get("name", "")
        if not 0 < len(name) <= _MAX_NAME_CHARS:
            return self._fault("<mark> has no name, or a long one", f"a name of 1 to {_MAX_NAME_CHARS} characters")
        return self._anchors.add(Mark(name))

    def _prosody(self, values: dict[str, str], before: float) -> float:
        others = sorted(values.keys() - {"rate"})
        if others or not self._can_change_speed:
            what = f"{others[0][:40]} of <prosody>" if others else "the element <prosody>"
            self._unsupported(what, "rate alone" if self._can_change_speed else "text without it")
        if "rate" not in values or not self._can_change_speed:
            return before
        rate = values["rate"].strip()
        match = _PERCENT.fullmatch(rate)
        if rate in _RATES:
            speed = _RATES[rate]
        elif match is not None:
            share = float(match[2]) / 100
            speed = {"+": 1 + share, "-": 1 - share}.get(match[1], share)
        else:
            self._fault(f'<prosody> has rate="{rate[:40]}"', f"a percentage or one of {', '.join(_RATES)}")
            return before
        if not _MIN_SPEED <= speed <= _MAX_SPEED:
            self._fault(f'<prosody> has rate="{rate[:40]}"', f"a speed from {_MIN_SPEED:.0%} to {_MAX_SPEED:.0%}")
        return min(max(speed, _MIN_SPEED), _MAX_SPEED)

    def _unsupported(self, what: str, allowed: str) -> str:
        if self._lenient:
            return ""
        message = f"text.content has {what}, which this server does not obey; it may have {allowed}."
        raise InvalidInput("text.content", message, "SSML_UNSUPPORTED", value=what, allowed=allowed)

    def _fault(self, what: str, allowed: str, instead: object = None) -> str:
        if self._lenient:
            return instead() if callable(instead) else ""
        message = f"text.content is not valid SSML: {what}; expected is {allowed}."
        raise InvalidInput("text.content", message, "SSML_INVALID", value=what, allowed=allowed)
