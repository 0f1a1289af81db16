"""The Python client for Mynah: text in as it is written, speech out while it is made.

```python
async with mynah.Client("127.0.0.1:50051") as client:
    async for chunk in client.synthesize("Hello there."):
        play(chunk.data)
```

Importing this package does not load gRPC or protobuf; the first use of `Client` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mynah.client.errors import (
    AlreadyExists,
    InvalidArgument,
    MynahError,
    NotAllowed,
    NotFound,
    ServerBusy,
    ServerError,
    StreamCancelled,
    TimedOut,
    Unavailable,
    WrongState,
)
from mynah.client.events import (
    AudioChunk,
    Cancelled,
    Event,
    Flushed,
    Limits,
    MarkReached,
    ModelInfo,
    SegmentDone,
    SegmentStarted,
    ServerInfo,
    SpokenSpan,
    StreamOpened,
    Voice,
    VoiceWarning,
    WindowFigures,
    WordGuard,
    Words,
    WordTime,
)
from mynah.client.settings import (
    AudioFormat,
    DictionaryEntry,
    FirstSegment,
    Sampling,
    Schedule,
    SpeechSettings,
    TextSettings,
    Timeouts,
    Tls,
)
from mynah.client.subtitles import Subtitles

if TYPE_CHECKING:
    from mynah.client.client import Client
    from mynah.client.stream import SpeechStream
    from mynah.client.voices import Voices

__all__ = [
    "AlreadyExists",
    "AudioChunk",
    "AudioFormat",
    "Cancelled",
    "Client",
    "DictionaryEntry",
    "Event",
    "FirstSegment",
    "Flushed",
    "InvalidArgument",
    "Limits",
    "MarkReached",
    "ModelInfo",
    "MynahError",
    "NotAllowed",
    "NotFound",
    "Sampling",
    "Schedule",
    "SegmentDone",
    "SegmentStarted",
    "ServerBusy",
    "ServerError",
    "ServerInfo",
    "SpeechSettings",
    "SpeechStream",
    "SpokenSpan",
    "StreamCancelled",
    "StreamOpened",
    "Subtitles",
    "TextSettings",
    "TimedOut",
    "Timeouts",
    "Tls",
    "Unavailable",
    "Voice",
    "VoiceWarning",
    "Voices",
    "WindowFigures",
    "WordGuard",
    "WordTime",
    "Words",
    "WrongState",
]

_LAZY = ("Client", "SpeechStream", "Voices")  # they import gRPC


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from mynah.version import VERSION

        return VERSION
    if name not in _LAZY:
        raise AttributeError(f"module 'mynah' has no attribute {name!r}")
    from mynah import client

    return getattr(client, name)
