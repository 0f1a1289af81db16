"""One tree of what kustomize renders with and without each component: where they differ, a choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MISSING: Any = object()


@dataclass(frozen=True)
class Named:
    """A list of objects that Kubernetes merges by their names."""

    items: dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """A node that a component changes. Either side may be MISSING."""

    component: str
    on: Any
    off: Any


@dataclass(frozen=True)
class Slot:
    """A node that a value replaces: `text` is the template of a scalar, or `path` names a value of any shape.

    With `when`, a template's condition, the node is left out where that does not hold.
    """

    text: str = ""
    path: str = ""
    when: str = ""


class Conflict(Exception):
    """Two components change the same node, so that the chart could not switch them alone."""


def tree(manifest: Any) -> Any:
    """A manifest whose lists of named objects can be merged by name."""
    if isinstance(manifest, dict):
        return {key: tree(value) for key, value in manifest.items()}
    if isinstance(manifest, list):
        named = {item["name"]: tree(item) for item in manifest if isinstance(item, dict) and "name" in item}
        if manifest and len(named) == len(manifest):
            return Named(named)
        return [tree(item) for item in manifest]
    return manifest


def changed(merged: Any, base: Any, new: Any, component: str) -> Any:
    """`merged`, in which every node that differs between `base` and `new` is a choice by the component.

    Raises Conflict.
    """
    if base == new:
        return merged
    if isinstance(base, Named) and isinstance(new, Named) and isinstance(merged, Named):
        return Named(_changed_map(merged.items, base.items, new.items, component))
    if isinstance(base, dict) and isinstance(new, dict) and isinstance(merged, dict):
        return _changed_map(merged, base, new, component)
    if merged != base:
        raise Conflict(f"the component {component} changes what another one changes: {new!r}")
    return Choice(component, new, merged)


def _changed_map(
    merged: dict[str, Any], base: Mapping[str, Any], new: Mapping[str, Any], component: str
) -> dict[str, Any]:
    result = dict(merged)
    for key in [*base, *(key for key in new if key not in base)]:
        node = changed(merged.get(key, MISSING), base.get(key, MISSING), new.get(key, MISSING), component)
        if node is not MISSING:
            result[key] = node
    return result


def placed(node: Any, path: tuple[str, ...], slot: Slot) -> Any:
    """`node` with a slot at a path. Behind a choice it is in the side without the component."""
    if isinstance(node, Choice):
        return Choice(node.component, node.on, placed(node.off, path, slot))
    if not path:
        return slot
    key, rest = path[0], path[1:]
    children = node.items if isinstance(node, Named) else ({} if node is MISSING else node)
    below = {**children, key: placed(children.get(key, MISSING), rest, slot)}
    return Named(below) if isinstance(node, Named) else below


def at(node: Any, path: tuple[str, ...]) -> Any:
    """The node at a path, or MISSING."""
    for key in path:
        children = node.items if isinstance(node, Named) else node
        if not isinstance(children, dict) or key not in children:
            return MISSING
        node = children[key]
    return node


def plain(node: Any) -> Any:
    """A node without choices and slots as a manifest has it."""
    if isinstance(node, Named):
        return [plain(item) for item in node.items.values()]
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    return [plain(item) for item in node] if isinstance(node, list) else node
