"""The store of voices: ids that cannot leave the folder, files that survive a restart and are shared, limits."""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from engines.errors import InvalidInput, TimeLimitExceeded
from engines.fake import FakeEngine, fake_voice
from engines.model_spec import NANO
from engines.voice import Voice
from service.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    NotFound,
    RequestError,
    ResourceExhausted,
    Unavailable,
)
from service.telemetry import metrics
from service.voices.files import FolderFiles
from service.voices.lookup import VoiceLookup
from service.voices.store import VoiceStore
from service.voices.stored_voice import StoredVoice
from tests.virtual_time import virtual_time

ANNA = fake_voice("Anna", b"anna")
BERT = fake_voice("Bert", b"bert")
BUILT_IN = fake_voice("default")


class Model:
    """Stands for an engine: makes voices of one model and counts them."""

    def __init__(self, default: Voice | None, others: dict[str, Voice] | None = None, *models: str) -> None:
        self.default_voice, self.other_voices = default, others or {}
        self.info = replace(FakeEngine().info, model=models[-1] if models else "fake", voice_models=models)
        self.made: list[tuple[bytes, str, bool]] = []
        self.failure: Exception | None = None

    async def make_voice(self, audio: bytes, *, name: str, normalize_loudness: bool = True) -> Voice:
        await asyncio.sleep(0.01)
        self.made.append((audio, name, normalize_loudness))
        if self.failure is not None:
            raise self.failure
        return replace(fake_voice(name, audio + self.info.model.encode()), metadata={"model": self.info.model})


builtin = [Model(BUILT_IN)]
no_builtin = [Model(None)]
with_alder = [Model(BUILT_IN, {"alder": ANNA})]


@pytest.fixture(params=["folder", "url"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """A location that several stores can share."""
    return tmp_path / "shared" if request.param == "folder" else f"memory://voices-{secrets.token_hex(4)}"


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*")]


async def test_an_added_voice_is_listed_after_a_restart(tmp_path: Path):
    first = VoiceStore(builtin, tmp_path / "voices")
    anna, bert = await first.add(ANNA, None), await first.add(BERT, "bert")
    again = VoiceStore(builtin, tmp_path / "voices")
    listed, more = await again.page("", 10)
    assert [stored.voice_id for stored in listed] == sorted([anna.voice_id, "bert", "default"])
    assert not more
    kept = await again.get(anna.voice_id)
    assert (kept.voice.key, kept.voice.name, kept.created) == (ANNA.key, "Anna", anna.created)
    assert bert.reference_s == 1.0


async def test_a_removed_voice_stays_removed_and_its_id_is_free(tmp_path: Path):
    store = VoiceStore(no_builtin, tmp_path)
    await store.add(ANNA, "anna")
    await store.remove("anna")
    assert files(tmp_path) == []
    with pytest.raises(NotFound):
        await store.get("anna")
    await store.add(BERT, "anna")
    assert (await VoiceStore(no_builtin, tmp_path).get("anna")).voice.key == BERT.key


async def test_an_id_is_taken_while_its_file_is_written_or_deleted(tmp_path: Path):
    store = VoiceStore(no_builtin, tmp_path)
    results = await asyncio.gather(store.add(ANNA, "x"), store.add(BERT, "x"), return_exceptions=True)
    # one succeeds; which one depends on the threads that list the ids
    assert sorted(type(result).__name__ for result in results) == ["AlreadyExists", "StoredVoice"]
    removed, added = await asyncio.gather(store.remove("x"), store.add(BERT, "x"), return_exceptions=True)
    assert removed is None
    assert files(tmp_path) == ([] if isinstance(added, AlreadyExists) else ["x.safetensors"])


@pytest.mark.parametrize("voice_id", ["", "..", "../x", "a/b", "A", "ä", "-a", "_a", "a" * 65, "a\n", "a.b", "a\0"])
async def test_an_invalid_id_reaches_no_file(voice_id: str, tmp_path: Path):
    store = VoiceStore(no_builtin, tmp_path / "voices")
    for call in (store.get, store.check_can_add):
        with pytest.raises(InvalidInput) as raised:
            await call(voice_id)
        assert (raised.value.reason, raised.value.field) == ("VOICE_ID_INVALID", "voice_id")
    with pytest.raises(InvalidInput):
        await store.add(ANNA, voice_id)
    with pytest.raises(InvalidInput):
        await store.remove(voice_id)
    assert files(tmp_path) == ["voices"]


async def test_existing_ids_are_rejected():
    store = VoiceStore(no_builtin)
    await store.add(ANNA, "anna")
    for taken in ("anna", "default"):
        with pytest.raises(AlreadyExists) as raised:
            await store.add(BERT, taken)
        assert raised.value.reason == "VOICE_EXISTS"


async def test_the_built_in_voice_stays():
    store = VoiceStore(builtin)
    assert (await store.get("default")).built_in
    with pytest.raises(FailedPrecondition) as raised:
        await store.remove("default")
    assert raised.value.reason == "VOICE_BUILT_IN"


async def test_other_built_in_voices_are_voices_like_the_first_one(tmp_path: Path):
    store = VoiceStore(with_alder, tmp_path)
    assert [each.voice_id for each in (await store.page("", 10))[0]] == ["alder", "default"]
    alder = await store.get("alder")
    assert (alder.voice_id, alder.built_in, alder.voice.key) == ("alder", True, ANNA.key)
    with pytest.raises(FailedPrecondition):
        await store.remove("alder")
    with pytest.raises(AlreadyExists):
        await store.add(BERT, "alder")


async def test_an_uploaded_voice_is_not_replaced_by_a_built_in_one_of_its_id(tmp_path: Path):
    await VoiceStore(builtin, tmp_path).add(BERT, "alder")
    store = VoiceStore(with_alder, tmp_path)
    assert (await store.get("alder")).voice.key == BERT.key
    assert [each.built_in for each in (await store.page("", 10))[0]] == [False, True]
    await store.remove("alder")
    assert (await store.get("alder")).built_in


def test_a_folder_is_kept_and_memory_is_not(tmp_path: Path):
    assert VoiceStore(builtin, tmp_path).kept
    assert not VoiceStore(builtin).kept


async def test_the_number_of_voices_is_bounded_and_the_built_in_one_does_not_count():
    store = VoiceStore(builtin, max_voices=2)
    await store.add(ANNA, None)
    await store.add(ANNA, "second")
    with pytest.raises(ResourceExhausted) as raised:
        await store.add(BERT, None)
    assert (raised.value.reason, raised.value.allowed) == ("VOICES_FULL", "2 voices")
    await store.remove("second")
    await store.add(BERT, None)


async def test_pages_of_any_size_list_every_voice_once():
    store = VoiceStore(builtin)
    for number in range(7):
        await store.add(ANNA, f"voice-{number}")
    for size in (1, 3, 8, 100):
        seen: list[str] = []
        more = True
        while more:
            listed, more = await store.page(seen[-1] if seen else "", size)
            assert len(listed) <= size
            seen += [stored.voice_id for stored in listed]
        assert seen == ["default", *(f"voice-{number}" for number in range(7))]


@pytest.mark.parametrize("name", ["broken.safetensors", "default.safetensors", "Bad Name.safetensors"])
async def test_a_file_that_is_not_a_voice_is_skipped_and_logged_once(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / name).write_bytes(b"not a voice")
    store = VoiceStore(no_builtin, tmp_path)
    await store.add(ANNA, "anna")
    for _ in range(3):
        assert [info.voice_id for info in (await store.page("", 10))[0]] == ["anna"]
    assert [name in record.getMessage() for record in caplog.records] == [True]
    assert damaged_files() == 1
    (tmp_path / name).unlink()
    await store.page("", 10)
    assert damaged_files() == 0


def damaged_files() -> float:
    return next(sample.value for sample in metrics.VOICE_FILES_DAMAGED.collect()[0].samples)


async def test_files_that_cannot_be_read_are_skipped(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "zero.safetensors").symlink_to("/dev/zero")
    (tmp_path / "loop.safetensors").symlink_to("loop.safetensors")
    await VoiceStore(no_builtin, tmp_path).add(ANNA, "anna")
    store = VoiceStore(no_builtin, tmp_path)
    assert [info.voice_id for info in (await store.page("", 10))[0]] == ["anna"]
    for voice_id in ("pipe", "folder", "zero"):
        with pytest.raises(DataLoss) as raised:
            await store.get(voice_id)
        assert raised.value.reason == "VOICE_DAMAGED"


async def test_a_damaged_file_that_was_repaired_is_listed(tmp_path: Path):
    await VoiceStore(no_builtin, tmp_path).add(ANNA, "anna")
    file = tmp_path / "anna.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    store = VoiceStore(no_builtin, tmp_path)
    assert await store.page("", 10) == ([], False)
    file.write_bytes(whole)
    assert [info.voice_id for info in (await store.page("", 10))[0]] == ["anna"]
    assert damaged_files() == 0


@pytest.mark.parametrize(
    ("number", "kind", "reason"),
    [
        (errno.ENOSPC, ResourceExhausted, "STORAGE_FULL"),
        (errno.EDQUOT, ResourceExhausted, "STORAGE_FULL"),
        (errno.EROFS, Unavailable, "STORAGE_READ_ONLY"),
        (errno.EIO, Unavailable, "STORAGE_FAILED"),
    ],
)
async def test_a_disk_that_fails_is_a_typed_error(
    number: int, kind: type[RequestError], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = VoiceStore(no_builtin, tmp_path)

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind) as raised:
        await store.add(ANNA, "anna")
    assert (raised.value.reason, raised.value.retry_after_s is not None) == (reason, True)


async def test_a_file_that_hangs_at_the_start_stops_it_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    await VoiceStore(no_builtin, tmp_path).add(ANNA, "anna")
    answering, read = threading.Event(), FolderFiles.read

    def hang(files: FolderFiles, voice_id: str, max_bytes: int | None = None) -> bytes:
        answering.wait()
        return read(files, voice_id, max_bytes)

    monkeypatch.setattr(FolderFiles, "read", hang)
    store = VoiceStore(no_builtin, tmp_path, time_limit_s=0.02)
    with pytest.raises(TimeLimitExceeded):
        await store.get("anna")
    answering.set()


async def test_a_hanging_store_fails_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = VoiceStore(no_builtin, tmp_path, time_limit_s=0.02)
    answering = threading.Event()
    fsync = os.fsync

    def hang(descriptor: int) -> None:
        answering.wait()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", hang)
    with pytest.raises(TimeLimitExceeded) as raised:
        await store.add(ANNA, "anna")
    assert (raised.value.reason, raised.value.retryable) == ("STORE_TIMEOUT", True)
    answering.set()


async def test_partial_files_are_not_voices_and_are_deleted_in_time(tmp_path: Path):
    (tmp_path / "anna.1.partial").write_bytes(b"half")
    old = tmp_path / "bert.2.partial"
    old.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    assert await VoiceStore(no_builtin, tmp_path).page("", 10) == ([], False)
    assert files(tmp_path) == ["anna.1.partial"]  # another server may be writing it


async def test_two_servers_see_each_others_voices(place: Path | str):
    one, other = VoiceStore(builtin, place), VoiceStore(builtin, place)
    anna = await one.add(ANNA, "anna")
    assert (await other.get("anna")).voice.key == ANNA.key
    assert [summary.voice_id for summary in (await other.page("", 10))[0]] == ["anna", "default"]
    (shown, _), _ = await other.page("", 10)
    assert (shown.name, shown.created, shown.reference_s) == ("Anna", anna.created, 1.0)
    for taken in (one, other):
        with pytest.raises(AlreadyExists):
            await taken.add(BERT, "anna")
    await other.remove("anna")
    with pytest.raises(NotFound):
        await other.get("anna")
    with pytest.raises(NotFound):
        await one.remove("anna")
    assert [summary.voice_id for summary in (await one.page("", 10))[0]] == ["default"]


def test_a_voice_that_another_server_replaced_or_deleted_is_used_for_a_second_at_most(place: Path | str):
    async def run() -> None:
        one, other = VoiceStore(no_builtin, place), VoiceStore(no_builtin, place)
        await one.add(ANNA, "anna")
        assert (await one.get("anna")).voice.key == ANNA.key
        await other.remove("anna")
        await other.add(BERT, "anna")
        await asyncio.sleep(1.01)
        assert (await one.get("anna")).voice.key == BERT.key
        await other.remove("anna")
        await asyncio.sleep(1.01)
        with pytest.raises(NotFound):
            await one.get("anna")

    virtual_time(run())


async def test_of_several_servers_that_create_one_id_at_once_one_succeeds(tmp_path: Path):
    stores = [VoiceStore(no_builtin, tmp_path) for _ in range(4)]
    for round_ in range(5):
        tries = [store.add(voice, f"x{round_}") for store, voice in zip(stores, [ANNA, BERT] * 2, strict=True)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        (winner,) = [result for result in results if isinstance(result, StoredVoice)]
        assert sum(isinstance(result, AlreadyExists) for result in results) == 3
        assert (await stores[0].get(f"x{round_}")).voice.key == winner.voice.key
    assert len(files(tmp_path)) == 5


async def test_memory_holds_the_voices_used_last(tmp_path: Path):
    store = VoiceStore(no_builtin, tmp_path, max_loaded=2)
    for number in range(5):
        await store.add(fake_voice(str(number), bytes([number])), f"v{number}")
    for number in (0, 1, 0, 2, 3, 4, 0):
        assert (await store.get(f"v{number}")).name == str(number)
        assert len(store._loaded) <= 2
    assert list(store._loaded) == ["v4", "v0"]


async def test_concurrent_calls_read_the_file_once(tmp_path: Path):
    store = VoiceStore(no_builtin, tmp_path)
    await store.add(ANNA, "anna")
    results = await asyncio.gather(*(store.get("anna") for _ in range(50)))
    assert len({id(stored.voice) for stored in results}) == 1
    impatient = asyncio.create_task(store.get("anna"))
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await store.get("anna")).voice.key == ANNA.key


async def test_a_file_that_breaks_later_is_left_out_of_lists_and_named_by_get(tmp_path: Path):
    store = VoiceStore(builtin, tmp_path)
    for broken in ("a", "b", "c"):
        (tmp_path / f"{broken}.safetensors").write_bytes(b"not a voice")
    await store.add(ANNA, "d")
    assert [summary.voice_id for summary in (await store.page("", 2))[0]] == ["d", "default"]
    with pytest.raises(DataLoss) as raised:
        await store.get("a")
    assert (raised.value.reason, raised.value.value) == ("VOICE_DAMAGED", "a")


def test_a_location_that_cannot_be_used_is_named():
    with pytest.raises(OSError, match="nosuchscheme://x"):
        VoiceStore(no_builtin, "nosuchscheme://x")


WRITER = """
import asyncio, sys
from tests.service.voices.test_store import ANNA, no_builtin
from service.voices.store import VoiceStore

async def main():
    store = VoiceStore(no_builtin, sys.argv[1])
    for number in range(10_000):
        await store.add(ANNA, f"v{number}")
        print(f"v{number}", flush=True)

asyncio.run(main())
"""


def killed_in_the_middle(folder: Path) -> list[str]:
    """The ids that a process confirmed before it was killed, while it went on adding voices."""
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "protos")])}
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        assert writer.stdout is not None
        confirmed = [writer.stdout.readline().strip() for _ in range(20)]
        writer.kill()
        return confirmed + writer.stdout.read().split("\n")[:-1]


async def test_a_killed_server_loses_no_voice_that_it_confirmed(tmp_path: Path):
    confirmed = await asyncio.to_thread(killed_in_the_middle, tmp_path)
    store = VoiceStore(no_builtin, tmp_path)
    for voice_id in confirmed:
        assert (await store.get(voice_id)).voice.key == ANNA.key
    listed, _ = await store.page("", 1000)
    assert len(listed) - len(confirmed) in (0, 1)  # the last one may have been stored and not yet confirmed
    await store.add(BERT, "next")


# ---- voices of other models


def made_with(model: str, name: str = "Anna") -> Voice:
    return replace(fake_voice(name, model.encode()), metadata={"model": model})


async def test_a_voice_of_another_model_is_refused_by_name_and_not_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for voice_id, model in (("anna", "tiny"), ("bert", "nano"), ("carl", "turbo")):
        await VoiceStore(builtin, tmp_path).add(made_with(model, voice_id.title()), voice_id)
    await VoiceStore(builtin, tmp_path).add(BERT, "unmarked")  # from before voices carried a model's name
    store = VoiceStore([Model(BUILT_IN, None, *NANO.voice_models)], tmp_path)
    store.log_foreign()
    for _ in range(2):
        assert [each.voice_id for each in (await store.page("", 10))[0]] == ["bert", "carl", "default", "unmarked"]
        with pytest.raises(FailedPrecondition) as raised:
            await store.get("anna")
    assert (raised.value.reason, raised.value.value) == ("VOICE_OF_ANOTHER_MODEL", "anna")
    assert "made with the model tiny" in str(raised.value)
    assert raised.value.allowed == "a voice made with turbo or nano"
    for voice_id in ("bert", "carl", "unmarked"):
        assert (await store.get(voice_id)).voice_id == voice_id
    named = [record.getMessage() for record in caplog.records if "another model" in record.getMessage()]
    assert named == ["stored voices of another model are kept and not listed: anna (tiny)"]


async def test_a_voice_of_another_model_keeps_its_id_until_it_is_deleted(tmp_path: Path):
    store = VoiceStore([Model(BUILT_IN, None, "nano")], tmp_path)
    await VoiceStore(builtin, tmp_path).add(made_with("tiny"), "anna")
    lookup = VoiceLookup(store)
    with pytest.raises(AlreadyExists):
        await store.add(made_with("nano"), "anna")
    with pytest.raises(FailedPrecondition) as raised:
        await lookup.get("Anna")  # by its name, too
    assert raised.value.reason == "VOICE_OF_ANOTHER_MODEL"
    with pytest.raises(NotFound) as missing:
        await lookup.get("bert")
    assert missing.value.allowed == "default", "it is not offered"
    await store.remove(await lookup.resolve("Anna"))
    assert files(tmp_path) == []


async def test_a_voice_of_another_model_does_not_hide_a_built_in_one(tmp_path: Path):
    await VoiceStore(builtin, tmp_path).add(made_with("nano"), "alder")
    store = VoiceStore([Model(BUILT_IN, {"alder": ANNA}, "tiny")], tmp_path)
    assert (await store.get("alder")).voice.key == ANNA.key
    assert [each.built_in for each in (await store.page("", 10))[0]] == [True, True]


def test_a_folder_that_is_deleted_meanwhile_is_an_empty_store(tmp_path: Path):
    folder = tmp_path / "voices"
    files = FolderFiles(folder)
    files.create("anna", b"anna")
    (folder / "anna.safetensors").unlink()
    folder.rmdir()
    assert files.ids() == set()
    assert files.stamp("anna") is None
    files.delete("anna")
    files.create("bert", b"bert")
    assert files.ids() == {"bert"}


# ---- voices that are made again from their recordings


def model_of(name: str) -> Model:
    return Model(BUILT_IN, None, name)


async def test_a_voice_with_its_recording_is_made_again_once(place: Path | str):
    await VoiceStore(builtin, place).add(made_with("turbo"), "anna", b"recorded", levelled=False)
    maker = model_of("multilingual")
    store = VoiceStore([maker], place)
    assert [each.voice_id for each in (await store.page("", 10))[0]] == ["anna", "default"]
    assert maker.made == []
    voices = await asyncio.gather(*(store.get("anna") for _ in range(3)))
    assert {each.voice.key for each in voices} == {fake_voice("Anna", b"recorded" + b"multilingual").key}
    assert {each.model for each in voices} == {"multilingual"}
    assert {each.name for each in voices} == {"Anna"}
    assert maker.made == [(b"recorded", "Anna", False)]
    first = await VoiceStore(builtin, place).get("anna")  # of the model that made it, which the files still hold
    assert first.voice.key == made_with("turbo").key
    assert voices[0].created == first.created


async def test_its_own_model_uses_the_voice_as_it_is(place: Path | str):
    maker = model_of("turbo")
    store = VoiceStore([maker], place)
    await store.add(made_with("turbo"), "anna", b"recorded")
    assert (await store.get("anna")).voice.key == made_with("turbo").key
    assert maker.made == []


async def test_deleting_a_voice_deletes_its_recording(tmp_path: Path):
    store = VoiceStore([model_of("turbo")], tmp_path)
    await store.add(made_with("turbo"), "anna", b"recorded")
    assert len(files(tmp_path)) == 3, "the voice, the folder of recordings, and one in it"
    other = VoiceStore([maker := model_of("multilingual")], tmp_path)
    await other.remove(await VoiceLookup(other).resolve("anna"))
    assert files(tmp_path) == ["recordings"]
    assert maker.made == [], "nothing is made to be deleted"


async def test_a_voice_without_a_recording_is_refused_as_before(tmp_path: Path):
    await VoiceStore(builtin, tmp_path).add(made_with("turbo"), "anna")
    assert files(tmp_path) == ["anna.safetensors"]
    with pytest.raises(FailedPrecondition) as raised:
        await VoiceStore([model_of("multilingual")], tmp_path).get("anna")
    assert raised.value.reason == "VOICE_OF_ANOTHER_MODEL"


async def test_the_models_that_can_speak_a_voice_are_named_as_streams_name_them(tmp_path: Path):
    await VoiceStore(builtin, tmp_path).add(made_with("random:turbo"), "anna")
    others = [multilingual := model_of("multilingual"), other := Model(BUILT_IN, None, "random:turbo", "noise")]
    with pytest.raises(FailedPrecondition, match=r"or speak with noise\.$"):
        await VoiceStore(others, tmp_path).get("anna", multilingual)
    assert (await VoiceStore(others, tmp_path).get("anna", other)).voice_id == "anna"
    with pytest.raises(FailedPrecondition, match=r"or speak on a server that has random:turbo\.$"):
        await VoiceStore([multilingual], tmp_path).get("anna")


@pytest.mark.parametrize("fault", ["lost", "refused"])
async def test_a_recording_that_cannot_be_used_is_refused_and_logged(
    fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    await VoiceStore(builtin, tmp_path).add(made_with("turbo"), "anna", b"recorded")
    maker = model_of("multilingual")
    if fault == "lost":
        (recording,) = (tmp_path / "recordings").iterdir()
        recording.unlink()
    else:
        maker.failure = InvalidInput("audio", "audio is too short; it must be longer.", "AUDIO_TOO_SHORT")
    with pytest.raises(FailedPrecondition) as raised:
        await VoiceStore([maker], tmp_path).get("anna")
    assert raised.value.reason == "VOICE_OF_ANOTHER_MODEL"
    assert "voice anna cannot be made again from its recording" in caplog.text


async def test_a_recording_of_a_voice_that_could_not_be_stored_is_deleted(tmp_path: Path):
    store = VoiceStore([model_of("turbo")], tmp_path)
    store._files.ids = set  # type: ignore[method-assign]
    await VoiceStore(builtin, tmp_path).add(ANNA, "anna")  # by another server, in the meantime
    with pytest.raises(AlreadyExists):
        await store.add(made_with("turbo"), "anna", b"recorded")
    assert list((tmp_path / "recordings").iterdir()) == []


# ---- several models


async def test_each_model_speaks_a_voice_in_its_own_form(place: Path | str):
    turbo, other = model_of("turbo"), model_of("multilingual")
    store = VoiceStore([turbo, other], place)
    await store.add(made_with("turbo"), "anna", b"recorded")
    asked = await asyncio.gather(*(store.get("anna", model) for model in (turbo, other, None, other, turbo)))
    assert [each.model for each in asked] == ["turbo", "multilingual", "turbo", "multilingual", "turbo"]
    assert (turbo.made, len(other.made)) == ([], 1)


async def test_a_voice_of_one_model_without_its_recording_is_listed_and_refused_for_another(tmp_path: Path):
    turbo, other = model_of("turbo"), model_of("multilingual")
    lookup = VoiceLookup(store := VoiceStore([turbo, other], tmp_path))
    await store.add(made_with("multilingual"), "anna")
    assert [each.voice_id for each in (await store.page("", 10))[0]] == ["anna", "default"]
    assert (await lookup.get("Anna", other)).voice_id == (await lookup.get("anna")).voice_id == "anna"
    with pytest.raises(FailedPrecondition) as raised:
        await lookup.get("anna", turbo)
    assert raised.value.reason == "VOICE_OF_ANOTHER_MODEL"
    assert raised.value.allowed == "a voice made with turbo"
    assert "whose voices turbo cannot speak, and there is no recording" in str(raised.value)
    with pytest.raises(NotFound) as missing:
        await lookup.get("bert", turbo)
    assert missing.value.allowed == "default", "what this model cannot speak is not offered"


async def test_built_in_voices_are_those_of_the_model_that_speaks(tmp_path: Path):
    first, second = Model(BUILT_IN, {"alder": ANNA}, "turbo"), Model(BERT, None, "multilingual")
    store = VoiceStore([first, second], tmp_path)
    assert [each.voice_id for each in (await store.page("", 10))[0]] == ["alder", "default"]
    assert (await store.get("default")).voice.key == BUILT_IN.key
    assert (await store.get("default", second)).voice.key == BERT.key
    with pytest.raises(FailedPrecondition) as raised:
        await store.get("alder", second)
    assert (raised.value.reason, raised.value.value) == ("VOICE_OF_ANOTHER_MODEL", "alder")
    assert "built into turbo and not into multilingual" in str(raised.value)


async def test_a_voice_that_could_not_be_made_again_is_tried_again(tmp_path: Path):
    turbo, other = model_of("turbo"), model_of("multilingual")
    store = VoiceStore([turbo, other], tmp_path)
    await store.add(made_with("turbo"), "anna", b"recorded")
    other.failure = TimeLimitExceeded("VOICE_TIMEOUT", "Making the voice took too long; retry.")
    with pytest.raises(TimeLimitExceeded):
        await store.get("anna", other)
    other.failure = None
    assert (await store.get("anna", other)).model == "multilingual"
