"""What went wrong, in words for the person in front of the page, and which of its fields it concerns.

Pure: knows the contract's reasons, nothing of pages or connections.
"""

from __future__ import annotations

from typing import Any

from mynah import MynahError

_WORDS = {
    "NOT_READY": "The speech server is still warming up.",
    "DRAINING": "The speech server is about to stop.",
    "STREAMS_EXHAUSTED": "All of the speech server's streams are taken.",
    "ENGINE_BUSY": "The speech server is busy with other streams.",
    "ENGINE_FAILURE": "Speaking failed on the server; other streams are not concerned.",
    "VOICE_NOT_FOUND": "This voice is not there any more. Choose another one.",
    "TEXT_BACKLOG_FULL": "That is more text than the server keeps waiting at a time.",
    "STREAM_IDLE": "The stream was quiet for so long that the server ended it.",
    "READER_STALLED": "This browser stopped taking audio for so long that the server ended the stream.",
    "OPEN_TIMED_OUT": "The speech server did not answer in time.",
    "CONSENT_REQUIRED": "Confirm that the speaker agreed to having this voice made.",
    "VOICE_NAME_INVALID": "Give the voice a name of 1 to 80 printable characters.",
    "VOICE_EXISTS": "There is already a voice with this id.",
    "VOICE_BUILT_IN": "The built-in voice cannot be deleted.",
    "VOICES_FULL": "The server keeps no more voices. Delete one first.",
    "UPLOADS_EXHAUSTED": "The server is taking too many recordings at once.",
    "AUDIO_EMPTY": "The recording is empty.",
    "AUDIO_TOO_LARGE": "The file is too large for the server.",
    "AUDIO_NOT_DECODABLE": "The server cannot read this file as audio.",
    "AUDIO_TOO_SHORT": "The recording is too short: more than 5 seconds are needed.",
    "AUDIO_TOO_LONG": "The recording is too long: 2 minutes are the most.",
    "AUDIO_SILENT": "The recording is almost silent.",
    "API_KEY_INVALID": "The speech server wants an API key, and this page has none that it knows.",
    "UNAVAILABLE": "The speech server does not answer.",
}
_FIELDS = {
    "TEXT_EMPTY": "text",
    "TEXT_TOO_LONG": "text",
    "TEXT_BACKLOG_FULL": "text",
    "VOICE_NOT_FOUND": "voice",
    "VOICE_ID_INVALID": "voice",
    "CONSENT_REQUIRED": "consent",
    "VOICE_NAME_INVALID": "name",
    "VOICES_FULL": "name",
    "VOICE_EXISTS": "name",
}
SAMPLING = ("temperature", "top_k", "top_p", "repetition_penalty", "seed", "max_speech_tokens")


def explain(error: MynahError) -> dict[str, Any]:
    """`message`: a sentence or two; `field`: what it stands beside ("" for the call as a whole); `retryable`."""
    message = _WORDS.get(error.reason) or _plain(error)
    if error.retryable:
        message += " Try again in a moment."
    return {"message": message, "field": _field(error), "reason": error.reason, "retryable": error.retryable}


def _plain(error: MynahError) -> str:
    name = error.field.rpartition(".")[2].replace("_", " ").capitalize()
    if error.field and error.allowed:
        return f"{name} cannot be {error.value}; allowed: {error.allowed}."
    if error.reason == "VALUE_UNSENDABLE":
        return f"{name} cannot be {error.value}."
    return f"The speech server says: {error}"


def _field(error: MynahError) -> str:
    if error.reason.startswith("AUDIO_") and error.reason != "AUDIO_FORMAT_UNKNOWN":
        return "clip"
    field = error.field.rpartition(".")[2]
    return field if field in SAMPLING else _FIELDS.get(error.reason, "text" if field == "content" else "")
