"""The server's dictionaries: files in a folder, for every voice or for one, read again when they change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engines.errors import InvalidInput
from engines.text.dictionary import Dictionary, Entry
from engines.text.front_end import FrontEnd
from service.stream.text.dictionaries import MAX_ENTRIES, DictionaryFolder, with_request


def spoken(dictionary: Dictionary, text: str) -> str:
    return FrontEnd(normalize=False, dictionary=dictionary).read(text).spoken


def write(path: Path, content: str, seconds: int = 1) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    os.utime(path, (seconds, seconds))


def test_a_request_comes_before_a_voice_and_a_voice_before_the_server(tmp_path: Path) -> None:
    write(tmp_path / "all.dict", "a = server\nb = server\nc = server\nx y = server")
    write(tmp_path / "anna" / "words.dict", "a = voice\nb = voice")
    folder = DictionaryFolder(tmp_path)
    assert spoken(folder.for_voice("bob"), "a b c") == "server server server"
    assert spoken(folder.for_voice("anna"), "a b c") == "voice voice server"
    request = with_request((Entry("a", "request"), Entry("x", "request")), folder.for_voice("anna"))
    assert spoken(request, "a b c x y") == "request voice server request y"


def test_a_change_is_read_without_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "all.dict", "a = one")
    folder = DictionaryFolder(tmp_path)
    assert folder.for_voice("x") is folder.for_voice("y"), "kept while nothing changes"
    write(tmp_path / "all.dict", "a = two", 2)
    assert spoken(folder.for_voice("x"), "a") == "two"
    write(tmp_path / "more.dict", "b = new")
    assert spoken(folder.for_voice("x"), "a b") == "two new"
    write(tmp_path / "more.dict", "b new", 3)
    assert spoken(folder.for_voice("x"), "a b") == "two new", "an invalid file changes nothing"
    assert "more.dict, line 1" in caplog.text
    (tmp_path / "more.dict").unlink()
    assert spoken(folder.for_voice("x"), "a b") == "two b"


def test_a_mounted_config_map_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "..data" / "all.dict", "a = one")
    (tmp_path / "all.dict").symlink_to(tmp_path / "..data" / "all.dict")
    folder = DictionaryFolder(tmp_path)
    assert spoken(folder.for_voice("..data"), "a") == "one"
    assert folder.for_voice("..data") is folder.for_voice("x")


def test_an_invalid_folder_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError):
        DictionaryFolder(tmp_path / "none")
    write(tmp_path / "all.dict", "a = ˈa")
    with pytest.raises(InvalidInput, match=r"all\.dict, line 1"):
        DictionaryFolder(tmp_path)
    write(tmp_path / "all.dict", "\n".join(f"w{n} = x" for n in range(MAX_ENTRIES + 1)))
    with pytest.raises(InvalidInput, match=f"at most {MAX_ENTRIES} entries"):
        DictionaryFolder(tmp_path)
    (tmp_path / "all.dict").write_bytes(b"a = \xff")
    with pytest.raises(OSError, match="UTF-8"):
        DictionaryFolder(tmp_path)
