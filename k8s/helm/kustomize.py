"""What kustomize renders: the base with components, and the overlays."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

K8S = Path(__file__).parents[1]
OVERLAYS = ("a10g", "cpu", "dev")
NAMESPACE = "mynah"
Objects = dict[tuple[str, str], dict[str, Any]]  # by kind and name


@cache
def base(*components: str) -> Objects:
    """The base with components by the names of their folders. Raises CalledProcessError with kubectl's stderr."""
    document = {
        "namespace": NAMESPACE,
        "resources": ["../../base"],
        "components": [f"../../components/{name}" for name in components],
    }
    with TemporaryDirectory() as folder:
        shutil.copytree(K8S, Path(folder) / "k8s", ignore=shutil.ignore_patterns("helm", "dashboards/*.py"))
        overlay = Path(folder) / "k8s/overlays/one"
        overlay.mkdir()
        (overlay / "kustomization.yaml").write_text(yaml.safe_dump(document))
        return _rendered(overlay)


@cache
def overlay(name: str) -> Objects:
    return _rendered(K8S / "overlays" / name)


def components_of(name: str) -> list[str]:
    """The folders of the components that an overlay has."""
    document = yaml.safe_load((K8S / "overlays" / name / "kustomization.yaml").read_text())
    return [Path(path).name for path in document.get("components", [])]


def all_components() -> list[str]:
    return sorted(path.parent.name for path in K8S.glob("components/*/kustomization.yaml"))


def summary_of(component: str) -> str:
    """The comment with which a component's kustomization begins."""
    lines = (K8S / "components" / component / "kustomization.yaml").read_text().splitlines()
    comment = [line.removeprefix("# ") for line in lines[: next(i for i, line in enumerate(lines) if line[0] != "#")]]
    return " ".join(comment)


def keyed(manifests: list[dict[str, Any]]) -> Objects:
    """Manifests by kind and name, without the hash that kustomize puts behind the settings' name."""
    named = [replaced(manifest, r"^mynah-settings-[a-z0-9]{10}$", "mynah-settings") for manifest in manifests]
    return {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in named}


def replaced(node: Any, pattern: str, by: str) -> Any:
    """A manifest in which every string that the pattern finds is replaced there."""
    if isinstance(node, dict):
        return {key: replaced(value, pattern, by) for key, value in node.items()}
    if isinstance(node, list):
        return [replaced(item, pattern, by) for item in node]
    return re.sub(pattern, by, node) if isinstance(node, str) else node


def parsed(text: str) -> list[dict[str, Any]]:
    """The documents of a YAML text, by libyaml where that is installed: ten times faster."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(text, loader) if document is not None]


def _rendered(folder: Path) -> Objects:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], check=True, capture_output=True, text=True)
    return keyed(parsed(done.stdout))
