"""Finds words that make English hard to read: in documents, docstrings, messages, the page and the contract."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.docs.pages import ROOT, tracked

# What to write instead: a noun phrase that names the thing, and a verb in the active voice.
WORDS = {
    "whoever": r"\bwho(m|so)?ever\b",
    "whom": r"\bwhom\b",
    "nobody": r"\bnobody\b",
    "told": r"\btold\b",
    "what is there": r"\bwhat (is|was) there\b|\bwhat there is\b",
    "so many": r"\bso many\b",
    "what is no": r"\bwhat (is|are|was|were) no\b",
    "is no X that": r"\b(is|are|was|were) no [\w-]+ (that|which|who)\b",
    "hears": r"(?<!listener )\bhears\b",
    "gift": r"\bgifts?\b",
    "doorman": r"\bdoorm[ae]n\b|\bthe door\b",
}
PATTERN = re.compile("|".join(f"(?P<_{i}>{pattern})" for i, pattern in enumerate(WORDS.values())), re.IGNORECASE)
PACKAGES = ("engines/", "service/", "protos/mynah/", "ui/", "bench/", "clients/")
EXCEPTIONS = Path(__file__).with_name("prose_exceptions.txt")


@dataclass(frozen=True)
class Hit:
    """A word to avoid, and the line that it stands on."""

    path: str
    line: int
    word: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word}: {self.text}"


@dataclass(frozen=True)
class Allowance:
    """A line of a file that may keep its word, with the reason."""

    path: str
    phrase: str
    reason: str

    def covers(self, hit: Hit) -> bool:
        return hit.path == self.path and self.phrase in hit.text


def exceptions() -> list[Allowance]:
    """The stated exceptions: path, phrase and reason, with tabs between."""
    lines = [line for line in EXCEPTIONS.read_text().splitlines() if line and not line.startswith("#")]
    return [Allowance(*line.split("\t")) for line in lines]


@cache
def hits() -> tuple[Hit, ...]:
    """Every word to avoid in the repository's English."""
    return tuple(hit for path in sorted(tracked()) for hit in hits_in(path))


def hits_in(path: str) -> list[Hit]:
    """The words to avoid in one file."""
    reader = _reader(path)
    return list(words_in(path, reader((ROOT / path).read_text()))) if reader else []


def words_in(path: str, lines: Iterator[tuple[int, str]]) -> Iterator[Hit]:
    names = list(WORDS)
    for number, text in lines:
        for match in PATTERN.finditer(re.sub(r"`[^`]*`", "``", text)):
            yield Hit(path, number, names[int(str(match.lastgroup)[1:])], text.strip())


def python_prose(source: str) -> Iterator[tuple[int, str]]:
    """Lines of docstrings and of strings that hold more than one word, parts of f-strings included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            for offset, line in enumerate(node.value.splitlines()):
                yield node.lineno + offset, line


def markdown_prose(source: str) -> Iterator[tuple[int, str]]:
    """Lines outside fenced code."""
    fenced = False
    for number, line in enumerate(source.splitlines(), 1):
        fenced ^= line.startswith("```")
        if not fenced:
            yield number, line


def javascript_prose(source: str) -> Iterator[tuple[int, str]]:
    """String literals and comments."""
    token = re.compile(r"//[^\n]*|/\*.*?\*/|\"[^\"\n]*\"|'[^'\n]*'|`[^`]*`", re.DOTALL)
    for match in token.finditer(source):
        for offset, line in enumerate(match[0].splitlines()):
            yield source.count("\n", 0, match.start()) + 1 + offset, line.replace("`", "")


def proto_comments(source: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(source.splitlines(), 1):
        if "//" in line:
            yield number, line[line.index("//") :]


def every_line(source: str) -> Iterator[tuple[int, str]]:
    yield from enumerate(source.splitlines(), 1)


def _reader(path: str):  # type: ignore[no-untyped-def]
    if path.endswith(".md"):
        return markdown_prose
    if not path.startswith(PACKAGES) or "_pb2" in path or "/gen/" in path:
        return None
    readers = {".py": python_prose, ".html": every_line, ".proto": proto_comments}
    readers |= dict.fromkeys((".js", ".ts"), javascript_prose)
    return readers.get(Path(path).suffix)
