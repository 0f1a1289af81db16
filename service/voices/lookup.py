"""Voices by what a client calls them: an id, a display name, or another server's name for a voice."""

from __future__ import annotations

import sys
from collections.abc import Collection

from engines.errors import InvalidInput, quoted
from service.errors import DataLoss, FailedPrecondition, NotFound
from service.voices.ids import DEFAULT_VOICE_ID
from service.voices.store import VoiceModel, VoiceStore
from service.voices.stored_voice import StoredVoice, VoiceSummary

_MISSING = ("VOICE_NOT_FOUND", "VOICE_ID_INVALID")
_MAX_LISTED = 10  # ids in an error message


class VoiceLookup:
    """A VoiceSource over a store: an id first, then a display name, then an alias of the default voice.

    A name matches in any case if no voice has it letter for letter.
    """

    def __init__(self, voices: VoiceStore, aliases: Collection[str] = ()) -> None:
        self._voices = voices
        self._aliases = aliases

    async def get(self, voice_id: str, model: VoiceModel | None = None) -> StoredVoice:
        """Returns the voice as the model speaks it; None: as the first model that does.

        Raises NotFound or InvalidInput, which name existing ids, and as VoiceStore.get.
        """
        try:
            return await self._voices.get(voice_id, model)
        except (NotFound, InvalidInput) as error:
            if error.reason not in _MISSING:
                raise
            missing = error
        voices, _ = await self._voices.page("", sys.maxsize, foreign=True)
        spoken = [voice for voice in voices if self._voices.speaks(voice, model)]
        named = _named(voice_id, spoken) or _named(voice_id, voices)
        if len(named) == 1:
            return await self._voices.get(named[0], model)
        if named:
            raise _ambiguous(voice_id, named)
        if voice_id in self._aliases:
            return await self._voices.get(DEFAULT_VOICE_ID, model)
        raise _with_existing(missing, voice_id, [voice.voice_id for voice in spoken])

    async def resolve(self, voice_id: str) -> str:
        """Returns the id of the voice. Raises as `get`."""
        if await self._voices.exists(voice_id):  # without making a voice of another model again
            return voice_id
        try:
            return (await self.get(voice_id)).voice_id
        except (DataLoss, FailedPrecondition) as error:  # a damaged file or another model's: reasons to delete it
            return error.value


def _named(name: str, voices: list[VoiceSummary]) -> list[str]:
    exact = [voice.voice_id for voice in voices if voice.name == name]
    return exact or [voice.voice_id for voice in voices if voice.name.casefold() == name.casefold()]


def _ambiguous(name: str, ids: list[str]) -> InvalidInput:
    allowed = _listed(ids)
    message = f"voice_id is {quoted(name)}, a name that {len(ids)} voices have; use the id of one of them: {allowed}."
    return InvalidInput("voice_id", message, "VOICE_NAME_AMBIGUOUS", value=quoted(name), allowed=allowed)


def _with_existing(missing: NotFound | InvalidInput, name: str, ids: list[str]) -> NotFound | InvalidInput:
    """Returns the error with the ids that exist."""
    allowed = _listed(sorted(ids, key=lambda voice_id: voice_id != DEFAULT_VOICE_ID))
    hint = f" Ids are in lower case: {name.lower()!r} exists." if name.lower() in ids else ""
    if isinstance(missing, NotFound):
        message = f"There is no voice {quoted(name)}; the server has {allowed}.{hint}"
        return NotFound(missing.reason, message, field=missing.field, value=missing.value, allowed=allowed)
    message = (
        f"voice_id is {quoted(name)}, which is neither the id nor the name of a voice; the server has {allowed}.{hint}"
    )
    return InvalidInput("voice_id", message, missing.reason, value=missing.value, allowed=allowed)


def _listed(ids: list[str]) -> str:
    rest = len(ids) - _MAX_LISTED
    return ", ".join(ids[:_MAX_LISTED]) + (f" and {rest} more voices" if rest > 0 else "") or "no voices"
