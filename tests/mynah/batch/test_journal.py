"""The journal of a run on many machines: whatever ends a run, the next one knows what is complete, of which text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

import mynah
from mynah.batch.journal import Journal
from mynah.batch.output_dir import JOURNAL, MANIFEST, OutputDir
from mynah.batch.script import Item, read_script
from mynah.batch.store import FolderStore, Store, UrlStore, open_store, read_bytes

WITHOUT_SUBTITLES = None


class Cut(BaseException):
    """The process ends here."""


class Bucket:
    """A Store in memory. `changes_left`: how many changes it lives through; None: all."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.changes_left: int | None = None

    def _change(self) -> None:
        if self.changes_left is not None:
            if self.changes_left == 0:
                raise Cut
            self.changes_left -= 1

    def write(self, name: str, data: bytes) -> None:
        self._change()
        self.files[name] = data

    def read(self, name: str) -> bytes:
        if name not in self.files:
            raise FileNotFoundError(name)
        return self.files[name]

    def sizes(self, folder: str = "") -> dict[str, int]:
        prefix = f"{folder}/" if folder else ""
        inside = {name.removeprefix(prefix): data for name, data in self.files.items() if name.startswith(prefix)}
        return {name: len(data) for name, data in inside.items() if "/" not in name}

    def delete(self, name: str) -> None:
        self._change()
        self.files.pop(name, None)

    @contextmanager
    def lock(self) -> Iterator[None]:
        yield


def items(*texts: str) -> list[Item]:
    return read_script([json.dumps({"text": text, "name": f"n{number}"}) for number, text in enumerate(texts)])


def audio(item: Item) -> bytes:
    """As long for all texts, so that sizes do not show which one it is."""
    return item.digest.encode()


def run(store: Store, script: list[Item]) -> list[str]:
    """A whole run, whose workers put audio and whose driver notes it later. Returns the names that were spoken."""
    journal = Journal(store)
    missing = journal.missing(script, WITHOUT_SUBTITLES)
    journal.plan(missing)
    for item in missing:
        store.write(f"{item.name}.wav", audio(item))
    for item in missing:
        journal.note({"name": item.name, "digest": item.digest, "bytes": len(audio(item))})
        journal.flush()
    journal.close()
    return [item.name for item in missing]


def check_complete(store: Bucket, script: list[Item]) -> None:
    assert {name: data for name, data in store.files.items() if name.endswith(".wav")} == {
        f"{item.name}.wav": audio(item) for item in script
    }
    listed = [json.loads(line) for line in store.files[MANIFEST].splitlines()]
    assert Counter(line["name"] for line in listed) == Counter(item.name for item in script)
    assert not store.sizes(JOURNAL)


def test_a_run_that_ends_anywhere_is_ended_by_the_next_one_without_speaking_a_line_twice():
    before, after = items("one", "two", "three"), items("one", "TWO", "three", "four")
    for changes in count():
        store = Bucket()
        run(store, before)
        store.changes_left = changes
        try:
            first = run(store, after)
        except Cut:
            there = [item.name for item in after if store.files.get(f"{item.name}.wav") == audio(item)]
            store.changes_left = None
            assert set(run(store, after)) == {"n1", "n3"} - set(there), f"cut after {changes} changes"
            check_complete(store, after)
            assert run(store, after) == []
        else:
            assert first == ["n1", "n3"]
            check_complete(store, after)
            break
    assert changes == 10


def test_a_text_that_is_changed_back_after_a_crash_is_spoken_again():
    """Its older version was listed, its newer one may have been written over it."""
    old, new = items("old"), items("new")
    for changes in count():
        store = Bucket()
        run(store, old)
        store.changes_left = changes
        try:
            run(store, new)
        except Cut:
            store.changes_left = None
            run(store, old)
            check_complete(store, old)
        else:
            break
    assert changes > 3


def test_a_file_that_no_run_wrote_is_left_alone():
    store = Bucket()
    store.files["n1.wav"] = b"precious"
    with pytest.raises(mynah.AlreadyExists, match=r"n1\.wav exists but is not in the manifest"):
        run(store, items("one", "two"))
    assert store.files == {"n1.wav": b"precious"}


def test_a_file_that_has_lost_its_end_is_spoken_again():
    store, script = Bucket(), items("one", "two")
    run(store, script)
    store.files["n0.wav"] = store.files["n0.wav"][:-1]
    assert run(store, script) == ["n0"]


def test_a_line_without_its_subtitles_is_not_complete():
    store, script = Bucket(), items("one")
    run(store, script)
    assert Journal(store).missing(script, "vtt") == script
    store.files["n0.vtt"] = b"WEBVTT"
    assert Journal(store).missing(script, "vtt") == []


def test_a_record_that_was_cut_off_is_skipped():
    store, script = Bucket(), items("one", "two")
    run(store, script)
    store.files[MANIFEST] = store.files[MANIFEST][:-9]
    del store.files["n1.wav"]
    assert run(store, script) == ["n1"]


def test_many_records_are_kept_before_the_end():
    store, script = Bucket(), items(*(f"line {number}" for number in range(1200)))
    journal = Journal(store)
    journal.plan(script)
    for item in script:
        journal.note({"name": item.name, "digest": item.digest, "bytes": 1})
    assert len(store.sizes(JOURNAL)) == 3


def test_servers_and_ray_go_on_with_one_folder(tmp_path: Path):
    """But servers not with a run on Ray that was interrupted: they would not know its files."""
    script = items("one", "two")
    with OutputDir(tmp_path) as output_dir:
        output_dir.put(script[0], b"\1\0" * 240, 24_000, {"audio_s": 0.01})
    assert run(FolderStore(tmp_path), script) == ["n1"]
    with OutputDir(tmp_path) as output_dir:
        assert output_dir.missing(script) == []
    Journal(FolderStore(tmp_path)).plan(items("three"))
    with pytest.raises(mynah.WrongState, match=r"interrupted. End it with --ray"), OutputDir(tmp_path):
        pass


# ---- stores


@pytest.fixture(params=["folder", "url"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "out") if request.param == "folder" else f"file://{tmp_path}/out")


def test_files_are_read_listed_and_deleted(store: Store):
    store.write("a.wav", b"12")
    store.write("parts/b.jsonl", b"123")
    store.write("a.wav", b"1")
    with store.lock():
        assert {name: size for name, size in store.sizes().items() if name != ".lock"} == {"a.wav": 1}
    assert store.sizes("parts") == {"b.jsonl": 3}
    assert store.sizes("nothing") == {}
    assert store.read("parts/b.jsonl") == b"123"
    for name in ("parts/b.jsonl", "a.wav", "a.wav"):
        store.delete(name)
    assert store.sizes("parts") == {}
    with pytest.raises(FileNotFoundError):
        store.read("a.wav")


def test_a_folder_is_one_run_s_at_a_time_and_loses_what_killed_workers_left(tmp_path: Path):
    store = FolderStore(tmp_path)
    (tmp_path / ".a.wav.1234.part").write_bytes(b"half")
    with store.lock(), pytest.raises(mynah.WrongState, match="Another process"), FolderStore(tmp_path).lock():
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock"]


def test_a_url_without_its_package_says_so():
    with pytest.raises(mynah.InvalidArgument, match=r"nowhere://bucket cannot be used: .*nowhere"):
        UrlStore("nowhere://bucket")


def test_a_script_is_read_from_a_path_or_a_url(tmp_path: Path):
    (tmp_path / "script.jsonl").write_bytes(b"{}\n")
    assert read_bytes(str(tmp_path / "script.jsonl")) == read_bytes(f"file://{tmp_path}/script.jsonl") == b"{}\n"
