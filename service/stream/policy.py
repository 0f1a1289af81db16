"""The limits of one client's streams and uploads, and how long the server waits for the client."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engines.text.dictionary import EMPTY, Dictionary
from service.options import PATH, SWITCH, one_of, option, seconds, whole
from service.stream.settings import Emoji, Markup, TextSettings, UnspeakableText
from service.stream.text.dictionaries import DictionaryFolder
from service.stream.text.items import MAX_PAUSE_S

_MAX_JSON_BYTES_PER_CHAR = 12  # JSON's longest form of a character: two escapes of six bytes
_MAX_UTF8_BYTES_PER_CHAR = 4
_OTHER_FIELDS_BYTES = 256 * 1024  # a dictionary above all


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
    normalize: bool = option(
        True,
        "speak numbers, dates, money, addresses, abbreviations and the like as English words, leave out Markdown, and "
        "obey [pause:0.5s], where a client does not choose",
        SWITCH,
    )
    emoji: str = option(
        Emoji.DROP.value,
        "whether emoji are left out or their names are spoken where a client does not choose",
        one_of(*(each.value for each in Emoji)),
    )
    paragraph_pause_s: float = option(
        0.0, "silence between two paragraphs where a client does not choose", seconds(0, MAX_PAUSE_S)
    )
    dictionary_dir: Path | None = option(
        None,
        "folder of pronunciation dictionaries: *.dict for every voice, VOICE_ID/*.dict for one; read again when they "
        "change",
        PATH,
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
        return TextSettings(
            Markup(self.markup),
            UnspeakableText(self.unspeakable_text),
            self.drop_thinking,
            self.normalize,
            Emoji(self.emoji),
            self.paragraph_pause_s,
        )

    @cached_property
    def _dictionaries(self) -> DictionaryFolder | None:
        return None if self.dictionary_dir is None else DictionaryFolder(self.dictionary_dir)

    def dictionary(self, voice_id: str) -> Dictionary:
        """The server's dictionary for a voice. Raises InvalidInput or OSError if the folder has never been valid."""
        return EMPTY if self._dictionaries is None else self._dictionaries.for_voice(voice_id)

    @property
    def max_json_bytes(self) -> int:
        """The longest JSON message or body that can be valid."""
        return self.max_pending_text_chars * _MAX_JSON_BYTES_PER_CHAR + _OTHER_FIELDS_BYTES

    @property
    def max_protobuf_bytes(self) -> int:
        """The longest protobuf message of a stream that can be valid."""
        return self.max_pending_text_chars * _MAX_UTF8_BYTES_PER_CHAR + _OTHER_FIELDS_BYTES
