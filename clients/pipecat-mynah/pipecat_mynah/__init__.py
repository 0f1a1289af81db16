"""Pipecat's text to speech by a Mynah server."""

from pipecat_mynah.tts import MynahTTSService, MynahTTSSettings

__all__ = ["MynahTTSService", "MynahTTSSettings"]
__version__ = "0.1.0"
