"""Every path, module and link that a document names exists, and docs/architecture.md names every room."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

import pytest

from tests.docs.pages import MODULE, ROOT, anchors_of, links_in, pages, paths_named_in, tracked

ARCHITECTURE = ROOT / "docs/architecture.md"
SOURCES = ("", "protos/")
TESTS = ("tests/", "k8s/", "clients/typescript/test/")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_names_exists(page: Path):
    names = [name.rstrip("/") for name in paths_named_in(page.read_text())]
    missing = [name for name in names if name not in tracked() and not fnmatch.filter(tracked(), name)]
    assert missing == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_repository_leads_somewhere(page: Path):
    broken = []
    for link in links_in(page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_module_that_a_page_runs_exists(page: Path):
    ours = {name.split("/")[0] for name in tracked()}
    modules = [name for name in MODULE.findall(page.read_text()) if name.split(".")[0] in ours]
    missing = [name for name in modules if not _is_module(name)]
    assert missing == []


def test_the_map_names_every_package():
    packages = {
        str(Path(name).parent)
        for name in tracked()
        if name.endswith("/__init__.py") and not name.startswith("tests/")
    }  # fmt: skip
    text = ARCHITECTURE.read_text()
    assert {package for package in packages if not re.search(rf"^{re.escape(package)}/ ", text, re.MULTILINE)} == set()


def test_each_change_of_the_map_names_a_file_and_the_test_that_covers_it():
    rows = changes(ARCHITECTURE.read_text())
    assert len(rows) >= 10
    for change, start, test in rows:
        assert paths_named_in(start), change
        assert all(name.startswith(TESTS) for name in paths_named_in(test)), change
        assert paths_named_in(test), change


def changes(text: str) -> list[list[str]]:
    """The rows of the table under "To change something, start here"."""
    section = text.split("## To change something, start here", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return rows[2:]


def _is_module(name: str) -> bool:
    path = name.replace(".", "/")
    return any(f"{at}{path}.py" in tracked() or f"{at}{path}/__main__.py" in tracked() for at in SOURCES)
