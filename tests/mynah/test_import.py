"""Importing the client is quick and brings in nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mynah

PROTOS = str(Path(mynah.__file__).parents[1])
ENVIRONMENT = {**os.environ, "PYTHONPATH": PROTOS}


def python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT, timeout=30).stdout


def test_import_takes_less_than_three_tenths_of_a_second():
    code = "import time; t = time.perf_counter(); import mynah; print(time.perf_counter() - t)"
    assert min(float(python(code)) for _ in range(3)) < 0.3


def test_a_whole_process_with_the_client_in_use_takes_less_than_a_second():
    took = []
    for _ in range(3):
        began = time.perf_counter()
        python("import mynah; mynah.Client")
        took.append(time.perf_counter() - began)
    assert min(took) < 1.0


def test_import_brings_neither_grpc_nor_anything_of_the_server():
    heavy = ("grpc", "google.protobuf", "numpy", "torch", "engines", "service")
    loaded = python(f"import sys, mynah; print([name for name in {heavy} if name in sys.modules])")
    assert loaded == "[]\n"
    loaded = python("import sys, mynah.client; print([n for n in ('numpy', 'torch', 'engines') if n in sys.modules])")
    assert loaded == "[]\n"


@pytest.mark.parametrize("name", mynah.__all__)
def test_every_exported_name_is_there(name: str):
    assert getattr(mynah, name) is not None


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="no attribute 'Cliemt'"):
        _ = mynah.Cliemt  # type: ignore[attr-defined]


def test_the_version_is_the_packages():
    assert mynah.__version__ == "0.1.0"
