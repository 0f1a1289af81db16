"""The store of voices: the built-in ones, and those that were uploaded to this server or to one that shares its files.

The files are authoritative. Memory holds the voices used last and the summaries of the others. Used from one event
loop; files are read and written on threads.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engines.errors import InvalidInput
from engines.voice import HEADER_BYTES, Voice
from service.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted
from service.voices.files import SUFFIX, open_files
from service.voices.ids import DEFAULT_VOICE_ID, ID_ALLOWED, check_id, is_upload_id
from service.voices.stored_voice import StoredVoice, VoiceSummary, built_in, stamped, stored, summary

log = logging.getLogger("mynah.service")

_TRUSTED_S = 1.0  # how long a voice in memory is used before its file is checked for a change


@dataclass
class _Loaded:
    stored: StoredVoice
    stamp: str
    checked_s: float


class VoiceSource(Protocol):
    """Voices by id, as a stream asks for one."""

    async def get(self, voice_id: str) -> StoredVoice:
        """Raises InvalidInput if `voice_id` does not have the form of an id, NotFound, OSError."""
        ...


class OneVoice:
    """A VoiceSource that returns the same voice for every id and stores nothing."""

    def __init__(self, voice: Voice) -> None:
        self._stored = built_in(voice)

    async def get(self, voice_id: str) -> StoredVoice:
        return self._stored


class VoiceStore:
    """Voices by id. Servers that share files see each other's new voices at once and deletions within a second.

    At most `max_loaded` voices stay in memory; a stream keeps a reference to the one it uses. Raises InvalidInput if an
    existing file is not a voice, OSError if the location cannot be used.
    """

    def __init__(
        self,
        default: Callable[[], Voice | None],
        where: Path | str | None = None,
        *,
        max_voices: int = 1000,
        max_loaded: int = 256,
        others: Callable[[], Mapping[str, Voice]] = dict,
    ) -> None:
        """`default` returns the first built-in voice, or None before the engine has one; `others` returns the other
        built-in ones by their ids; `where`: as for `open_files`. A stored voice hides a built-in one of its id."""
        self._default, self._others = default, others
        self._files = open_files(where)
        self._max_voices, self._max_loaded = max_voices, max_loaded
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()  # in order of use, the latest last
        self._loading: dict[str, asyncio.Task[StoredVoice]] = {}
        self._summaries: dict[str, VoiceSummary] = {}  # may be stale: the files say which ids exist
        self._reserved: set[str] = set()  # ids whose file is being written or deleted
        for voice_id in sorted(self._files.ids()):
            self._summaries[voice_id] = self._read_summary(voice_id)

    @property
    def kept(self) -> bool:
        """Whether stored voices are still there after a restart."""
        return self._files.kept

    async def get(self, voice_id: str) -> StoredVoice:
        """Raises InvalidInput if `voice_id` does not have the form of an id, NotFound, OSError."""
        check_id(voice_id)
        if voice_id == DEFAULT_VOICE_ID:
            return self._built_in()
        loaded = self._loaded.get(voice_id)
        if loaded is not None and _now_s() - loaded.checked_s < _TRUSTED_S:
            self._loaded.move_to_end(voice_id)
            return loaded.stored
        task = self._loading.get(voice_id)  # concurrent calls read the file once
        if task is None:
            task = self._loading[voice_id] = asyncio.create_task(self._load(voice_id), name=f"load-{voice_id}")
            task.add_done_callback(self._loading_ended)
        return await asyncio.shield(task)

    async def page(self, after: str, size: int) -> tuple[list[VoiceSummary], bool]:
        """Returns up to `size` voices whose ids come after `after`, ordered by id, and whether more follow."""
        existing = await asyncio.to_thread(self._files.ids)
        self._summaries = {voice_id: info for voice_id, info in self._summaries.items() if voice_id in existing}
        uploaded = {voice_id for voice_id in existing if is_upload_id(voice_id)}
        ids = uploaded | {DEFAULT_VOICE_ID, *self._others()}
        summaries: list[VoiceSummary] = []
        for voice_id in sorted(voice_id for voice_id in ids if voice_id > after):
            if len(summaries) == size:
                return summaries, True
            info = await self._summary(voice_id) if voice_id in existing else self._built_in_or_none(voice_id)
            if info is not None:
                summaries.append(info)
        return summaries, False

    async def check_can_add(self, voice_id: str | None) -> None:
        """Raises InvalidInput, AlreadyExists or ResourceExhausted as `add` would; for use before making the voice."""
        if voice_id is not None:
            check_id(voice_id)
        existing = await asyncio.to_thread(self._files.ids) | self._reserved
        if voice_id is not None and voice_id in {*existing, DEFAULT_VOICE_ID, *self._others()}:
            raise _exists(voice_id)
        if len(existing) >= self._max_voices:
            allowed = f"{self._max_voices} voices"
            message = f"The server already stores {allowed}, its limit; delete one first."
            raise ResourceExhausted("VOICES_FULL", message, allowed=allowed)

    async def add(self, voice: Voice, voice_id: str | None) -> StoredVoice:
        """Stores a voice, under a new id if `voice_id` is None. Raises as `check_can_add`, and OSError."""
        await self.check_can_add(voice_id)
        chosen = voice_id or f"v-{secrets.token_hex(8)}"
        new = stamped(voice)
        with self._reserve(chosen):
            try:
                await asyncio.to_thread(self._files.create, chosen, new.to_bytes())
            except FileExistsError:
                raise _exists(chosen) from None
        return stored(chosen, new)

    async def remove(self, voice_id: str) -> None:
        """Deletes a voice. Raises as `get`, FailedPrecondition for a built-in one, OSError."""
        check_id(voice_id)
        if voice_id == DEFAULT_VOICE_ID and self._built_in():
            raise _cannot_delete(voice_id)
        with self._reserve(voice_id):
            self._loaded.pop(voice_id, None)
            if await asyncio.to_thread(self._files.stamp, voice_id) is None:
                raise _cannot_delete(voice_id) if voice_id in self._others() else _not_found(voice_id)
            await asyncio.to_thread(self._files.delete, voice_id)
            self._loaded.pop(voice_id, None)

    def _built_in(self) -> StoredVoice:
        voice = self._default()
        if voice is None:
            raise _not_found(DEFAULT_VOICE_ID)
        return built_in(voice)

    def _built_in_or_none(self, voice_id: str) -> StoredVoice | None:
        voice = self._default() if voice_id == DEFAULT_VOICE_ID else self._others().get(voice_id)
        return None if voice is None else built_in(voice, voice_id)

    async def _load(self, voice_id: str) -> StoredVoice:
        """Returns the voice as its file is now; reads the file only if it has changed."""
        known = self._loaded.get(voice_id)
        stamp = await asyncio.to_thread(self._files.stamp, voice_id)
        if stamp is None:
            self._loaded.pop(voice_id, None)
            if (built := self._built_in_or_none(voice_id)) is not None:
                return built
            raise _not_found(voice_id)
        if known is None or known.stamp != stamp:
            known = _Loaded(await asyncio.to_thread(self._read, voice_id), stamp, 0.0)
        if voice_id not in self._reserved:
            known.checked_s = _now_s()
            self._cache(voice_id, known)
        return known.stored

    def _cache(self, voice_id: str, loaded: _Loaded) -> None:
        self._loaded[voice_id] = loaded
        self._loaded.move_to_end(voice_id)
        while len(self._loaded) > self._max_loaded:
            self._loaded.popitem(last=False)

    def _loading_ended(self, task: asyncio.Task[StoredVoice]) -> None:
        self._loading = {voice_id: other for voice_id, other in self._loading.items() if other is not task}
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it when every caller has been cancelled

    def _read(self, voice_id: str) -> StoredVoice:
        try:
            return stored(voice_id, Voice.from_bytes(self._files.read(voice_id)))
        except FileNotFoundError:
            raise _not_found(voice_id) from None
        except (InvalidInput, KeyError, ValueError) as error:
            raise _unreadable(voice_id, error) from error

    async def _summary(self, voice_id: str) -> VoiceSummary | None:
        """Returns None, and logs why, if the file has just been deleted or is not a voice."""
        if voice_id == DEFAULT_VOICE_ID:
            return self._built_in_or_none(voice_id)
        if voice_id not in self._summaries:
            try:
                self._summaries[voice_id] = await asyncio.to_thread(self._read_summary, voice_id)
            except (InvalidInput, FileNotFoundError) as error:
                log.error("voice %s is left out of the list: %s", voice_id, error)
                return None
        return self._summaries[voice_id]

    def _read_summary(self, voice_id: str) -> VoiceSummary:
        if not is_upload_id(voice_id):
            raise _invalid_file(voice_id, f"file names of {ID_ALLOWED}, then {SUFFIX}")
        try:
            return summary(voice_id, Voice.header_of(self._files.read(voice_id, HEADER_BYTES)))
        except (InvalidInput, KeyError, ValueError) as error:
            raise _unreadable(voice_id, error) from error

    @contextmanager
    def _reserve(self, voice_id: str) -> Iterator[None]:
        """Keeps this server from writing or deleting this id elsewhere meanwhile; then drops its cached summary."""
        if voice_id in self._reserved or voice_id == DEFAULT_VOICE_ID:
            raise _exists(voice_id)
        self._reserved.add(voice_id)
        try:
            yield
        finally:
            self._reserved.discard(voice_id)
            self._summaries.pop(voice_id, None)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _not_found(voice_id: str) -> NotFound:
    allowed = "the id of a voice of this server"
    message = f"There is no voice {voice_id!r}; give {allowed}."
    return NotFound("VOICE_NOT_FOUND", message, field="voice_id", value=voice_id, allowed=allowed)


def _cannot_delete(voice_id: str) -> FailedPrecondition:
    message = f"The voice {voice_id!r} is built in: it cannot be deleted."
    return FailedPrecondition("VOICE_BUILT_IN", message, field="voice_id", value=voice_id)


def _exists(voice_id: str) -> AlreadyExists:
    message = f"There is already a voice {voice_id!r}; choose another id or delete that voice first."
    return AlreadyExists("VOICE_EXISTS", message, field="voice_id", value=voice_id, allowed="a free id")


def _invalid_file(voice_id: str, allowed: str) -> InvalidInput:
    file = voice_id + SUFFIX
    message = f"voices_dir holds {file!r}, which is not a stored voice; allowed are {allowed}."
    return InvalidInput("voices_dir", message, "VOICE_FILE_INVALID", value=repr(file), allowed=allowed)


def _unreadable(voice_id: str, error: Exception) -> InvalidInput:
    return _invalid_file(voice_id, f"files that this server wrote ({error})")
