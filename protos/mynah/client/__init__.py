"""The Python client: connections, streams, voices, and their values and errors.

`Client`, `SpeechStream` and `Voices` are loaded at first use, because they import gRPC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mynah.client.client import Client
    from mynah.client.stream import SpeechStream
    from mynah.client.voices import Voices

__all__ = ["Client", "SpeechStream", "Voices"]

_MODULES = {"Client": "client", "SpeechStream": "stream", "Voices": "voices"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'mynah.client' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"mynah.client.{_MODULES[name]}"), name)
