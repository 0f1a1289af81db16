"""Figures in Markdown: what stands between markers is made from docs/measured.json.

`<!-- measured: engine -->` ... `<!-- /measured -->` holds the table of that name from tables.md.
`<!-- measured: engine/ratios/peak_memory_mb -->0.38<!-- /measured -->` holds one figure.

In a table, `{engine/ratios/peak_memory_mb}` is a figure: a bench's name, then the way into its JSON. In a list the step
`streams=8` picks the entry with that value; an entry that a run did not reach is shown as "-". `{... <= 0.7}` is bold
where the goal is missed, `{... |.2f}` has a format, `{@engine}` says where the figures come from. Several runs of one
figure are a list, shown with commas.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.measured import Record

ROOT = Path(__file__).parents[2]
TABLES = Path(__file__).with_name("tables.md")
_BLOCK = re.compile(r"<!-- measured: ([^>]+?) -->(.*?)<!-- /measured -->", re.DOTALL)
_FIGURE = re.compile(r"\{(@?)([^{}|<]+?)(?: <= ([\d.]+))?(?: ?\|([^{}]+))?\}")
Records = Mapping[str, Record]


class UnknownFigure(KeyError):
    """A document names a table or a figure that is not recorded."""


def documents() -> list[Path]:
    """The pages that may quote figures."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("engines/embedded/*/*.md"))]
    return [page for page in pages if "<!-- measured: " in page.read_text()]


def templates(path: Path = TABLES) -> dict[str, str]:
    """The tables by their name, figures still in braces."""
    sections = re.split(r"^## (.+)\n", path.read_text(), flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(sections[::2], sections[1::2], strict=True)}


def filled(text: str, tables: Mapping[str, str], records: Records) -> str:
    """The document with every marked block made anew. Raises UnknownFigure."""

    def block(match: re.Match[str]) -> str:
        name = match[1]
        if "/" in name:
            body = table("{" + name + "}", records)
        elif name in tables:
            body = f"\n{table(tables[name], records)}\n"
        else:
            raise UnknownFigure(name)
        return f"<!-- measured: {name} -->{body}<!-- /measured -->"

    return _BLOCK.sub(block, text)


def table(template: str, records: Records) -> str:
    """The template with its figures filled in. Raises UnknownFigure."""

    def figure(match: re.Match[str]) -> str:
        provenance, path, goal, style = match.groups()
        if provenance:
            return origin(path, records)
        values = lookup(path, records)
        if values is None:
            return "-"
        runs = values if isinstance(values, list) else [values]
        shown = [_bold(text, value, goal) for text, value in zip(_texts(runs, style), runs, strict=True)]
        return ", ".join(shown)

    return _FIGURE.sub(figure, template)


def origin(name: str, records: Records) -> str:
    """Where a bench's figures come from, in one line."""
    if name not in records:
        raise UnknownFigure(name)
    record = records[name]
    return f"`{record.command}`, {record.date}, commit {record.commit}, {record.machine}"


def lookup(path: str, records: Records) -> Any:
    """Returns the figure at `bench/key/key`, None if the run did not reach it. Raises UnknownFigure."""
    name, *keys = path.split("/")
    try:
        value: Any = records[name].figures
        for key in keys:
            value = _entry(value, key) if isinstance(value, list) else value[key]
            if value is None:
                return None
    except KeyError as error:
        raise UnknownFigure(path) from error
    return value


def _entry(entries: list[dict[str, Any]], key: str) -> dict[str, Any] | None:
    field, _, wanted = key.partition("=")
    return next((entry for entry in entries if str(entry[field]) == wanted), None)


def _texts(runs: list[Any], style: str | None) -> list[str]:
    """Figures as they stand in the JSON, runs of one figure with equally many decimals."""
    if style is not None:
        return [format(value, style) for value in runs]
    decimals = max(len(str(value).partition(".")[2]) for value in runs)
    return [f"{value:.{decimals}f}" if isinstance(value, float) else str(value) for value in runs]


def _bold(text: str, value: float, goal: str | None) -> str:
    return f"**{text}**" if goal is not None and value > float(goal) else text
