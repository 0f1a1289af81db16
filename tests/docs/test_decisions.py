"""Decision records: numbered without gaps, short, of one form, all in the index, links to what supersedes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

FOLDER = ROOT / "docs/decisions"
RECORDS = sorted(FOLDER.glob("[0-9]*.md"))
MAX_LINES = 40


def test_numbers_have_no_gap():
    assert [int(record.name[:4]) for record in RECORDS] == list(range(1, len(RECORDS) + 1))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name[:4])
def test_a_record_has_status_date_context_decision_and_consequences_in_few_lines(record: Path):
    text = record.read_text()
    assert len(text.splitlines()) <= MAX_LINES
    assert text.startswith(f"# {record.name[:4]}. ")
    status = text.split("\n\n")[1]
    assert re.match(r"Status: (accepted|superseded)", status)
    assert re.search(r"· 20\d\d-\d\d-\d\d$", status)
    assert "superseded" not in status or re.search(r"\(\d{4}-[\w-]+\.md\)", status)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]


def test_the_index_lists_every_record_once():
    listed = re.findall(r"^- \[(\d{4})\]\((\S+)\)", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert sorted(name for _, name in listed) == [record.name for record in RECORDS]
    assert all(name.startswith(number) for number, name in listed)
