"""The README and the unreleased part of the changelog stay short."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT


def test_the_readme_has_fewer_than_900_words():
    visible = re.sub(r"<!--.*?-->", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(visible.split()) < 900


def test_the_readme_has_one_table_of_figures():
    assert len(re.findall(r"<!-- measured: (?!\S*/)", (ROOT / "README.md").read_text())) == 1


def test_the_unreleased_version_has_at_most_15_lines():
    section = re.search(r"## \S+ \(unreleased\)\n(.*?)(?=\n## |\Z)", (ROOT / "CHANGELOG.md").read_text(), re.DOTALL)
    assert section is None or len(section[1].strip().splitlines()) <= 15
