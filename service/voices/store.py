"""The voices this server knows: the built-in one, and those that were uploaded to it or to a server beside it.

The files are the truth; in memory are the voices used last, and what lists show of the others. Knows nothing of how a
Voice is made, nor of RPC. Used from one event loop; files are read and written off it.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from engines.errors import InvalidInput, invalid_value
from engines.model_spec import SPEECH_TOKENS_PER_S
from engines.voice import HEADER_BYTES, Voice, VoiceHeader
from service.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted
from service.voices.files import SUFFIX, open_files

log = logging.getLogger("mynah.service")

DEFAULT_VOICE_ID = "default"
_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_ID_ALLOWED = 'a letter or digit, then up to 63 of a-z, 0-9, "-" and "_"'
_CREATED = "created"  # metadata key
_TRUSTED_S = 1.0  # for so long a voice in memory is used without looking whether its file is still the same


@dataclass(frozen=True)
class VoiceSummary:
    """What lists show; `created` is None for the built-in voice, `reference_s` what it uses of its recording."""

    voice_id: str
    name: str
    created: datetime | None
    reference_s: float

    @property
    def built_in(self) -> bool:
        return self.created is None


@dataclass(frozen=True)
class StoredVoice(VoiceSummary):
    """A Voice under its id."""

    voice: Voice


@dataclass
class _Loaded:
    stored: StoredVoice
    stamp: str
    checked_s: float


class VoiceSource(Protocol):
    """Where a stream's voice comes from."""

    async def get(self, voice_id: str) -> StoredVoice:
        """Raises InvalidInput for what cannot be an id, NotFound, OSError."""
        ...


class OneVoice:
    """A VoiceSource of one voice that is kept nowhere, whatever it is asked for."""

    def __init__(self, voice: Voice) -> None:
        self._stored = StoredVoice(DEFAULT_VOICE_ID, voice.name, None, _seconds(len(voice.t3_prompt_tokens)), voice)

    async def get(self, voice_id: str) -> StoredVoice:
        return self._stored


class VoiceStore:
    """Voices by id. Servers that share a place see each other's: new ones at once, deletions within a second.

    At most `max_loaded` voices are in memory; those in use by streams stay with them. Raises InvalidInput naming the
    file when one that is there already is not a voice, OSError when the place cannot be used.
    """

    def __init__(
        self,
        default: Callable[[], Voice | None],
        where: Path | str | None = None,
        *,
        max_voices: int = 1000,
        max_loaded: int = 256,
    ) -> None:
        """`default` gives the built-in voice once the engine is there; `where`: as `voice_files.open_files`."""
        self._default = default
        self._files = open_files(where)
        self._max_voices, self._max_loaded = max_voices, max_loaded
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()  # the one used last is last
        self._loading: dict[str, asyncio.Task[StoredVoice]] = {}
        self._summaries: dict[str, VoiceSummary] = {}  # of what is or was there; ids are looked up in the files
        self._reserved: set[str] = set()  # ids whose file is being written or deleted
        for voice_id in sorted(self._files.ids()):
            self._summaries[voice_id] = self._read_summary(voice_id)

    async def get(self, voice_id: str) -> StoredVoice:
        """Raises InvalidInput for what cannot be an id, NotFound, OSError."""
        check_id(voice_id)
        if voice_id == DEFAULT_VOICE_ID:
            return self._built_in()
        loaded = self._loaded.get(voice_id)
        if loaded is not None and _now_s() - loaded.checked_s < _TRUSTED_S:
            self._loaded.move_to_end(voice_id)
            return loaded.stored
        task = self._loading.get(voice_id)  # many streams that ask at once read the file once
        if task is None:
            task = self._loading[voice_id] = asyncio.create_task(self._load(voice_id), name=f"load-{voice_id}")
            task.add_done_callback(self._loading_ended)
        return await asyncio.shield(task)

    async def page(self, after: str, size: int) -> tuple[list[VoiceSummary], bool]:
        """Up to `size` voices whose ids come after the given one, in their order, and whether more follow."""
        there = await asyncio.to_thread(self._files.ids)
        self._summaries = {voice_id: about for voice_id, about in self._summaries.items() if voice_id in there}
        ids = [voice_id for voice_id in there if _is_uploads(voice_id)] + [DEFAULT_VOICE_ID]
        found: list[VoiceSummary] = []
        for voice_id in sorted(voice_id for voice_id in ids if voice_id > after):
            if len(found) == size:
                return found, True
            if (about := await self._summary(voice_id)) is not None:
                found.append(about)
        return found, False

    async def must_have_room(self, voice_id: str | None) -> None:
        """Raises InvalidInput, AlreadyExists or NoRoom as `add` would, before anybody makes the voice."""
        if voice_id is not None:
            check_id(voice_id)
        there = await asyncio.to_thread(self._files.ids) | self._reserved
        if voice_id is not None and voice_id in {*there, DEFAULT_VOICE_ID}:
            raise _exists(voice_id)
        if len(there) >= self._max_voices:
            allowed = f"{self._max_voices} voices"
            raise ResourceExhausted("VOICES_FULL", f"{allowed} are kept already; delete one first", allowed=allowed)

    async def add(self, voice: Voice, voice_id: str | None) -> StoredVoice:
        """Keep a voice, under a new id unless one is given. Raises as `must_have_room`, and OSError."""
        await self.must_have_room(voice_id)
        chosen = voice_id or f"v-{secrets.token_hex(8)}"
        created = datetime.now(UTC).replace(microsecond=0)
        kept = replace(voice, metadata={**voice.metadata, _CREATED: created.isoformat()})
        with self._reserve(chosen):
            try:
                await asyncio.to_thread(self._files.create, chosen, kept.to_bytes())
            except FileExistsError:
                raise _exists(chosen) from None
        return _stored(chosen, kept)

    async def remove(self, voice_id: str) -> None:
        """Forget a voice. Raises as `get`, OutOfOrder for the built-in one, OSError."""
        check_id(voice_id)
        if voice_id == DEFAULT_VOICE_ID and self._built_in():
            raise FailedPrecondition(
                "VOICE_BUILT_IN", "the built-in voice cannot be deleted", field="voice_id", value=voice_id
            )
        with self._reserve(voice_id):
            self._loaded.pop(voice_id, None)
            if await asyncio.to_thread(self._files.stamp, voice_id) is None:
                raise _not_found(voice_id)
            await asyncio.to_thread(self._files.delete, voice_id)
            self._loaded.pop(voice_id, None)

    def _built_in(self) -> StoredVoice:
        voice = self._default()
        if voice is None:
            raise _not_found(DEFAULT_VOICE_ID)
        return StoredVoice(DEFAULT_VOICE_ID, voice.name, None, _seconds(len(voice.t3_prompt_tokens)), voice)

    async def _load(self, voice_id: str) -> StoredVoice:
        """The voice as its file is now, from memory if that is the same one."""
        known = self._loaded.get(voice_id)
        stamp = await asyncio.to_thread(self._files.stamp, voice_id)
        if stamp is None:
            self._loaded.pop(voice_id, None)
            raise _not_found(voice_id)
        if known is None or known.stamp != stamp:
            known = _Loaded(await asyncio.to_thread(self._read, voice_id), stamp, 0.0)
        if voice_id not in self._reserved:
            known.checked_s = _now_s()
            self._keep(voice_id, known)
        return known.stored

    def _keep(self, voice_id: str, loaded: _Loaded) -> None:
        self._loaded[voice_id] = loaded
        self._loaded.move_to_end(voice_id)
        while len(self._loaded) > self._max_loaded:
            self._loaded.popitem(last=False)

    def _loading_ended(self, task: asyncio.Task[StoredVoice]) -> None:
        self._loading = {voice_id: other for voice_id, other in self._loading.items() if other is not task}
        if not task.cancelled():
            task.exception()  # those who asked were told; when they have gone, nobody needs to be

    def _read(self, voice_id: str) -> StoredVoice:
        try:
            return _stored(voice_id, Voice.from_bytes(self._files.read(voice_id)))
        except FileNotFoundError:
            raise _not_found(voice_id) from None
        except (InvalidInput, KeyError, ValueError) as error:
            raise _not_a_voice(voice_id, error) from error

    async def _summary(self, voice_id: str) -> VoiceSummary | None:
        """None when the file has just gone, or is not a voice, which the log then says."""
        if voice_id == DEFAULT_VOICE_ID:
            return self._built_in() if self._default() is not None else None
        if voice_id not in self._summaries:
            try:
                self._summaries[voice_id] = await asyncio.to_thread(self._read_summary, voice_id)
            except (InvalidInput, FileNotFoundError) as error:
                log.error("voice %s: left out of the list: %s", voice_id, error)
                return None
        return self._summaries[voice_id]

    def _read_summary(self, voice_id: str) -> VoiceSummary:
        if not _is_uploads(voice_id):
            allowed = f"file names of {_ID_ALLOWED}{SUFFIX}"
            raise invalid_value("voices_dir", voice_id + SUFFIX, allowed, "VOICE_FILE_INVALID")
        try:
            return _summary_of(voice_id, Voice.header_of(self._files.read(voice_id, HEADER_BYTES)))
        except (InvalidInput, KeyError, ValueError) as error:
            raise _not_a_voice(voice_id, error) from error

    @contextmanager
    def _reserve(self, voice_id: str) -> Iterator[None]:
        """Nobody else on this server writes or deletes this id meanwhile; what is known of it is forgotten."""
        if voice_id in self._reserved or voice_id == DEFAULT_VOICE_ID:
            raise _exists(voice_id)
        self._reserved.add(voice_id)
        try:
            yield
        finally:
            self._reserved.discard(voice_id)
            self._summaries.pop(voice_id, None)


def check_id(voice_id: str) -> None:
    """Raises InvalidInput unless it is formed like an id; so no id can name a file outside the folder."""
    if not _ID.fullmatch(voice_id):
        raise invalid_value("voice_id", voice_id, _ID_ALLOWED, "VOICE_ID_INVALID")


def _is_uploads(voice_id: str) -> bool:
    return _ID.fullmatch(voice_id) is not None and voice_id != DEFAULT_VOICE_ID


def _stored(voice_id: str, voice: Voice) -> StoredVoice:
    """Raises KeyError or ValueError when the voice was not kept by a store."""
    created = datetime.fromisoformat(voice.metadata[_CREATED])
    return StoredVoice(voice_id, voice.name, created, _seconds(len(voice.t3_prompt_tokens)), voice)


def _summary_of(voice_id: str, header: VoiceHeader) -> VoiceSummary:
    created = datetime.fromisoformat(header.metadata[_CREATED])
    return VoiceSummary(voice_id, header.name, created, _seconds(header.t3_prompt_tokens))


def _seconds(speech_tokens: int) -> float:
    return speech_tokens / SPEECH_TOKENS_PER_S


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _not_found(voice_id: str) -> NotFound:
    allowed = "a voice that ListVoices shows"
    message = f"there is no voice {voice_id!r}; allowed: {allowed}"
    return NotFound("VOICE_NOT_FOUND", message, field="voice_id", value=voice_id, allowed=allowed)


def _exists(voice_id: str) -> AlreadyExists:
    message = f"there is a voice {voice_id!r} already"
    return AlreadyExists("VOICE_EXISTS", message, field="voice_id", value=voice_id, allowed="a free id")


def _not_a_voice(voice_id: str, error: Exception) -> InvalidInput:
    allowed = f"files this server wrote ({error})"
    return invalid_value("voices_dir", voice_id + SUFFIX, allowed, "VOICE_FILE_INVALID")
