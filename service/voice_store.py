"""The voices this server knows: the built-in one and those that were uploaded, in memory and optionally in a folder.

Knows nothing of how a Voice is made, nor of RPC. Used from one event loop; files are written off it.
"""

from __future__ import annotations

import asyncio
import bisect
import re
import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from engines.config import SPEECH_TOKENS_PER_S
from engines.errors import InvalidInput
from engines.voice.voice import Voice
from service.errors import AlreadyExists, NoRoom, NotFound, OutOfOrder

DEFAULT_VOICE_ID = "default"
_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_ID_ALLOWED = 'a letter or digit, then up to 63 of a-z, 0-9, "-" and "_"'
_SUFFIX = ".safetensors"
_CREATED = "created"  # metadata key


@dataclass(frozen=True)
class StoredVoice:
    """A Voice under its id; `created` is None for the built-in one."""

    voice_id: str
    voice: Voice
    created: datetime | None

    @property
    def built_in(self) -> bool:
        return self.created is None

    @property
    def reference_s(self) -> float:
        """Seconds of the reference recording that the voice uses."""
        return len(self.voice.t3_prompt_tokens) / SPEECH_TOKENS_PER_S


class VoiceStore:
    """Voices by id. With a folder, each is one file in it, and those already there are known from the start.

    Raises InvalidInput naming the file when one in the folder is not a voice, OSError when it cannot be read.
    """

    def __init__(self, default: Voice | None, folder: Path | None = None, *, max_voices: int = 1000) -> None:
        self._voices: dict[str, StoredVoice] = {}
        self._ids: list[str] = []  # sorted
        self._reserved: set[str] = set()  # ids whose file is being written or deleted
        self._folder = folder
        self._max_voices = max_voices
        if default is not None:
            self._insert(StoredVoice(DEFAULT_VOICE_ID, default, None))
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.glob(f"*{_SUFFIX}")):
                self._insert(_read(path))

    def get(self, voice_id: str) -> StoredVoice:
        """Raises InvalidInput for what cannot be an id, NotFound."""
        check_id(voice_id)
        if voice_id not in self._voices:
            allowed = "a voice that ListVoices shows"
            message = f"there is no voice {voice_id!r}; allowed: {allowed}"
            raise NotFound("VOICE_NOT_FOUND", message, field="voice_id", value=voice_id, allowed=allowed)
        return self._voices[voice_id]

    def page(self, after: str, size: int) -> tuple[list[StoredVoice], bool]:
        """Up to `size` voices whose ids come after the given one, and whether more follow."""
        start = bisect.bisect_right(self._ids, after)
        ids = self._ids[start : start + size]
        return [self._voices[voice_id] for voice_id in ids], start + size < len(self._ids)

    def must_have_room(self, voice_id: str | None) -> None:
        """Raises InvalidInput, AlreadyExists or NoRoom as `add` would, before anybody makes the voice."""
        if voice_id is not None:
            check_id(voice_id)
            if voice_id in self._voices or voice_id in self._reserved or voice_id == DEFAULT_VOICE_ID:
                message = f"there is a voice {voice_id!r} already"
                raise AlreadyExists("VOICE_EXISTS", message, field="voice_id", value=voice_id, allowed="a free id")
        uploaded = sum(not stored.built_in for stored in self._voices.values()) + len(self._reserved)
        if uploaded >= self._max_voices:
            allowed = f"{self._max_voices} voices"
            raise NoRoom("VOICES_FULL", f"{allowed} are kept already; delete one first", allowed=allowed)

    async def add(self, voice: Voice, voice_id: str | None) -> StoredVoice:
        """Keep a voice, under a new id unless one is given. Raises as `must_have_room`, and OSError."""
        self.must_have_room(voice_id)
        chosen = voice_id or f"v-{secrets.token_hex(8)}"
        created = datetime.now(UTC).replace(microsecond=0)
        stored = StoredVoice(
            chosen, replace(voice, metadata={**voice.metadata, _CREATED: created.isoformat()}), created
        )
        self._reserved.add(chosen)
        try:
            if self._folder is not None:
                await asyncio.to_thread(stored.voice.save, self._folder / f"{chosen}{_SUFFIX}")
        finally:
            self._reserved.discard(chosen)
        self._insert(stored)
        return stored

    async def remove(self, voice_id: str) -> None:
        """Forget a voice. Raises as `get`, OutOfOrder for the built-in one, OSError."""
        if self.get(voice_id).built_in:
            raise OutOfOrder("VOICE_BUILT_IN", "the built-in voice cannot be deleted", field="voice_id", value=voice_id)
        del self._voices[voice_id]
        self._ids.remove(voice_id)
        self._reserved.add(voice_id)
        try:
            if self._folder is not None:
                await asyncio.to_thread((self._folder / f"{voice_id}{_SUFFIX}").unlink, missing_ok=True)
        finally:
            self._reserved.discard(voice_id)

    def _insert(self, stored: StoredVoice) -> None:
        self._voices[stored.voice_id] = stored
        bisect.insort(self._ids, stored.voice_id)


def check_id(voice_id: str) -> None:
    """Raises InvalidInput unless it is formed like an id; so no id can name a file outside the folder."""
    if not _ID.fullmatch(voice_id):
        raise InvalidInput("voice_id", voice_id, _ID_ALLOWED, "VOICE_ID_INVALID")


def _read(path: Path) -> StoredVoice:
    voice_id = path.name.removesuffix(_SUFFIX)
    if not _ID.fullmatch(voice_id) or voice_id == DEFAULT_VOICE_ID:
        raise InvalidInput("voices_dir", path.name, f"file names of {_ID_ALLOWED}{_SUFFIX}", "VOICE_FILE_INVALID")
    try:
        voice = Voice.load(path)
        created = datetime.fromisoformat(voice.metadata[_CREATED])
    except (InvalidInput, KeyError, ValueError) as error:
        allowed = f"files this server wrote ({error})"
        raise InvalidInput("voices_dir", path.name, allowed, "VOICE_FILE_INVALID") from error
    return StoredVoice(voice_id, voice, created)
