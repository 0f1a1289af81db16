"""A merged tree as the text of a Helm template: YAML in block style with `if`, `with` and values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from k8s.helm.merged import MISSING, Choice, Named, Slot


def template(manifest: dict[str, Any], component: str | None = None) -> str:
    """The template of one object, which exists only with `component` if that is given."""
    lines = list(_map(manifest, 0))
    if component is not None:
        lines = [_if(component, 0), *lines, "{{- end }}"]
    return "\n".join(lines) + "\n"


def _map(node: dict[str, Any], indent: int) -> Iterator[str]:
    for key, value in node.items():
        yield from _entry(key, value, indent)


def _entry(key: str, value: Any, indent: int) -> Iterator[str]:
    pad = " " * indent
    name = _scalar(key)
    match value:
        case Choice():
            yield from _choice(value, indent, lambda side: _entry(key, side, indent))
        case Slot():
            shown = value.text or f"{{{{- toYaml .Values.{value.path} | nindent {indent + 2} }}}}"
            condition = (f"{pad}{{{{- if {value.when} }}}}", f"{pad}{{{{- end }}}}") if value.when else ()
            yield from condition[:1]
            yield from [f"{pad}{name}: {shown}"] if value.text else [f"{pad}{name}:", f"{pad}  {shown}"]
            yield from condition[1:]
        case Named():
            yield f"{pad}{name}:"
            for item in value.items.values():
                yield from _item(item, indent + 2)
        case dict() if value:
            yield f"{pad}{name}:"
            yield from _map(value, indent + 2)
        case list() if value and any(isinstance(item, dict | list) for item in value):
            yield f"{pad}{name}:"
            for item in value:
                yield from _item(item, indent + 2)
        case _:
            yield f"{pad}{name}: {_scalar(value)}"


def _item(item: Any, indent: int) -> Iterator[str]:
    """An item of a list, with its first key, which is its name if it has one, behind the dash."""
    if isinstance(item, Choice):
        yield from _choice(item, indent, lambda side: _item(side, indent))
        return
    if not isinstance(item, dict):
        yield f"{' ' * indent}- {_scalar(item)}"
        return
    named = {"name": item["name"], **item} if "name" in item else item
    first, *rest = _map(named, indent + 2)
    yield " " * indent + "- " + first[indent + 2 :]
    yield from rest


def _choice(choice: Choice, indent: int, written: Any) -> Iterator[str]:
    pad = " " * indent
    if choice.on is MISSING:
        yield f"{pad}{{{{- if not .Values.components.{choice.component} }}}}"
        yield from written(choice.off)
    else:
        yield _if(choice.component, indent)
        yield from written(choice.on)
        if choice.off is not MISSING:
            yield f"{pad}{{{{- else }}}}"
            yield from written(choice.off)
    yield f"{pad}{{{{- end }}}}"


def _if(component: str, indent: int) -> str:
    return f"{' ' * indent}{{{{- if .Values.components.{component} }}}}"


def _scalar(value: Any) -> str:
    """A value on one line; a string in quotes where YAML would read something else. Raises ValueError for braces."""
    if isinstance(value, str):
        if "{{" in value:
            raise ValueError(f"{value!r} would be read as a template")
        plain = yaml.safe_dump(value, width=10_000).removesuffix("\n...\n").strip()
        return plain if "\n" not in plain else json.dumps(value)
    return json.dumps(value)
