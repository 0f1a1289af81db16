"""The manifests: overlays build, match their schemas, are hardened, and set only options that the server has."""

from __future__ import annotations

import json
import os
import re
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path

import jsonschema
import pytest
import yaml

from service.config import read_config
from tests.fleet.manifests import (
    CUSTOM,
    OVERLAYS,
    ROOT,
    Manifest,
    cluster,
    custom,
    objects,
    of_kind,
    rendered,
    settings,
    with_components,
)

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
    check_built_in(files)
    assert len(plain) >= 8


@pytest.mark.parametrize("overlay", ["a10g", "cpu"])
def test_custom_resources_match_their_operators_schemas(overlay: str):
    assert {manifest["kind"] for manifest in custom(overlay)} == {
        "BackendTLSPolicy", "GRPCRoute", "HTTPRoute", "PrometheusRule", "ScaledObject", "ServiceMonitor",
    }  # fmt: skip
    check_custom(custom(overlay))


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
    assert secrets == {"tls", "keys", "hub"}
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
    assert scripts == {path.name for path in (ROOT / "docker").glob("*.sh")} - {"lock.sh", "pin.sh", "cve.sh"}
    steps = subprocess.run(["make", "-n", "image-steps"], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert not {script for script in scripts if f"docker/{script} " not in f"{steps} ".replace("\n", " ")}
    assert "stage image make image-steps" in (ROOT / ".ci" / "run").read_text().splitlines()


def test_baked_weights_have_a_writable_cache():
    """The image is read-only, and T3 on vLLM writes to the cache at every start."""
    manifests = {(m["kind"], m["metadata"]["name"].split("-")[-2:][0]): m for m in with_components("baked-weights")}
    pod = manifests["Deployment", "mynah"]["spec"]["template"]["spec"]
    (prepare,) = pod["initContainers"]
    mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    cache = manifests["ConfigMap", "settings"]["data"]["MYNAH_CACHE_DIR"]
    assert cache in mounts
    assert prepare["command"][-2:] == ["/opt/models/cache", cache]
    assert "args" not in prepare


@pytest.mark.parametrize("overlay", ["a10g", "cpu"])
def test_replicas_share_voices_and_models_by_default(overlay: str):
    """A voice that one replica has made must be found by the others, and weights are fetched once."""
    (deployment,) = of_kind(overlay, "Deployment")
    volumes = {volume["name"]: volume for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    claims = {claim["metadata"]["name"]: claim["spec"] for claim in of_kind(overlay, "PersistentVolumeClaim")}
    for name in ("voices", "models"):
        claim = volumes[name]["persistentVolumeClaim"]["claimName"]
        assert claims[claim]["accessModes"] == ["ReadWriteMany"]
        assert claims[claim]["storageClassName"] == "mynah-shared", "EKS from 1.30 on has no default class"


def test_every_cloud_has_the_storage_class_that_claims_name():
    classes = {path.parent.name: yaml.safe_load(path.read_text()) for path in ROOT.glob("k8s/cluster/*/storage.yaml")}
    assert classes.keys() == {"eks", "gke", "aks"}
    assert {one["metadata"]["name"] for one in classes.values()} == {"mynah-shared"}


def test_what_is_made_once_for_a_cluster_matches_its_schemas(tmp_path: Path):
    nodes = [manifest for manifest in cluster() if manifest["apiVersion"].split("/")[0] in CUSTOM]
    assert {manifest["kind"] for manifest in nodes} == {
        "NodePool", "EC2NodeClass", "ClusterQueue", "ResourceFlavor", "Gateway", "GatewayClass",
    }  # fmt: skip
    check_custom(nodes)
    files = []
    for index, manifest in enumerate(manifest for manifest in cluster() if manifest not in nodes):
        files.append(tmp_path / f"{index}.json")
        files[-1].write_text(json.dumps(manifest))
    check_built_in(files)


def test_the_gateway_of_the_guide_takes_the_overlays_routes_and_its_proxies_reach_the_servers():
    (gateway,) = (manifest for manifest in cluster() if manifest["kind"] == "Gateway")
    (listener,) = gateway["spec"]["listeners"]
    for route in of_kind("a10g", "GRPCRoute") + of_kind("a10g", "HTTPRoute"):
        (parent,) = route["spec"]["parentRefs"]
        assert (parent["namespace"], parent["name"]) == (gateway["metadata"]["namespace"], gateway["metadata"]["name"])
        assert parent["sectionName"] == listener["name"]
        admitted = listener["allowedRoutes"]["namespaces"]["selector"]["matchLabels"]
        assert admitted == {"kubernetes.io/metadata.name": route["metadata"]["namespace"]}
    guide = (ROOT / "docs/deploy-eks.md").read_text()
    (secret,) = listener["tls"]["certificateRefs"]
    assert f"kubectl -n {gateway['metadata']['namespace']} create secret tls {secret['name']} " in guide
    (installed,) = re.findall(r"gateway-helm \S+ \S+ -n (\S+)", guide)  # where Envoy Gateway runs its proxies
    (policy,) = of_kind("a10g", "NetworkPolicy")
    (label,) = (peer["namespaceSelector"]["matchLabels"] for peer in policy["spec"]["ingress"][0]["from"]
                if "namespaceSelector" in peer)  # fmt: skip
    ((name, value),) = label.items()
    assert f"kubectl label namespace {installed} {name}={value}\n" in guide


def test_the_gateway_has_a_route_for_every_path_of_the_api():
    (route,) = of_kind("a10g", "HTTPRoute")
    matches = [match["path"] for rule in route["spec"]["rules"] for match in rule["matches"]]
    paths = re.findall(r'Route\(\s*"(/[^"{]*)', (ROOT / "service/http/routes.py").read_text())
    assert len(paths) > 10
    for path in set(paths) - {"/healthz", "/readyz"}:  # which the kubelet asks, past the gateway
        within = {match["value"] for match in matches if match["type"] == "PathPrefix"}
        assert path in {match["value"] for match in matches} or any(path.startswith(f"{each}/") for each in within)


def test_optional_components_match_their_schemas():
    extra = with_components("gateway-envoy", "bucket-voices", "spot")
    (policy,) = (m for m in extra if m["kind"] == "BackendTrafficPolicy")
    check_custom([policy])
    routes = {(ref["kind"], ref["name"]) for ref in policy["spec"]["targetRefs"]}
    assert routes == {(m["kind"], m["metadata"]["name"]) for m in extra if m["kind"] in ("GRPCRoute", "HTTPRoute")}
    assert policy["spec"]["timeout"]["http"]["requestTimeout"] == "0s", "Envoy's is 15 s after the client's last text"


def test_spot_nodes_are_left_within_their_warning():
    manifests = with_components("spot")
    (deployment,) = (m for m in manifests if m["kind"] == "Deployment")
    (config,) = (m for m in manifests if m["metadata"]["name"].startswith("mynah-settings"))
    pod = deployment["spec"]["template"]["spec"]
    pre_stop_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace_s = read_config([], config["data"]).grace_s
    assert pre_stop_s + grace_s < pod["terminationGracePeriodSeconds"] < 120


def test_karpenters_nodes_are_those_that_the_overlay_accepts():
    pool = next(manifest for manifest in cluster() if manifest["kind"] == "NodePool")["spec"]["template"]["spec"]
    wanted = {r["key"]: set(r["values"]) for r in pool["requirements"]}
    (deployment,) = of_kind("a10g", "Deployment")
    template = deployment["spec"]["template"]
    assert template["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
    terms = template["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    accepted = [e for t in terms["nodeSelectorTerms"] for e in t["matchExpressions"] if "instance-type" in e["key"]]
    assert wanted["node.kubernetes.io/instance-type"] <= set(accepted[0]["values"])
    assert wanted["kubernetes.io/arch"] == {template["spec"]["nodeSelector"]["kubernetes.io/arch"]}
    tolerated = {toleration["key"] for toleration in template["spec"]["tolerations"]}
    assert {taint["key"] for taint in pool["taints"]} <= tolerated


def test_egress_reaches_private_endpoints_and_collectors_but_no_metadata_address():
    (policy,) = of_kind("a10g", "NetworkPolicy")
    blocks = [ip_network(peer["ipBlock"]["cidr"]) for rule in policy["spec"]["egress"] for peer in rule["to"]
              if "ipBlock" in peer and any(port["port"] == 443 for port in rule["ports"])]  # fmt: skip
    excepted = [ip_network(cidr) for rule in policy["spec"]["egress"] for peer in rule["to"]
                for cidr in peer.get("ipBlock", {}).get("except", [])]  # fmt: skip

    def reached(address: str) -> bool:
        one = ip_address(address)
        inside = [any(one in network for network in networks if network.version == one.version)
                  for networks in (blocks, excepted)]  # fmt: skip
        return inside == [True, False]

    assert all(map(reached, ("10.0.3.7", "192.168.1.9", "18.154.1.2", "2600:9000::1")))
    assert not any(map(reached, ("169.254.169.254", "fd00:ec2::254", "fe80::a9fe:a9fe")))
    assert 4317 in [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]]


def test_pods_with_a_bucket_reach_what_hands_out_their_rights_and_not_the_nodes():
    policies = [m for m in with_components("bucket-voices") if m["kind"] == "NetworkPolicy"]
    server, identity = sorted(policies, key=lambda policy: len(policy["metadata"]["name"]))
    selected = [policy["spec"]["podSelector"]["matchLabels"] for policy in (identity, server)]
    assert selected[0].items() <= selected[1].items()
    assert identity["spec"]["policyTypes"] == ["Egress"], "ingress stays as it was"
    (rule,) = identity["spec"]["egress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 80}]
    hosts = {peer["ipBlock"]["cidr"] for peer in rule["to"]}
    assert hosts == {"169.254.170.23/32", "fd00:ec2::23/128"}, "of EKS Pod Identity's agent, by its documentation"


def check_custom(manifests: list[Manifest]) -> None:
    """Against the operators' schemas: committed ones, else those of npm's packages."""
    schemas = {manifest["kind"]: HERE / "schemas" / f"{manifest['kind'].lower()}.json" for manifest in manifests}
    others = [manifest for manifest in manifests if not schemas[manifest["kind"]].exists()]
    for manifest in manifests:
        if manifest not in others:
            jsonschema.validate(manifest, json.loads(schemas[manifest["kind"]].read_text()))
    if others:
        command = ["node", HERE / "validate_crds.mjs"]
        done = subprocess.run(command, input=json.dumps(others), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def check_built_in(files: list[Path]) -> None:
    command = [TOOLS / "kubernetes-validate", "-k", "1.35", "--strict", "--quiet", *files]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
