"""The overlays as kubectl renders them, and the parts that tests need."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from k8s.helm.kustomize import parsed

ROOT = Path(__file__).parents[2]
OVERLAYS = ("a10g", "cpu", "dev")
CUSTOM = (
    "gateway.envoyproxy.io", "gateway.networking.k8s.io", "karpenter.k8s.aws", "karpenter.sh", "keda.sh",
    "kueue.x-k8s.io", "monitoring.coreos.com", "ray.io",
)  # fmt: skip
Manifest = dict[str, Any]


@cache
def rendered(overlay: str) -> str:
    """Renders an overlay as YAML. Raises CalledProcessError with kubectl's stderr."""
    command = ["kubectl", "kustomize", str(ROOT / "k8s" / "overlays" / overlay)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def objects(overlay: str) -> list[Manifest]:
    return parsed(rendered(overlay))


def with_components(*names: str) -> list[Manifest]:
    """The a10g overlay with more components, as an operator adds them."""
    with TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "k8s", Path(folder) / "k8s", ignore=shutil.ignore_patterns("helm"))
        overlay = Path(folder) / "k8s/overlays/with"
        overlay.mkdir()
        components = [f"../../components/{name}" for name in names]
        document = {"namespace": "mynah", "resources": ["../a10g"], "components": components}
        (overlay / "kustomization.yaml").write_text(yaml.safe_dump(document))
        done = subprocess.run(["kubectl", "kustomize", overlay], check=True, capture_output=True, text=True)
    return parsed(done.stdout)


def with_bulk(overlay: str) -> list[Manifest]:
    """An overlay with the component `bulk` among its own, whose image and settings it shares."""
    with TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "k8s", Path(folder) / "k8s", ignore=shutil.ignore_patterns("helm"))
        at = Path(folder) / "k8s/overlays" / overlay
        document = yaml.safe_load((at / "kustomization.yaml").read_text())
        document["components"].append("../../components/bulk")
        (at / "kustomization.yaml").write_text(yaml.safe_dump(document))
        done = subprocess.run(["kubectl", "kustomize", at], check=True, capture_output=True, text=True)
    return parsed(done.stdout)


def cluster() -> list[Manifest]:
    """What `kubectl apply` makes once for a cluster: storage classes, node pools and queues."""
    found = [m for path in sorted((ROOT / "k8s/cluster").glob("*/*.yaml")) for m in parsed(path.read_text())]
    return [m for m in found if m.get("apiVersion", "eksctl.io").split("/")[0] != "eksctl.io"]


def of_kind(overlay: str, kind: str) -> list[Manifest]:
    return [manifest for manifest in objects(overlay) if manifest["kind"] == kind]


def custom(overlay: str) -> list[Manifest]:
    """The custom resources, which kubernetes-validate has no schema for."""
    return [manifest for manifest in objects(overlay) if manifest["apiVersion"].split("/")[0] in CUSTOM]


def settings(overlay: str) -> dict[str, str]:
    """The server's environment."""
    (config,) = (m for m in of_kind(overlay, "ConfigMap") if m["metadata"]["name"].startswith("mynah-settings"))
    return dict(config["data"])


def rules() -> Manifest:
    """The rule groups, as in a Prometheus rule file."""
    manifest = yaml.safe_load((ROOT / "k8s/components/monitoring/rules.yaml").read_text())
    return dict(manifest["spec"])


def dashboards() -> dict[str, Manifest]:
    folder = ROOT / "k8s/components/monitoring/dashboards"
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def expressions() -> dict[str, str]:
    """Every dashboard query by "dashboard: panel refId"."""
    return {
        f"{name}: {panel['title']} {panel['id']}{target['refId']}": target["expr"]
        for name, board in dashboards().items()
        for panel in board["panels"]
        for target in panel.get("targets", [])
    }
