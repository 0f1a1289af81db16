"""Voice ids: their form, and the id of the built-in voice."""

from __future__ import annotations

import re

from engines.errors import InvalidInput, quoted

DEFAULT_VOICE_ID = "default"
ID_ALLOWED = 'a letter or digit, then up to 63 of a-z, 0-9, "-" and "_"'
_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def check_id(voice_id: str) -> None:
    """Raises InvalidInput unless it has the form of an id, so that an id cannot name a file outside the folder."""
    if not _ID.fullmatch(voice_id):
        lower = voice_id.lower()
        hint = f" Write it in lower case: {lower!r}." if _ID.fullmatch(lower) else ""
        message = f"voice_id is {quoted(voice_id)}; an id is {ID_ALLOWED}.{hint}"
        raise InvalidInput("voice_id", message, "VOICE_ID_INVALID", value=quoted(voice_id), allowed=ID_ALLOWED)


def is_upload_id(voice_id: str) -> bool:
    """Whether an uploaded voice can have this id."""
    return _ID.fullmatch(voice_id) is not None and voice_id != DEFAULT_VOICE_ID
