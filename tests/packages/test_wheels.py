"""The server's wheels: on which systems they run, for which Pythons they are built, and that their kernels compute."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.packages.clean_environment import ROOT, Newcomer, find_python, run

CHECK = ROOT / "tools/check_wheel.py"
NEWEST = find_python("3.13")


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the test command of cibuildwheel on the unpacked wheel in this folder."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, CHECK], cwd=folder, env=environment, capture_output=True, text=True)


def test_a_wheel_needs_nothing_of_its_system_but_its_c_library(server: Path):
    shown = " ".join(run(sys.executable, "-m", "auditwheel", "show", server).split())
    assert re.search(r'consistent with the following platform tag: "manylinux_2_\d+_\w+"', shown), shown
    assert set(re.findall(r"(\w+\.so\.\d+) with versions", shown)) <= {"libc.so.6", "libm.so.6", "libpthread.so.0"}


def test_wheels_are_built_for_each_python_on_both_architectures():
    command = (sys.executable, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", "linux", ROOT)
    built = run(*command, env={**os.environ, "PYTHONWARNINGS": "ignore"}).split()
    pythons, architectures = ("cp311", "cp312", "cp313"), ("x86_64", "aarch64")
    assert sorted(built) == sorted(f"{python}-manylinux_{arch}" for python in pythons for arch in architectures)


def test_the_check_of_a_wheel_wants_the_kernels_and_the_model(server: Path, tmp_path: Path):
    with zipfile.ZipFile(server) as archive:
        archive.extractall(tmp_path)
    checked = check(tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    model = tmp_path / "engines/embedded/tiny/ve.safetensors"
    model.rename(tmp_path / "elsewhere")
    assert check(tmp_path).stderr == "The wheel has no ve.safetensors.\n"
    (kernels,) = tmp_path.glob("engines/kernels/_kernels*.so")
    kernels.unlink()
    assert check(tmp_path).stderr == "The wheel has no compiled kernels.\n"


@pytest.mark.timeout(900)  # it compiles
@pytest.mark.skipif(NEWEST is None, reason="there is no Python 3.13 on this machine")
def test_python_313_builds_the_server_and_its_kernels_compute(client: Path, folder: Path, server: Path, tmp_path: Path):
    newcomer = Newcomer.arrive(tmp_path, NEWEST)
    sources = folder / "sources"  # those that `server` was built from
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--wheel-dir", newcomer.folder)
    newcomer.run("python", "-m", "pip", "wheel", *options, sources)
    (wheel,) = newcomer.folder.glob("*.whl")
    assert "-cp313-cp313-" in wheel.name
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]["test-requires"]
    newcomer.install(wheel, client, *wanted)
    assert "the model tiny" in newcomer.run("python", CHECK)
    assert "pip install 'mynah-speech-server[cpu]'" in newcomer.run("mynah-serve", status=2)  # the extra that it lacks
