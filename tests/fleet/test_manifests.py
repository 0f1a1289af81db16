"""The manifests: overlays build, match their schemas, are hardened, and set only options that the server has."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from service.config import read_config
from tests.fleet.manifests import OVERLAYS, ROOT, custom, objects, of_kind, rendered, settings

HERE = Path(__file__).parent
TOOLS = ROOT / ".venv-ui" / "bin"
SKIPPED_CHECKS = (
    "CKV_K8S_43",  # images by digest: the overlay names a placeholder registry
    "CKV_K8S_11",  # CPU limits: throttling causes underruns; the CPU request protects the neighbours
    "CKV_K8S_15",  # pull always: an image by digest or version does not change
)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_built_in_kinds_match_their_schemas(overlay: str, tmp_path: Path):
    plain = [manifest for manifest in objects(overlay) if manifest not in custom(overlay)]
    files = []
    for index, manifest in enumerate(plain):
        files.append(tmp_path / f"{index}.json")
        files[-1].write_text(json.dumps(manifest))
    command = [TOOLS / "kubernetes-validate", "-k", "1.33", "--strict", "--quiet", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(plain) >= 8


@pytest.mark.parametrize("overlay", ["a10g", "cpu"])
def test_custom_resources_match_their_operators_schemas(overlay: str):
    assert {manifest["kind"] for manifest in custom(overlay)} == {
        "BackendTLSPolicy", "GRPCRoute", "HTTPRoute", "PrometheusRule", "ScaledObject", "ServiceMonitor",
    }  # fmt: skip
    command = ["node", HERE / "validate_crds.mjs"]
    done = subprocess.run(command, input=json.dumps(custom(overlay)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_invalid_custom_resource_is_found():
    broken = json.loads(json.dumps(custom("a10g")))
    next(m for m in broken if m["kind"] == "ScaledObject")["spec"]["scaleTargetRef"]["name"] = 3
    done = subprocess.run(
        ["node", HERE / "validate_crds.mjs"], input=json.dumps(broken), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "scaleTargetRef/name must be string" in done.stdout


def test_hardening(tmp_path: Path):
    """One run of checkov for all files, because it takes a minute to start without network access."""
    for overlay in OVERLAYS:
        (tmp_path / f"{overlay}.yaml").write_text(rendered(overlay))
    (tmp_path / "Dockerfile").write_text((ROOT / "Dockerfile").read_text())
    skipped = ["--skip-check", ",".join(SKIPPED_CHECKS)]
    command = [TOOLS / "checkov", "-d", tmp_path, "--compact", "--quiet", "--skip-download", "-o", "json", *skipped]
    command += ["--framework", "kubernetes", "dockerfile"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "BC_SKIP_MAPPING": "TRUE"})
    reports = {report["check_type"]: report for report in json.loads(done.stdout)}
    assert reports.keys() == {"kubernetes", "dockerfile"}
    for report in reports.values():
        failed = [(check["check_id"], check["resource"]) for check in report["results"]["failed_checks"]]
        assert not failed
        assert report["summary"]["passed"] > 50


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_server_understands_every_setting(overlay: str, tmp_path: Path):
    """Unknown variables and bad values are start-up errors, so a typo here would be a pod that never starts."""
    config = read_config([], settings(overlay))
    (deployment,) = of_kind(overlay, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert config.listen == f"0.0.0.0:{ports['grpc']}"
    assert config.admin_listen == f"0.0.0.0:{ports['admin']}"
    assert config.http_listen == f"0.0.0.0:{ports['http']}"
    pre_stop_s = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    if overlay != "dev":
        assert pod["terminationGracePeriodSeconds"] > pre_stop_s + config.grace_s
        assert config.grace_s > 41  # the longest segment


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_network_policy_names_its_peers_without_this_apps_labels(overlay: str):
    """Kustomize adds the app's labels to every matchLabels, also of peers, which would exclude DNS and clients."""
    (policy,) = of_kind(overlay, "NetworkPolicy")
    rules = policy["spec"]["ingress"] + policy["spec"]["egress"]
    named = [peer for rule in rules for peer in rule.get("from") or rule.get("to", [])]
    peers = [peer["podSelector"] for peer in named if "podSelector" in peer]
    assert {e["key"] for peer in peers for e in peer["matchExpressions"]} == {"mynah.dev/client", "k8s-app"}
    assert all(peer.keys() == {"matchExpressions"} for peer in peers)


@pytest.mark.parametrize("overlay", ["a10g", "cpu"])
def test_no_service_declares_cleartext_for_a_server_with_tls(overlay: str):
    ports = {(s["metadata"]["name"], p["name"]): p for s in of_kind(overlay, "Service") for p in s["spec"]["ports"]}
    protocols = {at: port.get("appProtocol") for at, port in ports.items() if at[1] != "admin"}
    assert protocols == {("mynah", "grpc"): None, ("mynah", "http"): "https", ("mynah-servers", "grpc"): None}
    (policy,) = of_kind(overlay, "BackendTLSPolicy")
    (route,) = of_kind(overlay, "GRPCRoute")
    assert [ref["name"] for ref in policy["spec"]["targetRefs"]] == ["mynah"]
    assert policy["spec"]["validation"]["hostname"] in route["spec"]["hostnames"]


@pytest.mark.parametrize("overlay", ["a10g", "cpu"])
def test_tls_and_keys_come_from_secrets_and_probes_do_not_use_tls(overlay: str):
    (deployment,) = of_kind(overlay, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in server["volumeMounts"]}
    secrets = {volume["name"] for volume in pod["volumes"] if "secret" in volume}
    assert secrets == {"tls", "keys"}
    for setting, volume in (("TLS_CERTIFICATE", "tls"), ("TLS_KEY", "tls"), ("API_KEYS", "keys")):
        assert settings(overlay)[f"MYNAH_{setting}"].startswith(mounts[volume] + "/")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert "grpc" not in server[probe]
        assert server[probe]["httpGet"]["port"] == "admin"


def test_one_gpu_for_each_server_and_memory_that_fits_a_g5_xlarge():
    (deployment,) = of_kind("a10g", "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    for container in pod["containers"] + pod["initContainers"]:
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert int(container["resources"]["limits"]["memory"].removesuffix("Gi")) <= 14
        assert float(container["resources"]["requests"]["cpu"]) < 4
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_the_dockerfile_passes_hadolint():
    done = subprocess.run([TOOLS / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_run_step_of_the_image_is_a_script_that_ci_runs():
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
    runs = [re.sub(r"--mount=\S+", "", line).split()[1] for line in text.splitlines() if line.startswith("RUN ")]
    scripts = {Path(run).name for run in runs}
    assert scripts == {path.name for path in (ROOT / "docker").glob("*.sh")} - {"lock.sh"}
    steps = subprocess.run(["make", "-n", "image-steps"], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert not {script for script in scripts if f"docker/{script} " not in f"{steps} ".replace("\n", " ")}
    assert "stage image make image-steps" in (ROOT / ".ci" / "run").read_text().splitlines()


def test_baked_weights_have_a_writable_cache(tmp_path: Path):
    """The image is read-only, and T3 on vLLM writes to the cache at every start."""
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    overlay = tmp_path / "k8s/overlays/baked"
    overlay.mkdir()
    document = {"resources": ["../a10g"], "components": ["../../components/baked-weights"]}
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(document))
    done = subprocess.run(["kubectl", "kustomize", overlay], check=True, capture_output=True, text=True).stdout
    manifests = {(m["kind"], m["metadata"]["name"].split("-")[-2:][0]): m for m in yaml.safe_load_all(done)}
    pod = manifests["Deployment", "mynah"]["spec"]["template"]["spec"]
    (prepare,) = pod["initContainers"]
    mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    cache = manifests["ConfigMap", "settings"]["data"]["MYNAH_CACHE_DIR"]
    assert cache in mounts
    assert prepare["command"][-2:] == ["/opt/models/cache", cache]
    assert "args" not in prepare
