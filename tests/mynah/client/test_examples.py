"""The examples in the docstrings of the client's public classes run as they are."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import mynah
from mynah.client import errors, events
from tests.service.access.tls_files import Authority
from tests.service.serving import REFERENCE, serving

SOURCES = [Path(mynah.__file__), *sorted((Path(mynah.__file__).parent / "client").glob("*.py"))]
PLAIN, ENCRYPTED = "127.0.0.1:50051", "speech.example.com:50051"
VALUES = {name for name in mynah.__all__ if hasattr(errors, name) or getattr(mynah, name).__module__ == events.__name__}


def examples() -> Iterator[tuple[str, str]]:
    """Every fenced example, with the file and the class or function that it belongs to."""
    for source in SOURCES:
        text = source.read_text()
        for found in re.finditer(r"^ *```python\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
            owner = re.findall(r"^(?:class )?(\w+)(?:[(:]| = Literal)", text[: found.start()], re.MULTILINE)
            yield f"{source.stem}-{owner[-1] if owner else ''}", textwrap.dedent(found[1])


EXAMPLES = dict(examples())


def test_every_public_class_has_an_example():
    classes = set(mynah.__all__) - VALUES - {"AudioFormat", "Event"}
    assert classes == {
        "Client",
        "DictionaryEntry",
        "Sampling",
        "SpeechSettings",
        "SpeechStream",
        "Subtitles",
        "TextSettings",
        "Timeouts",
        "Tls",
        "Voices",
    }
    for name in classes:
        assert "```python" in (inspect.getdoc(getattr(mynah, name)) or ""), name
    assert len(EXAMPLES) == len(classes) + 2  # AudioFormat's and the package's


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the examples."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "anna.wav").write_bytes(REFERENCE)
    return tmp_path


@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_example_runs(name: str, folder: Path):
    own = Authority(folder).issue()
    played: list[bytes] = []
    names = {"mynah": mynah, "asyncio": asyncio, "Path": Path, "play": played.append}
    async with serving() as plain, serving(tls_certificate=own.certificate, tls_key=own.key) as encrypted:
        source = EXAMPLES[name].replace(PLAIN, plain.address).replace(ENCRYPTED, encrypted.address)
        await eval(compile(source, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    assert bool(played) == ("play(" in source)
    assert ("hello.mp3" in source) == ("hello.mp3" in os.listdir(folder))
