"""Importing the client is quick and brings in nothing heavy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mynah

PROTOS = str(Path(mynah.__file__).parents[1])
ENVIRONMENT = {**os.environ, "PYTHONPATH": PROTOS}


def python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT, timeout=30).stdout


def test_import_takes_less_than_three_tenths_of_a_second():
    """Of this process' own time, so that what else the machine does plays no part."""
    code = "import time; t = time.process_time(); import mynah; print(time.process_time() - t)"
    assert min(float(python(code)) for _ in range(3)) < 0.3


def test_import_brings_neither_grpc_nor_anything_of_the_server():
    heavy = ("grpc", "google.protobuf", "numpy", "torch", "engines", "service")
    loaded = python(f"import sys, mynah; print([name for name in {heavy} if name in sys.modules])")
    assert loaded == "[]\n"
    loaded = python(
        "import sys, mynah.client.client; print([n for n in ('numpy', 'torch', 'engines') if n in sys.modules])"
    )
    assert loaded == "[]\n"


@pytest.mark.parametrize("name", mynah.__all__)
def test_every_exported_name_is_there(name: str):
    assert getattr(mynah, name) is not None


def test_names_can_be_imported_from_the_client_package():
    loaded = python(
        "from mynah.client import Client, SpeechStream, Voices; import mynah; print(Client is mynah.Client)"
    )
    assert loaded == "True\n"


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="no attribute 'Cliemt'"):
        _ = mynah.Cliemt  # type: ignore[attr-defined]


def test_the_version_is_the_packages():
    assert mynah.__version__ == "0.1.0"


def test_no_program_asks_the_installation_for_its_own_version():
    """What is installed may be either distribution, or a clone: `mynah/version.py` and `engines/version.py` know."""
    root = Path(PROTOS).parent
    sources = [path for room in ("engines", "service", "ui", "protos/mynah") for path in (root / room).rglob("*.py")]
    assert len(sources) > 100
    asking = [str(path.relative_to(root)) for path in sources if re.search(r'version\("mynah', path.read_text())]
    assert asking == []
