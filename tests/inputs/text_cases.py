"""Texts, the surface each is sent to, and what must come of it on the shipped model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

EVERY = ("stream", "synthesize", "http", "websocket", "riva", "cli")
EVENTS = ("stream", "synthesize", "websocket")
WHOLE = ("synthesize", "http", "riva", "cli")
PUNCTUATION, SCRIPT = "nothing_to_speak", "script_unsupported"


@dataclass(frozen=True)
class Case:
    """A text and what is right: the segments that are spoken, the reasons of those skipped, or an error's reason."""

    text: str
    spoken: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    error: str = ""
    surfaces: tuple[str, ...] = ("stream",)
    settings: dict[str, Any] = field(default_factory=dict)
    said: tuple[str, ...] = ()  # the spoken forms, and pauses as seconds; empty: not looked at
    marks: tuple[str, ...] = ()


def _nothing(text: str, reason: str = PUNCTUATION) -> Iterator[Case]:
    """A text with nothing to speak: a stream skips it, a whole text is refused."""
    if text.strip():
        yield Case(text, skipped=(reason,), surfaces=("stream", "websocket"))
    yield Case(text, error="TEXT_EMPTY", surfaces=WHOLE[:1])


def _spoken(text: str, *segments: str, **others: Any) -> Case:
    return Case(text, spoken=segments or (text,), **others)


NOTHING = tuple(
    case
    for text in (
        "...",
        ".",
        "?!",
        "!!!",
        "*",
        '"',
        "\u200b",
        "🎉",
        "---",
        "[laugh]",
        "•",
        "```",
        "👩\u200d👩\u200d👧",
        "\ufeff",
    )
    for case in _nothing(text)
)
FOREIGN = tuple(case for text in ("Привет, мир.", "你好", "مرحبا بالعالم") for case in _nothing(text, SCRIPT))

CASES: tuple[Case, ...] = (
    *NOTHING,
    *FOREIGN,
    Case("", error="TEXT_EMPTY", surfaces=WHOLE),
    Case(" \n\t", error="TEXT_EMPTY", surfaces=WHOLE),
    Case("...", error="TEXT_EMPTY", surfaces=("http", "riva", "cli")),
    Case("😀", error="TEXT_EMPTY", surfaces=("http", "riva", "cli")),
    Case("Здравствуйте.", error="TEXT_EMPTY", surfaces=("http", "riva", "cli")),
    # a script that the model does not speak may be refused
    Case("Привет.", error="SCRIPT_UNSUPPORTED", surfaces=EVERY, settings={"unspeakable_text": "refuse"}),
    Case("...", skipped=(PUNCTUATION,), settings={"unspeakable_text": "refuse"}),
    _spoken("Hello. Привет. Bye.", "Hello.", "Bye.", skipped=(SCRIPT,)),
    # emoji and marks of Markdown
    _spoken("Great job! 🎉", "Great job!", skipped=(PUNCTUATION,), surfaces=EVERY),
    _spoken("I ❤️ you"),
    _spoken("Done ✅ now"),
    _spoken("Sure!\n\n***\n\nHere it is.", "Sure!", "Here it is.", skipped=(PUNCTUATION,)),
    _spoken("Yes... no?! ..."),
    # meaning stays
    _spoken("Meet me at 10:30."),
    _spoken("It is 16:9: wide."),
    _spoken("soft\u00adhyphen"),
    _spoken("Good. \x1b[0m", "Good.", skipped=(PUNCTUATION,)),
    _spoken("\ufeffHello"),
    _spoken("\u202eabc\u202c"),
    _spoken("fish &amp; chips", "fish & chips", surfaces=EVENTS),
    _spoken("He said &quot;no&quot;.", 'He said "no".'),
    _spoken("it&#39;s", "it's"),
    _spoken("AT&T and R&D"),
    _spoken("# A Title\nSome text", "# A Title", "Some text"),
    _spoken("**Note**\nSome text", "**Note**", "Some text"),
    _spoken("A Short Title\nSome text", "A Short Title", "Some text"),
    _spoken("- one\n- two", "- one", "- two"),
    _spoken("1. one\n2. two", "1. one", "2. two"),
    _spoken("A wrapped\nline.", "A wrapped\nline."),
    # thinking
    _spoken("<think>He asks.</think>Yes.", "Yes.", settings={"drop_thinking": True}, surfaces=EVERY),
    _spoken("<think>One. Two.\n\nThree.</think>\n\nFour.", "Four.", settings={"drop_thinking": True}, surfaces=EVENTS),
    _spoken("<think>Hm.</think>Yes.", "Hm.Yes."),
    Case("<think>never ends", settings={"drop_thinking": True}),
    # markup
    Case("<speak>Hello.</speak>", error="MARKUP_UNSUPPORTED", surfaces=EVERY),
    Case('Wait <break time="1s"/> here.', error="MARKUP_UNSUPPORTED", surfaces=EVERY),
    Case('<prosody rate="slow">Hi</prosody>', error="MARKUP_UNSUPPORTED", surfaces=("http", "riva")),
    Case('<?xml version="1.0"?><speak>Hi</speak>', error="MARKUP_UNSUPPORTED"),
    Case('<say-as interpret-as="date">1</say-as>', error="MARKUP_UNSUPPORTED"),
    _spoken("<speak>Hello.</speak>", "Hello.", settings={"markup": "strip"}, surfaces=EVERY),
    _spoken('Wait <break time="1s"/>here.', "Wait here.", settings={"markup": "strip"}, surfaces=EVENTS),
    _spoken("<speak>Hi</speak>", settings={"markup": "literal"}, surfaces=EVENTS),
    _spoken("fish &amp; chips", settings={"markup": "literal"}),
    _spoken("<b>Bold</b> move", "Bold move", surfaces=EVENTS),
    _spoken("<p>One</p><p>Two</p>", "One", "Two"),
    _spoken("one<br>two", "one\ntwo"),
    _spoken("if a < b", surfaces=EVERY),
    _spoken("if a < b and c > d"),
    _spoken("List<String> x"),
    _spoken("I <3 you"),
    # numbers, Markdown, pauses, respellings, SSML
    _spoken("It is $5.", said=("It is five dollars.",), surfaces=EVENTS),
    _spoken("It is $5.", settings={"normalize": False}, said=("It is $5.",), surfaces=EVERY),
    _spoken("**Now** at 10:30.", said=("Now at ten thirty.",), surfaces=EVERY),
    _spoken("A [pause:0.5s] b", "A", "b", said=("A", "0.5", "b"), surfaces=EVERY),
    _spoken("A.\n\nB.", "A.", "B.", settings={"paragraph_pause_s": 0.25}, said=("A.", "0.25", "B."), surfaces=EVERY),
    _spoken("Go 🎉", settings={"emoji": "name"}, said=("Go party popper",), surfaces=EVERY),
    _spoken("nginx", settings={"dictionary": {"nginx": "engine"}}, said=("engine",), surfaces=EVERY),
    Case(
        "nginx", error="DICTIONARY_IPA_UNSUPPORTED", settings={"dictionary": {"nginx": "ˈɛndʒɪn"}}, surfaces=EVERY
    ),
    Case("a", error="PAUSE_TOO_LONG", settings={"paragraph_pause_s": 11}, surfaces=EVERY),
    _spoken(
        "<speak>A<break time='250ms'/><mark name='m'/><sub alias='see'>C</sub></speak>",
        "A",
        "C",
        settings={"markup": "ssml"},
        said=("A", "0.25", "see"),
        marks=("m",),
        surfaces=EVERY,
    ),
    _spoken("A <prosody rate='200%'>B</prosody>", "A", "B", settings={"markup": "ssml"}, surfaces=EVERY),
    Case("<emphasis>a</emphasis>", error="SSML_UNSUPPORTED", settings={"markup": "ssml"}, surfaces=EVERY),
    Case("<sub alias='b'>a", error="SSML_INVALID", settings={"markup": "ssml"}, surfaces=EVERY),
    Case("<prosody rate='200%'>a", error="SSML_INVALID", settings={"markup": "ssml"}, surfaces=EVERY),
    _spoken("<emphasis>a</emphasis>", "a", settings={"markup": "ssml_lenient"}, surfaces=EVERY),
)  # fmt: skip


def rows() -> Iterator[tuple[str, Case]]:
    """One row per surface and case."""
    for case in CASES:
        for surface in case.surfaces:
            yield surface, case
