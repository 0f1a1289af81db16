"""Both distributions as the index would have them: their wheels, and what a newcomer does with each."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import wave
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from engines.version import VERSION
from mynah.version import VERSION as CLIENT_VERSION
from tests.packages.clean_environment import ROOT, Newcomer, find_python, run

COMMANDS = {"mynah-serve": "cpu", "mynah-engines": "cpu", "mynah-page": "ui", "mynah-load": "load"}
CLIENT, SERVER = "mynah-speech", "mynah-speech-server"
OTHER_PYTHONS = [path for version in ("3.12", "3.13") if (path := find_python(version))]


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {each for each in archive.namelist() if not each.endswith("/")}


def requirements(wheel: Path) -> set[str]:
    """What it needs without an extra."""
    needs = [each for each in metadata(wheel).get_all("Requires-Dist", []) if "extra ==" not in each]
    return {re.split(r"[<>=!~ ;\[]", need)[0] for need in needs}


def test_all_have_one_version():
    assert VERSION == CLIENT_VERSION
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == [f"{CLIENT}=={VERSION}"]
    assert json.loads((ROOT / "clients/typescript/package.json").read_text())["version"] == VERSION
    for folder in ("protos", "clients/typescript"):
        assert (ROOT / folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_extras_of_a_server_can_be_installed_together():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    beside = sorted(extras.keys() - {"gpu", "ui", "dev"})  # each of these has an environment of its own
    assert {"cpu", "lang-ja", "lang-zh", "s3", "otel", "ray", "load"} <= set(beside)
    for several in (beside, ["ui"]):
        options = [f"--extra={extra}" for extra in several]
        run(Path(sys.executable).with_name("uv"), "pip", "compile", "--quiet", *options, "-o", "/dev/null",
            ROOT / "pyproject.toml")  # fmt: skip


def test_the_page_on_running_names_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    table = re.findall(
        r"^\| (`[^|]*) \|", (ROOT / "docs/running.md").read_text().partition("| extra | adds |")[2], re.MULTILINE
    )
    assert set(re.findall(r"`([\w-]+)`", " ".join(table))) == extras - {"dev", "trt"}, "but those of developers"


def test_the_client_is_pure_python_with_the_contract_inside(client: Path):
    assert client.name == f"mynah_speech-{VERSION}-py3-none-any.whl"
    assert {each.split("/")[0] for each in names(client)} == {"mynah", f"mynah_speech-{VERSION}.dist-info"}
    assert {"mynah/v1/speech.proto", "mynah/v1/voices.proto", "mynah/v1/speech_pb2.pyi", "mynah/py.typed"} <= names(
        client
    )
    assert requirements(client) == {"grpcio", "protobuf", "googleapis-common-protos"}
    assert metadata(client)["Name"] == CLIENT


def test_the_server_has_its_kernels_and_the_tiny_model_with_its_licences(server: Path):
    assert re.fullmatch(rf"mynah_speech_server-{re.escape(VERSION)}-cp3\d+-cp3\d+-linux_\w+\.whl", server.name)
    found = names(server)
    rooms = {"engines", "service", "ui"}
    assert {each.split("/")[0] for each in found} == rooms | {f"mynah_speech_server-{VERSION}.dist-info"}
    assert any(re.fullmatch(r"engines/kernels/_kernels\..*\.so", each) for each in found)
    tracked = {f"engines/embedded/tiny/{path.name}" for path in (ROOT / "engines/embedded/tiny").iterdir()}
    assert tracked <= found
    licences = [Path(each).name for each in found if ".dist-info/licenses/" in each]
    assert {"LICENSE", "LICENSE-flite", "LICENSE-hibari", "LICENSE-scowl", "LICENSE-wordnet"} <= set(licences)
    assert requirements(server) == {CLIENT}
    assert metadata(server)["Name"] == SERVER
    assert metadata(server)["Requires-Python"] == "<3.14,>=3.11"


@pytest.mark.parametrize("python", [None, *OTHER_PYTHONS], ids=["this", *(Path(each).name for each in OTHER_PYTHONS)])
def test_the_client_in_an_empty_environment(client: Path, tmp_path: Path, python: str | None):
    newcomer = Newcomer.arrive(tmp_path, python)
    newcomer.install(client)
    assert (
        newcomer.run("python", "-c", "import mynah; print(mynah.__version__, mynah.Client.__name__)")
        == f"{VERSION} Client\n"
    )
    assert "say" in newcomer.run("mynah", "--help")
    said = newcomer.run("mynah", "say", "Hello.", "--server", "127.0.0.1:9", "-o", "speech.wav", status=3)
    assert "Traceback" not in said
    assert not newcomer.command("mynah-serve").exists()


def test_the_server_serves_and_says_in_an_empty_environment(client: Path, server: Path, tmp_path: Path):
    newcomer = Newcomer.arrive(tmp_path)
    newcomer.install(client, server)
    for command, extra in COMMANDS.items():
        (said,) = newcomer.run(command, status=2).splitlines()
        assert f"pip install '{SERVER}[{extra}]'" in said
    assert "usage: mynah-keys" in newcomer.run("mynah-keys", "--help")
    newcomer.borrow()  # the extra cpu: torch is gigabytes on some indices
    where = newcomer.run(
        "python", "-c", "import engines, mynah, service; print(engines.__file__, mynah.__file__, service.__file__)"
    )
    assert all(each.startswith(str(tmp_path)) for each in where.split())
    kernels = "from engines.kernels.library import library; print(library() is not None)"
    assert newcomer.run("python", "-c", kernels) == "True\n"
    with serving(newcomer) as address:
        newcomer.run("mynah", "say", "Hello there.", "--server", address, "-o", "speech.wav")
        flags = ("--rate", "0.5", "--seconds", "4", "--bound", "60", "--json", "figures.json")
        newcomer.run("mynah-load", "--server", address, *flags, status=None)
        (trial,) = json.loads((newcomer.folder / "figures.json").read_text())["trials"]
        assert trial["streams"] > 0
        assert trial["errors"].keys() <= {"STREAMS_EXHAUSTED"}
    with wave.open(str(newcomer.folder / "speech.wav")) as speech:
        assert speech.getframerate() == 24_000
        assert 0.3 < speech.getnframes() / 24_000 < 5.0
        assert max(speech.readframes(speech.getnframes())) > 0


@contextmanager
def serving(newcomer: Newcomer) -> Iterator[str]:
    """The address of a server of the tiny model, as the installed command starts it."""
    command = [str(newcomer.command("mynah-serve")), "--model", "tiny", "--listen", "127.0.0.1:0", "--max-streams", "1"]
    running = subprocess.Popen(
        command,
        cwd=newcomer.folder,
        env=newcomer.variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert running.stdout is not None
        address = running.stdout.readline().split()[3]
        for line in running.stdout:
            if "serving after" in line:
                break
        else:
            raise AssertionError("the server ended before it served")
        yield address
    finally:
        running.terminate()
        assert running.wait(60) == 0
