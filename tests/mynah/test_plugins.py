"""The plugins in `clients` import their framework and `mynah` alone, and say which versions they need."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import mynah

CLIENTS = Path(__file__).parents[2] / "clients"
FRAMEWORKS = {"livekit-plugins-mynah": ("livekit", "livekit-agents"), "pipecat-mynah": ("pipecat", "pipecat-ai")}


def sources(name: str) -> list[Path]:
    """The plugin's files, without those that an installation left in `build`."""
    folder = CLIENTS / name
    return [path for path in folder.rglob("*.py") if "build" not in path.relative_to(folder).parts]


def imports_of(name: str) -> Iterator[tuple[str, str]]:
    """File and name of each absolute import."""
    for path in sources(name):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((path.name, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                yield path.name, node.module or ""


def test_every_plugin_is_listed_here():
    assert {path.parent.name for path in CLIENTS.glob("*/pyproject.toml")} == set(FRAMEWORKS)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_plugin_imports_its_framework_and_the_client(name: str):
    own = "pipecat_mynah"
    allowed = {*sys.stdlib_module_names, FRAMEWORKS[name][0], "mynah", own}
    found = list(imports_of(name))
    assert ("tts.py", "mynah") in found
    assert [each for each in found if each[1].split(".")[0] not in allowed] == []
    assert [each for each in found if each[1].startswith("mynah.")] == [], "only what mynah exports"


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_plugin_uses_names_that_the_client_exports(name: str):
    used = set()
    for path in sources(name):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "mynah":
                used.add(node.attr)
    assert {"Client", "MynahError"} <= used
    assert used <= set(mynah.__all__)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_plugin_is_a_package_of_its_own(name: str):
    project = tomllib.loads((CLIENTS / name / "pyproject.toml").read_text())["project"]
    needs = [requirement.split(">")[0] for requirement in project["dependencies"]]
    assert (project["name"], needs) == (name, [FRAMEWORKS[name][1], "mynah-speech"])
    (package,) = (path for path in sources(name) if path.name == "__init__.py")
    assert f'__version__ = "{project["version"]}"' in package.read_text()
    assert (CLIENTS / name / project["readme"]).exists()
