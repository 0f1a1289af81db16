"""The repository's public documents, and what they refer to."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
MODULE = re.compile(r"python -m ([a-z_][\w.]*)")


@cache
def tracked() -> frozenset[str]:
    """Every file of the repository that git knows or would add, and their folders."""
    listing = subprocess.run(
        ("git", "ls-files", "--cached", "--others", "--exclude-standard"),
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    files = {name for name in listing.splitlines() if (ROOT / name).exists()}
    return frozenset(files | {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."})


@cache
def pages() -> tuple[Path, ...]:
    """All Markdown documents."""
    return tuple(sorted(ROOT / name for name in tracked() if name.endswith(".md")))


def paths_named_in(text: str) -> list[str]:
    """What looks like a path of this repository: in backticks, first on a line, in a diagram."""
    rooms = {name.split("/")[0] for name in tracked()}
    tokens = [token for code in CODE.findall(text) for token in code.split()]
    tokens += re.findall(r"^([\w.-]+/[\w./*-]*)(?:\s|$)", text, re.MULTILINE)
    diagrams = re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL)
    tokens += [token for diagram in diagrams for token in re.findall(r"\b[\w.-]+/[\w./-]*\w", diagram)]
    return [
        token for token in tokens if "/" in token and token.split("/")[0] in rooms and re.fullmatch(r"[\w./*-]+", token)
    ]


def links_in(text: str) -> list[str]:
    """Targets of links inside the repository."""
    return [target for target in LINK.findall(text) if "://" not in target]


def anchors_of(page: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    anchors, counts = set(), {}
    for heading in re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        counts[slug] = counts.get(slug, -1) + 1
        anchors.add(f"{slug}-{counts[slug]}" if counts[slug] else slug)
    return anchors
