"""The settings of streams and connections, as frozen values. The server checks them, not the client."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

AudioFormat = Literal[
    "pcm_s16le", "pcm_f32le", "wav", "ogg_opus", "webm_opus", "mp3", "flac", "aac", "mulaw", "alaw"
]  # fmt: skip
"""The name of an audio format. The chunks of a stream, joined, are one playable file.

```python
async with mynah.Client("127.0.0.1:50051") as client:
    audio = [chunk.data async for chunk in client.synthesize("Hello there.", audio_format="mp3")]
    Path("hello.mp3").write_bytes(b"".join(audio))
```
"""
AUDIO_FORMATS: tuple[AudioFormat, ...] = get_args(AudioFormat)


@dataclass(frozen=True)
class Sampling:
    """How speech tokens are sampled. The server chooses what is None. Ranges: see mynah/v1/speech.proto.

    ```python
    async with mynah.Client("127.0.0.1:50051") as client:
        sampling = mynah.Sampling(temperature=0.6, seed=7)  # the same seed gives the same audio
        async for chunk in client.synthesize("Hello there.", sampling=sampling):
            play(chunk.data)
    ```
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None  # with the schedule of `StreamOpened` it repeats every byte
    max_speech_tokens: int | None = None  # per segment
    min_p: float | None = None  # only for models that have it; see ServerInfo.min_p_default


Schedule = Literal["lowest_latency", "balanced", "throughput", "crowd", "offline"]
"""How the audio is cut into windows whatever the load, from small first windows to large ones; "offline" has the
fewest, which takes the least work, behind all streams that have a listener."""
Markup = Literal["refuse", "strip", "literal", "ssml", "ssml_lenient"]
"""What markup in a text becomes: SSML is refused and HTML removed, both are removed, or both are spoken as text; or
SSML is obeyed, and what cannot be is an error, or is ignored."""
Emoji = Literal["drop", "name"]
"""Whether emoji are left out or their names are spoken."""
UnspeakableText = Literal["skip", "refuse"]
"""What becomes of a segment in a script that the model does not speak."""


FirstSegment = Literal["sentence", "clause", "auto"]
"""Where the first segment of a silent stream may end: with its sentence, a clause, or as the writer's pace asks."""


@dataclass(frozen=True)
class DictionaryEntry:
    """A word, or several, and the respelling that is spoken instead.

    ```python
    entries = (mynah.DictionaryEntry("nginx", "engine ex"), mynah.DictionaryEntry("US", "you ess", case_sensitive=True))
    async with mynah.Client("127.0.0.1:50051") as client:
        text = mynah.TextSettings(dictionary=entries)
        async for chunk in client.synthesize("Restart nginx in the US.", text_settings=text):
            play(chunk.data)
    ```
    """

    word: str
    respelling: str
    case_sensitive: bool = False


@dataclass(frozen=True)
class TextSettings:
    """How text is read. The server chooses what is None.

    ```python
    async with mynah.Client("127.0.0.1:50051") as client:
        text = mynah.TextSettings(markup="strip", drop_thinking=True)
        async with client.stream(text_settings=text) as stream:
            await stream.send("<think>They said hello.</think>Hello!")
            await stream.end()
    ```
    """

    markup: Markup | None = None
    unspeakable_text: UnspeakableText | None = None
    drop_thinking: bool | None = None  # what stands between <think> and </think>
    normalize: bool | None = None  # speak numbers, dates, addresses as words; leave out Markdown; obey [pause:0.5s]
    emoji: Emoji | None = None
    paragraph_pause_s: float | None = None  # silence between two paragraphs
    dictionary: tuple[DictionaryEntry, ...] = ()  # of this stream, before the voice's and the server's


@dataclass(frozen=True)
class SpeechSettings:
    """The voice, format, rate, sampling and speed of a stream. The server chooses what is None.

    ```python
    async with mynah.Client("127.0.0.1:50051") as client, client.stream(sample_rate_hz=16_000) as stream:
        settings = stream.opened.settings  # nothing is None here
        print(settings.voice, settings.audio_format, settings.sample_rate_hz, settings.sampling.seed)
    ```
    """

    voice: str | None = None
    audio_format: AudioFormat | None = None
    sample_rate_hz: int | None = None
    sampling: Sampling = Sampling()
    text: TextSettings = TextSettings()
    speed: float | None = None  # 0.5 to 2, at the same pitch
    first_segment: FirstSegment | None = None
    schedule: Schedule | None = None
    word_times: bool | None = None  # whether Words events are sent
    word_guard: bool | None = None  # whether the server watches that the speech says its text
    continuity: bool | None = None  # whether a segment's speech goes on from that of the segment before
    language: str | None = None  # one of ServerInfo.languages; a region is ignored: "pt-BR" is "pt"
    cfg_weight: float | None = None  # 0 to 2, how strongly the text guides the speech; only for models with guidance
    exaggeration: float | None = None  # 0.25 to 2, how lively it is; only for models that have it
    model: str | None = None  # one of ServerInfo.models by its name; None: the first


@dataclass(frozen=True)
class Tls:
    """The certificates of an encrypted connection, as PEM files.

    `root_certificates` are the trusted ones; None means the system's. `certificate` and `key` (both or neither)
    identify this client to a server that requires it.

    ```python
    tls = mynah.Tls(root_certificates=Path("ca.pem"))
    async with mynah.Client("speech.example.com:50051", tls=tls, api_key="secret") as client:
        print(await client.info())
    ```
    """

    root_certificates: Path | None = None
    server_name: str | None = None  # the name in the server's certificate, if it is not the address's
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Timeouts:
    """Time limits in seconds. An open stream has none here: the server's idle and stall limits apply.

    ```python
    timeouts = mynah.Timeouts(connect_s=2.0)
    async with mynah.Client("127.0.0.1:50051", timeouts=timeouts) as client:
        try:
            async with client.stream() as stream:
                await stream.send("Hello there.")
        except mynah.TimedOut:
            print("The server did not open a stream within 2 s.")
    ```
    """

    connect_s: float = 10.0  # until the server has opened a stream
    call_s: float = 30.0  # for info, health and voices, except `Voices.create`
    create_voice_s: float = 300.0
