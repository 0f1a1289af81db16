"""The limits of one client's streams and uploads, and how long the server waits for the client."""

from __future__ import annotations

from dataclasses import dataclass

from service.options import SWITCH, one_of, option, seconds, whole
from service.stream.settings import Markup, TextSettings, UnspeakableText

_MAX_JSON_BYTES_PER_CHAR = 12  # JSON's longest form of a character: two escapes of six bytes
_MAX_UTF8_BYTES_PER_CHAR = 4
_OTHER_FIELDS_BYTES = 64 * 1024


@dataclass(frozen=True)
class StreamPolicy:
    """The same for every stream of a server, whatever the transport."""

    max_pending_text_chars: int = option(
        20_000, "text that may wait to be spoken on a stream, in characters", whole(1000, 10_000_000)
    )
    max_pending_flushes: int = option(1000, "flushes that may wait to be answered on a stream", whole(1, 1_000_000))
    send_queue_events: int = option(8, "chunks and other events made ahead of a slow reader", whole(1, 1000))
    max_upload_bytes: int = option(
        20_000_000, "largest upload of reference audio, in bytes; it may last 120 s", whole(1, 2**31)
    )
    max_unary_answer_bytes: int = option(
        4_000_000,
        "largest answer of Riva's Synthesize, in bytes; gRPC's clients receive 4 MiB unless they are set otherwise",
        whole(1000, 2**31 - 1),
    )
    markup: str = option(
        Markup.REFUSE.value,
        "what becomes of markup in a text where a client does not choose: SSML is refused and HTML removed, both are "
        "removed (strip), or both are spoken as text (literal)",
        one_of(*(each.value for each in Markup)),
    )
    unspeakable_text: str = option(
        UnspeakableText.SKIP.value,
        "what becomes of sentences in a script that the model does not speak where a client does not choose",
        one_of(*(each.value for each in UnspeakableText)),
    )
    drop_thinking: bool = option(
        False, "leave out what stands between <think> and </think> where a client does not choose", SWITCH
    )
    word_guard: bool = option(
        False,
        "watch that the speech says its text, each word once, where a client does not choose; only for models whose "
        "attention follows the text",
        SWITCH,
    )
    idle_timeout_s: float = option(
        300.0, "end a stream that has had neither text nor speech for this long", seconds(0.01, 86_400)
    )
    stall_timeout_s: float = option(
        30.0,
        "end a stream whose client has not read, or an upload whose client has not sent, for this long",
        seconds(0.01, 86_400),
    )

    @property
    def text(self) -> TextSettings:
        """How text is read where a client does not choose."""
        return TextSettings(Markup(self.markup), UnspeakableText(self.unspeakable_text), self.drop_thinking)

    @property
    def max_json_bytes(self) -> int:
        """The longest JSON message or body that can be valid."""
        return self.max_pending_text_chars * _MAX_JSON_BYTES_PER_CHAR + _OTHER_FIELDS_BYTES

    @property
    def max_protobuf_bytes(self) -> int:
        """The longest protobuf message of a stream that can be valid."""
        return self.max_pending_text_chars * _MAX_UTF8_BYTES_PER_CHAR + _OTHER_FIELDS_BYTES
