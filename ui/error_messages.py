"""The page's error messages, and the field of the page that each belongs to."""

from __future__ import annotations

from typing import Any

from mynah import MynahError

_MESSAGES = {
    "NOT_READY": "The speech server is still starting.",
    "DRAINING": "The speech server is shutting down.",
    "STREAMS_EXHAUSTED": "The speech server is busy: all of its streams are in use.",
    "ENGINE_BUSY": "The speech server is busy with other streams.",
    "ENGINE_FAILURE": "The server failed while speaking.",
    "ENGINE_STALLED": "The speech server has stopped working and must be restarted.",
    "STORAGE_FULL": "The server's storage is full.",
    "STORAGE_READ_ONLY": "The server's storage is read-only at present.",
    "STORAGE_FAILED": "The server cannot reach its storage.",
    "STORE_TIMEOUT": "The server's voice store does not answer.",
    "VOICE_TIMEOUT": "Making the voice took too long.",
    "LANGUAGE_TIMEOUT": "The server cannot read texts in this language at present.",
    "LANGUAGE_PACKAGE_MISSING": "This server lacks what it needs to speak this language. Choose another language.",
    "VOICE_OF_ANOTHER_MODEL": "This voice was made with another model. Choose another voice, or make it again here.",
    "VOICE_DAMAGED": "The server's file of this voice is damaged. Choose another voice.",
    "VOICE_NOT_FOUND": "This voice does not exist any more. Choose another one.",
    "TEXT_BACKLOG_FULL": "This is more text than the server can keep waiting. Send less at a time.",
    "STREAM_IDLE": "The server ended the stream because no text came for too long.",
    "READER_STALLED": "The server ended the stream because this browser did not take the audio.",
    "OPEN_TIMED_OUT": "The speech server did not answer in time.",
    "CONSENT_REQUIRED": "Confirm that the speaker agreed to this voice.",
    "VOICE_NAME_INVALID": "Give the voice a name of 1 to 80 printable characters.",
    "VOICE_EXISTS": "A voice with this id already exists.",
    "VOICE_BUILT_IN": "The built-in voice cannot be deleted.",
    "VOICES_FULL": "The server cannot store more voices. Delete one first.",
    "UPLOADS_EXHAUSTED": "The server is receiving too many recordings now.",
    "UPLOAD_TIMED_OUT": "The upload took too long. Try again.",
    "AUDIO_EMPTY": "The recording is empty.",
    "AUDIO_TOO_LARGE": "The file is too large: the maximum is 2 minutes, and 10 to 15 seconds are enough.",
    "AUDIO_NOT_DECODABLE": "The server cannot read this file as audio.",
    "AUDIO_TOO_SHORT": "The recording is too short: more than 5 seconds are needed.",
    "AUDIO_TOO_LONG": "The recording is too long: the maximum is 2 minutes, and 10 to 15 seconds are enough.",
    "AUDIO_TOO_LITTLE_SPEECH": "There is too little speech in the recording: at least 5 seconds are needed.",
    "AUDIO_SILENT": "The recording is almost silent.",
    "API_KEY_INVALID": "The speech server needs an API key, and this page has no valid one.",
    "UNAVAILABLE": "The speech server does not answer.",
}
PAGE_FAILURE = {
    "message": "The page failed. Try again; its log says what happened.",
    "field": "",
    "reason": "PAGE_FAILURE",
    "retryable": True,
}
_FIELDS = {
    "TEXT_EMPTY": "text",
    "MARKUP_UNSUPPORTED": "text",
    "SCRIPT_UNSUPPORTED": "text",
    "TEXT_TOO_LONG": "text",
    "TEXT_BACKLOG_FULL": "text",
    "VOICE_NOT_FOUND": "voice",
    "VOICE_ID_INVALID": "voice",
    "CONSENT_REQUIRED": "consent",
    "VOICE_NAME_INVALID": "name",
    "VOICES_FULL": "name",
    "VOICE_EXISTS": "name",
    "SPEED_OUT_OF_RANGE": "speed",
    "MODEL_NOT_FOUND": "model",
    "LANGUAGE_UNSUPPORTED": "language",
    "LANGUAGE_PACKAGE_MISSING": "language",
    "DICTIONARY_ENTRY_INVALID": "respellings",
    "DICTIONARY_IPA_UNSUPPORTED": "respellings",
    "DICTIONARY_TOO_LONG": "respellings",
}
SAMPLING = (
    *("temperature", "top_k", "top_p", "repetition_penalty", "min_p", "seed", "max_speech_tokens"),
    *("cfg_weight", "exaggeration"),
)


def error_message(error: MynahError) -> dict[str, Any]:
    """Returns the error as JSON: `message`, the `field` that it belongs to ("" for none), `reason` and `retryable`."""
    message = _MESSAGES.get(error.reason) or _from_server(error)
    if error.retryable and "again" not in message:
        message += " Try again in a moment."
    return {"message": message, "field": _field(error), "reason": error.reason, "retryable": error.retryable}


def _from_server(error: MynahError) -> str:
    """The server's own sentence. A field at its start becomes the page's label for it."""
    label = error.field.rpartition(".")[2].replace("_", " ").capitalize()
    if error.reason == "VALUE_UNSENDABLE":
        return f"{label} is {error.value}; this is out of range."
    if error.field and str(error).startswith(error.field):
        return label + str(error).removeprefix(error.field)
    if _field(error) == "respellings":  # it names the line, or the word
        return str(error)
    return f"The speech server reports: {error}"


def _field(error: MynahError) -> str:
    if error.reason.startswith("AUDIO_") and error.reason != "AUDIO_FORMAT_UNKNOWN":
        return "clip"
    field = error.field.rpartition(".")[2]
    return field if field in (*SAMPLING, "speed") else _FIELDS.get(error.reason, "text" if field == "content" else "")
