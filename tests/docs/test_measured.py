"""Figures: a bench's documented run is recorded, and the documents' tables are what docs/measured.json says."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.measured import COMMANDS, Record, is_documented, load, record
from engines.config import SCHEDULE_NAMES
from tests.docs.pages import ROOT
from tools.measured.documents import UnknownFigure, documents, filled, lookup, origin, table, templates

FAKE = {"ratios": {"t3": 0.3541, "memory": [0.7, 0.68]}, "crowds": [{"streams": 8, "ttfa_s": 0.83}]}
RECORDS = {"engine": Record("make bench-engine", "abc1234", "2026-11-29", "a CPU, 2 cores", FAKE)}
DECIMAL = re.compile(r"\d\.\d")


@pytest.mark.parametrize("page", documents(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_document_says_what_was_measured(page: Path):
    text = page.read_text()
    assert filled(text, templates(), load()) == text, "run python -m tools.measured"


@pytest.mark.parametrize("name", ["README.md", "docs/performance.md"])
def test_no_table_of_figures_stands_outside_the_markers(name: str):
    text = re.sub(r"<!-- measured: .*?<!-- /measured -->", "", (ROOT / name).read_text(), flags=re.DOTALL)
    assert [line for line in text.splitlines() if line.startswith("|") and DECIMAL.search(line)] == []


def test_every_record_has_its_origin():
    records = load()
    assert records.keys() >= COMMANDS.keys()
    for made in records.values():
        assert made.command.startswith("make ")
        assert re.fullmatch(r"[0-9a-f]{7,}\+?", made.commit)
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", made.date)
        assert made.machine
        assert made.figures


def test_every_table_can_be_made():
    for template in templates().values():
        assert "{" not in table(template, load())


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_tables_name_figures_as_the_bench_does(name: str):
    """Otherwise the next run of the bench would leave a table without its figures."""
    # Measured stands in bench/service.py, the GPUs' names beside their data
    others = {"http": ["bench/service.py"], "plan": ["engines/planning/gpus.py"]}.get(name, [])
    sources = [f"bench/{name}.py", *others]
    patterns = [pattern for source in sources for pattern in names_in((ROOT / source).read_text())]
    for path in re.findall(rf"\{{{name}/([^{{}}|<]+)", "\n".join(templates().values())):
        for key in path.strip().split("/"):
            assert any(re.fullmatch(pattern, key.split("=")[0]) for pattern in patterns), f"{name}/{path}: {key}"


def test_a_record_replaces_the_one_of_its_bench_alone(tmp_path: Path):
    path = tmp_path / "measured.json"
    record("engine", FAKE, path=path)
    record("service", {"refusal": {"p50_ms": 2.6}}, path=path)
    made = record("engine", {"ratios": {"t3": 0.3}}, path=path)
    assert load(path)["engine"] == made
    assert load(path)["service"].figures == {"refusal": {"p50_ms": 2.6}}
    assert made.command == "make bench-engine"
    assert re.fullmatch(r"([0-9a-f]{7,}|unknown)\+?", made.commit)
    assert re.search(r", \d+ cores$", made.machine)


def test_a_documented_run_of_a_bench_is_recorded(tmp_path: Path):
    recorded = publish(tmp_path, "engine", [])
    assert recorded["engine"]["figures"] == FAKE


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("engine", ["--model", "random:turbo"]), ("soak", []), ("speech", []), ("service", ["--seconds", "1"])],
)
def test_another_run_is_not_recorded(tmp_path: Path, name: str, arguments: list[str]):
    assert publish(tmp_path, name, arguments) == {}


def test_the_makefile_runs_the_benches_as_documented():
    makefile = (ROOT / "Makefile").read_text()
    for name, command in COMMANDS.items():
        assert re.search(rf"^{command.removeprefix('make ')}:", makefile, re.MULTILINE)
        assert re.search(rf"-m bench\.{name}\b", makefile)
    assert is_documented("speech", ["--model", "tiny"])


def test_figures_are_shown_with_goal_format_and_runs():
    assert table("{engine/ratios/t3}", RECORDS) == "0.3541"
    assert table("{engine/ratios/t3 |.2f} s", RECORDS) == "0.35 s"
    assert table("{engine/ratios/memory <= 0.69}", RECORDS) == "**0.70**, 0.68"
    assert table("{engine/ratios/t3 <= 0.3|.2f}", RECORDS) == "**0.35**"
    assert table("{engine/crowds/streams=8/ttfa_s}", RECORDS) == "0.83"
    assert table("{engine/crowds/streams=10/ttfa_s}", RECORDS) == "-"
    assert origin("engine", RECORDS) == "`make bench-engine`, 2026-11-29, commit abc1234, a CPU, 2 cores"


def test_a_document_is_filled_between_its_markers_and_only_there():
    text = (
        "a <!-- measured: engine/ratios/t3 -->9<!-- /measured --> b\n<!-- measured: one -->\nold\n<!-- /measured -->\n"
    )
    new = filled(text, {"one": "| {engine/ratios/t3|.1f} |"}, RECORDS)
    assert new == text.replace("9", "0.3541").replace("old", "| 0.4 |")
    assert filled(new, {"one": "| {engine/ratios/t3|.1f} |"}, RECORDS) == new


@pytest.mark.parametrize("path", ["stream/seams", "engine/ratios/s3gen", "engine/crowds/voices=8/ttfa_s"])
def test_an_unknown_figure_is_an_error(path: str):
    with pytest.raises(UnknownFigure):
        lookup(path, RECORDS)


def names_in(source: str) -> list[str]:
    """Patterns of the names that a program can give to figures: strings, f-strings and fields."""
    patterns = [re.escape(name) for name in SCHEDULE_NAMES]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            patterns.append(re.escape(node.value))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            patterns.append(node.target.id)
        elif isinstance(node, ast.JoinedStr) and any(isinstance(part, ast.Constant) for part in node.values):
            parts = [re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".+" for p in node.values]
            patterns.append("".join(parts))
    return patterns


def publish(folder: Path, name: str, arguments: list[str]) -> dict[str, Any]:
    """What a bench that found FAKE leaves in its measured.json."""
    path = folder / "measured.json"
    report.publish(name, "a table", FAKE, arguments=arguments, build=folder, measured=path)
    assert json.loads((folder / f"{name}.json").read_text()) == {"bench": name, **FAKE}
    return json.loads(path.read_text()) if path.exists() else {}
