"""The store of voices: the built-in ones, and those that were uploaded to this server or to one that shares its files.

The files are authoritative. Memory holds the voices used last and the summaries of the others. Used from one event
loop; files are read and written on threads.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from engines.api import EngineInfo
from engines.errors import InvalidInput, TimeLimitExceeded
from engines.voice import HEADER_BYTES, Voice
from engines.worker_pool import WorkerPool
from service.errors import AlreadyExists, DataLoss, FailedPrecondition, NotFound, ResourceExhausted, storage_error
from service.telemetry import metrics
from service.voices.files import SUFFIX, open_files
from service.voices.ids import DEFAULT_VOICE_ID, ID_ALLOWED, check_id, is_upload_id
from service.voices.stored_voice import (
    StoredVoice,
    VoiceSummary,
    built_in,
    remade,
    stamped,
    stored,
    summary,
    with_recording,
)

log = logging.getLogger("mynah.service")

# what reading a file that is not a stored voice raises, beside what a failing disk does
_UNUSABLE = (InvalidInput, KeyError, ValueError, PermissionError, IsADirectoryError)
P = ParamSpec("P")
T = TypeVar("T")

_WORKERS = 8
_MAX_NAMED = 10  # voices in a line of the log
_TRUSTED_S = 1.0  # how long a voice in memory is used before its file is checked for a change


@dataclass
class _Loaded:
    """A voice in memory. `stored` is what its file holds; `made` are those that were made again, by `voice_models`."""

    stored: StoredVoice
    stamp: str
    checked_s: float
    made: dict[tuple[str, ...], asyncio.Task[StoredVoice]] = field(default_factory=dict)


class VoiceModel(Protocol):
    """What an Engine has and makes of voices."""

    @property
    def info(self) -> EngineInfo: ...

    @property
    def default_voice(self) -> Voice | None: ...

    @property
    def other_voices(self) -> Mapping[str, Voice]: ...

    async def make_voice(self, audio: bytes, *, name: str, normalize_loudness: bool = True) -> Voice: ...


class VoiceSource(Protocol):
    """Voices by id, as a stream asks for one."""

    async def get(self, voice_id: str, model: VoiceModel | None = None) -> StoredVoice:
        """The voice as `model` speaks it; None: as the first model that does.

        Raises InvalidInput if `voice_id` does not have the form of an id, NotFound, FailedPrecondition if the model
        cannot speak it, OSError.
        """
        ...


class OneVoice:
    """A VoiceSource that returns the same voice for every id and stores nothing."""

    def __init__(self, voice: Voice) -> None:
        self._stored = built_in(voice)

    async def get(self, voice_id: str, model: VoiceModel | None = None) -> StoredVoice:
        return self._stored


class VoiceStore:
    """Voices by id. Servers that share files see each other's new voices at once and deletions within a second.

    At most `max_loaded` voices stay in memory; a stream keeps a reference to the one it uses. A file that is not a
    voice is left out of lists, logged once and counted; so is, uncounted, a voice of a model that is not here, which
    the others would speak as noise. A voice whose recording was kept with it is made again for another model when that
    is to speak it, and the result stays in memory. Every read and write has a time limit.

    Raises OSError if the location cannot be used, TimeLimitExceeded if it does not answer.
    """

    def __init__(
        self,
        models: Sequence[VoiceModel],
        where: Path | str | None = None,
        *,
        max_voices: int = 1000,
        max_loaded: int = 256,
        time_limit_s: float = 20.0,
    ) -> None:
        """`models`: those of the server, at least one; the first one's built-in voices hide the others' of the same id
        in lists. A stored voice hides a built-in one of its id. `where`: as for `open_files`."""
        self._models = models
        self._pool = WorkerPool(
            "voice-store",
            workers=_WORKERS,
            time_limit_s=time_limit_s,
            reason="STORE_TIMEOUT",
            work="A call of the voice store",
        )
        self._files = self._pool.call(open_files, where)
        self._max_voices, self._max_loaded = max_voices, max_loaded
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()  # in order of use, the latest last
        self._loading: dict[str, asyncio.Task[_Loaded | None]] = {}
        self._summaries: dict[str, VoiceSummary] = {}  # may be stale: the files say which ids exist
        self._reserved: set[str] = set()  # ids whose file is being written or deleted
        self._damaged: dict[str, str | None] = {}  # unusable files by id, with their stamps
        self._logged_foreign: set[str] = set()  # ids of voices of other models that the log has named
        existing = self._pool.call(self._files.ids)
        metrics.VOICES_STORED.set(len(existing))
        self._read_summaries(sorted(existing))

    def _read_summaries(self, voice_ids: list[str]) -> None:
        """Reads what it can; the rest is read when it is listed."""
        try:
            for voice_id in voice_ids:
                if (info := self._pool.call(self._read_summary, voice_id)) is not None:
                    self._summaries[voice_id] = info
        except TimeLimitExceeded as error:
            log.error("the file %r among the stored voices was not checked: %s", voice_id + SUFFIX, error)

    @property
    def kept(self) -> bool:
        """Whether stored voices are still there after a restart."""
        return self._files.kept

    async def get(self, voice_id: str, model: VoiceModel | None = None) -> StoredVoice:
        """The voice as `model` speaks it; None: as the first model that does.

        Raises InvalidInput if `voice_id` does not have the form of an id, NotFound, DataLoss if its file is damaged,
        FailedPrecondition if another model made it and it cannot be made again, and as `_call` and `make_voice`.
        """
        check_id(voice_id)
        loaded = None if voice_id == DEFAULT_VOICE_ID else await self._in_memory(voice_id)
        if loaded is None:
            return self._built_in(voice_id, model)
        return await self._spoken(loaded, model or self._speaker_of(loaded.stored))

    def _speaker_of(self, voice: VoiceSummary) -> VoiceModel:
        return next((model for model in self._models if _is_native(voice, model)), self._models[0])

    async def _in_memory(self, voice_id: str) -> _Loaded | None:
        """Returns a stored voice, None if there is no file of it. Raises as `_call`, and DataLoss."""
        loaded = self._loaded.get(voice_id)
        if loaded is not None and _now_s() - loaded.checked_s < _TRUSTED_S:
            self._loaded.move_to_end(voice_id)
            return loaded
        task = self._loading.get(voice_id)  # concurrent calls read the file once
        if task is None:
            task = self._loading[voice_id] = asyncio.create_task(self._load(voice_id), name=f"load-{voice_id}")
            task.add_done_callback(self._loading_ended)
        return await asyncio.shield(task)

    async def exists(self, voice_id: str) -> bool:
        """Whether there is a stored voice of this id, also if its file is damaged. Raises as `_call`."""
        return is_upload_id(voice_id) and await self._call(self._files.stamp, voice_id) is not None

    def speaks(self, voice: VoiceSummary, model: VoiceModel | None = None) -> bool:
        """Whether the model, or any for None, speaks this voice: no other one made it, or it can be made again."""
        return any(_speaks(voice, each) for each in ([model] if model is not None else self._models))

    def log_foreign(self) -> None:
        """Logs in one line which of the voices known so far were made by another model and are not listed."""
        foreign = [voice for voice in self._summaries.values() if not self.speaks(voice)]
        new = sorted((each for each in foreign if each.voice_id not in self._logged_foreign), key=lambda v: v.voice_id)
        if new:
            named = ", ".join(f"{voice.voice_id} ({voice.model})" for voice in new[:_MAX_NAMED])
            rest = f" and {len(new) - _MAX_NAMED} more" if len(new) > _MAX_NAMED else ""
            log.warning("stored voices of another model are kept and not listed: %s%s", named, rest)
        self._logged_foreign = {voice.voice_id for voice in foreign}

    async def page(self, after: str, size: int, *, foreign: bool = False) -> tuple[list[VoiceSummary], bool]:
        """Returns up to `size` voices whose ids come after `after`, ordered by id, and whether more follow.

        `foreign` includes voices that another model made, which `get` refuses.
        """
        existing = await self._existing()
        self._forget_damaged(existing)
        self._summaries = {voice_id: info for voice_id, info in self._summaries.items() if voice_id in existing}
        for voice_id in existing:
            if not is_upload_id(voice_id):
                await self._call(self._read_summary, voice_id)
        uploaded = {voice_id for voice_id in existing if is_upload_id(voice_id)}
        ids = uploaded | {DEFAULT_VOICE_ID, *self._other_ids()}
        summaries: list[VoiceSummary] = []
        for voice_id in sorted(voice_id for voice_id in ids if voice_id > after):
            if len(summaries) == size:
                return summaries, True
            info = await self._summary(voice_id) if voice_id in existing else self._built_in_or_none(voice_id)
            if info is not None and not info.built_in and not foreign and not self.speaks(info):
                info = self._built_in_or_none(voice_id)
            if info is not None:
                summaries.append(info)
        self.log_foreign()
        return summaries, False

    async def check_can_add(self, voice_id: str | None) -> None:
        """Raises InvalidInput, AlreadyExists or ResourceExhausted as `add` would; for use before making the voice."""
        if voice_id is not None:
            check_id(voice_id)
        existing = await self._existing() | self._reserved
        if voice_id is not None and voice_id in {*existing, DEFAULT_VOICE_ID, *self._other_ids()}:
            raise _exists(voice_id)
        if len(existing) >= self._max_voices:
            allowed = f"{self._max_voices} voices"
            message = f"The server already stores {allowed}, its limit; delete one first."
            raise ResourceExhausted("VOICES_FULL", message, allowed=allowed)

    async def add(
        self, voice: Voice, voice_id: str | None, recording: bytes | None = None, *, levelled: bool = True
    ) -> StoredVoice:
        """Stores a voice, under a new id if `voice_id` is None, and its recording if one is given; `levelled` says
        whether that was brought to one loudness. Raises as `check_can_add`."""
        await self.check_can_add(voice_id)
        chosen = voice_id or f"v-{secrets.token_hex(8)}"
        new = stamped(voice)
        with self._reserve(chosen):
            try:
                if recording is None:
                    await self._call(self._files.create, chosen, new.to_bytes())
                else:
                    new = await self._create_both(chosen, new, recording, levelled=levelled)
            except FileExistsError:
                raise _exists(chosen) from None
        metrics.VOICES_STORED.inc()
        return stored(chosen, new)

    async def _create_both(self, voice_id: str, voice: Voice, recording: bytes, *, levelled: bool) -> Voice:
        """Writes the recording, then the voice that names it."""
        recordings, recording_id = await self._call(self._files.recordings), secrets.token_hex(16)
        await self._call(recordings.create, recording_id, recording)
        new = with_recording(voice, recording_id, levelled=levelled)
        try:
            await self._call(self._files.create, voice_id, new.to_bytes())
        except BaseException:
            await self._call(recordings.delete, recording_id)  # it belongs to no voice
            raise
        return new

    async def remove(self, voice_id: str) -> None:
        """Deletes a voice. Raises as `get`, FailedPrecondition for a built-in one."""
        check_id(voice_id)
        if voice_id == DEFAULT_VOICE_ID and self._built_in(voice_id):
            raise _cannot_delete(voice_id)
        with self._reserve(voice_id):
            self._loaded.pop(voice_id, None)
            if await self._call(self._files.stamp, voice_id) is None:
                raise _cannot_delete(voice_id) if voice_id in self._other_ids() else _not_found(voice_id)
            about = await self._call(self._read_summary, voice_id)
            await self._call(self._files.delete, voice_id)
            metrics.VOICES_STORED.dec()
            if about is not None and about.recording:
                recordings = await self._call(self._files.recordings)
                await self._call(recordings.delete, about.recording)
            self._loaded.pop(voice_id, None)

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls the files on a thread.

        Raises TimeLimitExceeded, and ResourceExhausted or Unavailable where the disk is full, read-only or fails.
        """
        try:
            return await self._pool.run(function, *args, **kwargs)
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError as error:
            raise storage_error(error) from error

    async def _existing(self) -> set[str]:
        """The ids of the files, which other servers may have added or deleted since the last look."""
        existing = await self._call(self._files.ids)
        metrics.VOICES_STORED.set(len(existing))
        return existing

    def _other_ids(self) -> set[str]:
        """The ids of the built-in voices beside the first ones."""
        return {voice_id for model in self._models for voice_id in model.other_voices}

    def _built_in(self, voice_id: str, model: VoiceModel | None = None) -> StoredVoice:
        """A built-in voice of the model, or of the first that has it. Raises NotFound, FailedPrecondition."""
        if (built := self._built_in_or_none(voice_id, model)) is not None:
            return built
        others = [each.info.model for each in self._models if _built_in_of(each, voice_id) is not None]
        if model is None or not others:
            raise _not_found(voice_id)
        raise _built_into_another_model(voice_id, others, model)

    def _built_in_or_none(self, voice_id: str, model: VoiceModel | None = None) -> StoredVoice | None:
        for each in [model] if model is not None else self._models:
            if (voice := _built_in_of(each, voice_id)) is not None:
                return built_in(voice, voice_id)
        return None

    async def _load(self, voice_id: str) -> _Loaded | None:
        """Returns the voice as its file is now, None without one; reads the file only if it has changed."""
        stamp = await self._call(self._files.stamp, voice_id)
        known = self._loaded.get(voice_id)
        if stamp is None:
            self._loaded.pop(voice_id, None)
            return None
        if known is None or known.stamp != stamp:
            known = _Loaded(await self._call(self._read, voice_id), stamp, 0.0)
        if voice_id not in self._reserved:
            known.checked_s = _now_s()
            self._cache(voice_id, known)
        return known

    async def _spoken(self, known: _Loaded, model: VoiceModel) -> StoredVoice:
        """The voice if the model speaks it, made again if need be, else its built-in one of that id.

        Raises FailedPrecondition, and as `make_voice`.
        """
        if _is_native(known.stored, model):
            return known.stored
        if known.stored.recording:
            key = model.info.voice_models
            if (making := known.made.get(key)) is None:  # concurrent calls make it once
                making = known.made[key] = asyncio.create_task(self._made_again(known.stored, model))
                making.add_done_callback(lambda task: _forget_failed(known, key, task))
            return await asyncio.shield(making)
        if (built := self._built_in_or_none(known.stored.voice_id, model)) is not None:
            return built
        raise self._of_another_model(known.stored, model)

    def _of_another_model(self, voice: StoredVoice, model: VoiceModel) -> FailedPrecondition:
        """The error for a model that cannot speak the voice; it names those of this server that can, as streams do."""
        allowed = f"a voice made with {' or '.join(model.info.voice_models)}"
        speakers = [each.info.model for each in self._models if _is_native(voice, each)]
        remedy = f"speak with {' or '.join(speakers)}" if speakers else f"speak on a server that has {voice.model}"
        message = (
            f"The voice {voice.voice_id!r} was made with the model {voice.model}, whose voices {model.info.model} "
            f"cannot speak, and there is no recording of it here to make it again from: use {allowed}, make it again "
            f"here under another id, or {remedy}."
        )
        return FailedPrecondition(
            "VOICE_OF_ANOTHER_MODEL", message, field="voice_id", value=voice.voice_id, allowed=allowed
        )

    async def _made_again(self, former: StoredVoice, model: VoiceModel) -> StoredVoice:
        began_s = _now_s()
        try:
            recordings = await self._call(self._files.recordings)
            recording = await self._call(recordings.read, former.recording)
            voice = await model.make_voice(recording, name=former.name, normalize_loudness=former.levelled)
        except (FileNotFoundError, ValueError, InvalidInput) as error:
            log.error("voice %s cannot be made again from its recording: %s", former.voice_id, error)
            raise self._of_another_model(former, model) from error
        log.info(
            "voice %s of %s made again for %s in %.1f s",
            former.voice_id,
            former.model,
            model.info.model,
            _now_s() - began_s,
        )
        return stored(former.voice_id, remade(voice, former.voice))

    def _cache(self, voice_id: str, loaded: _Loaded) -> None:
        self._loaded[voice_id] = loaded
        self._loaded.move_to_end(voice_id)
        while len(self._loaded) > self._max_loaded:
            self._loaded.popitem(last=False)

    def _loading_ended(self, task: asyncio.Task[_Loaded | None]) -> None:
        self._loading = {voice_id: other for voice_id, other in self._loading.items() if other is not task}
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it when every caller has been cancelled

    def _read(self, voice_id: str) -> StoredVoice:
        try:
            return stored(voice_id, Voice.from_bytes(self._files.read(voice_id)))
        except FileNotFoundError:
            raise _not_found(voice_id) from None
        except _UNUSABLE as error:
            raise _damaged(voice_id) from error

    async def _summary(self, voice_id: str) -> VoiceSummary | None:
        """Returns None if the file has just been deleted or is not a voice."""
        if voice_id == DEFAULT_VOICE_ID:
            return self._built_in_or_none(voice_id)
        if voice_id not in self._summaries:
            if (info := await self._call(self._read_summary, voice_id)) is None:
                return None
            self._summaries[voice_id] = info
        return self._summaries[voice_id]

    def _read_summary(self, voice_id: str) -> VoiceSummary | None:
        """Returns None if the file has just been deleted or is not a voice; logs the latter once."""
        stamp: str | None = None
        try:
            stamp = self._files.stamp(voice_id)
            if stamp is None or self._damaged.get(voice_id) == stamp:
                return None
            if not is_upload_id(voice_id):
                raise ValueError(f"its name is not {ID_ALLOWED}")
            info = summary(voice_id, Voice.header_of(self._files.read(voice_id, HEADER_BYTES)))
        except FileNotFoundError:
            return None
        except (*_UNUSABLE, OSError) as error:
            if voice_id not in self._damaged:
                log.error("%r among the stored voices is left out: %s", voice_id + SUFFIX, error)
            # a file that a system error hides is tried again: its stamp stays when the cause goes
            self._damaged[voice_id] = None if isinstance(error, OSError) else stamp
            info = None
        else:
            self._damaged.pop(voice_id, None)
        metrics.VOICE_FILES_DAMAGED.set(len(self._damaged))
        return info

    def _forget_damaged(self, existing: set[str]) -> None:
        """Forgets the damaged files that have been deleted."""
        self._damaged = {voice_id: stamp for voice_id, stamp in self._damaged.items() if voice_id in existing}
        metrics.VOICE_FILES_DAMAGED.set(len(self._damaged))

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


def _is_native(voice: VoiceSummary, model: VoiceModel) -> bool:
    """Whether no other model made the voice; so for every voice before the model is loaded."""
    models = model.info.voice_models
    return not models or not voice.model or voice.model in models


def _speaks(voice: VoiceSummary, model: VoiceModel) -> bool:
    if voice.built_in:
        return _built_in_of(model, voice.voice_id) is not None
    return _is_native(voice, model) or bool(voice.recording)


def _built_in_of(model: VoiceModel, voice_id: str) -> Voice | None:
    return model.default_voice if voice_id == DEFAULT_VOICE_ID else model.other_voices.get(voice_id)


def _forget_failed(known: _Loaded, key: tuple[str, ...], task: asyncio.Task[StoredVoice]) -> None:
    """A voice that could not be made again is tried again at its next use."""
    if task.cancelled() or task.exception() is not None:  # retrieved, so that asyncio does not log it
        known.made.pop(key, None)


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


def _built_into_another_model(voice_id: str, others: Sequence[str], model: VoiceModel) -> FailedPrecondition:
    allowed = f"a voice of {model.info.model}"
    message = (
        f"The voice {voice_id!r} is built into {' and '.join(others)} and not into {model.info.model}: use {allowed}, "
        f"or speak with {others[0]}."
    )
    return FailedPrecondition("VOICE_OF_ANOTHER_MODEL", message, field="voice_id", value=voice_id, allowed=allowed)


def _damaged(voice_id: str) -> DataLoss:
    message = f"The server's file of the voice {voice_id!r} is damaged; delete this voice and make it again."
    return DataLoss("VOICE_DAMAGED", message, field="voice_id", value=voice_id, allowed="another voice")
