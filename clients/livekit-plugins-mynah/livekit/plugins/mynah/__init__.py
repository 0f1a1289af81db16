"""LiveKit Agents' text to speech by a Mynah server."""

from __future__ import annotations

import logging

from livekit.agents import Plugin

from .tts import TTS, SynthesizeStream

__all__ = ["TTS", "SynthesizeStream", "__version__"]
__version__ = "0.1.0"


class MynahPlugin(Plugin):
    """The plugin's entry in LiveKit's list."""

    def __init__(self) -> None:
        super().__init__(__name__, __version__, __package__, logging.getLogger("livekit.plugins.mynah"))


Plugin.register_plugin(MynahPlugin())
