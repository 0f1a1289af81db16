"""Renders a chart by Helm's own library: a JSON request on standard input, a JSON answer on standard output.

Runs in the page's environment, as the other tools of these tests.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import helm_python


def main() -> None:
    """The request: `chart`, `namespace`, and `cases`, each a list of values that override those before. The answer has
    for each case its manifests by template, or the error as text."""
    request = json.load(sys.stdin)
    with helm_python.Chart.load(request["chart"]) as chart:
        answers = [_rendered(chart, case, request["namespace"]) for case in request["cases"]]
    findings = (
        [helm_python.lint(request["chart"], _merged(case)) for case in request["cases"]] if request["lint"] else []
    )
    archive = helm_python.package(request["chart"], destination=request["package"]) if request["package"] else ""
    json.dump({"answers": answers, "findings": findings, "archive": Path(archive).name}, sys.stdout)


def _rendered(chart: helm_python.Chart, case: list[dict[str, Any]], namespace: str) -> dict[str, str] | str:
    values = _merged(case)
    try:
        chart.validate_schema(values)
        return chart.render(values, name="speech", namespace=namespace)
    except helm_python.HelmError as error:
        return str(error)


def _merged(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """As Helm merges several files of values: maps by their keys, all else whole."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            inner = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = _merged([merged[key], value]) if inner else value
    return merged


if __name__ == "__main__":
    main()
