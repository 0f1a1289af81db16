"""Bulk work on Kubernetes: the RayJob and its queue match their schemas, fit each other, and run what servers run."""

from __future__ import annotations

import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mynah.cli.main import parser
from service.bulk.engine import configuration
from tests.fleet.manifests import ROOT, Manifest, cluster, with_bulk
from tests.fleet.test_manifests import check_built_in, check_custom


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    return with_bulk("a10g")


@pytest.fixture(scope="module")
def job(manifests: list[Manifest]) -> Manifest:
    return one(manifests, "RayJob")


def one(manifests: list[Manifest], kind: str, name: str = "mynah") -> Manifest:
    (found,) = (m for m in manifests if m["kind"] == kind and (kind == "RayJob" or m["metadata"]["name"] == name))
    return found


def templates(job: Manifest) -> list[dict[str, Any]]:
    spec = job["spec"]["rayClusterSpec"]
    return [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]


def containers(job: Manifest) -> list[dict[str, Any]]:
    pods = [template["spec"] for template in templates(job)]
    return [container for pod in pods for container in [*pod.get("initContainers", []), *pod["containers"]]]


def test_the_job_and_its_queue_match_their_operators_schemas(manifests: list[Manifest], job: Manifest):
    custom = [job, one(manifests, "LocalQueue", "bulk")]
    assert {manifest["metadata"]["namespace"] for manifest in custom} == {"mynah"}
    check_custom(custom)
    broken = copy.deepcopy(job)
    broken["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replica"] = 2
    with pytest.raises(jsonschema.ValidationError, match="'replica' was unexpected"):
        check_custom([broken])


def test_its_pods_match_kubernetes_schema(job: Manifest, tmp_path: Path):
    files = []
    for index, template in enumerate(templates(job)):
        files.append(tmp_path / f"{index}.json")
        named = {**template, "metadata": {**template.get("metadata", {}), "name": "pod"}}
        files[-1].write_text(json.dumps({"apiVersion": "v1", "kind": "PodTemplate", "metadata": named["metadata"]} | {
            "template": template}))  # fmt: skip
    assert len(files) == 2
    check_built_in(files)


def test_its_containers_are_locked_and_set_up_as_the_server_s(manifests: list[Manifest], job: Manifest):
    pod = one(manifests, "Deployment")["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    for container in containers(job):
        assert container["image"] == f"{server['image']}-ray"
        assert container["securityContext"] == server["securityContext"]
        assert container["envFrom"] == server["envFrom"], "with the hash of the generated settings"
    for template in templates(job):
        assert template["spec"]["securityContext"] == pod["securityContext"]
        assert template["spec"]["enableServiceLinks"] is False
        assert template["spec"]["nodeSelector"] == pod["nodeSelector"], "of the architecture that the image has"
    claims = {m["metadata"]["name"] for m in manifests if m["kind"] == "PersistentVolumeClaim"}
    volumes = [volume for template in templates(job) for volume in template["spec"]["volumes"]]
    assert {v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v} == claims


def test_the_command_asks_for_the_engines_that_its_pods_hold(job: Manifest):
    program, *arguments = shlex.split(job["spec"]["entrypoint"])
    args = parser().parse_args(arguments)
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (engine,) = group["template"]["spec"]["containers"]
    assert (program, args.command, args.ray) == ("mynah", "batch", "auto")
    assert args.workers == group["replicas"] == group["minReplicas"] == group["maxReplicas"]
    assert args.worker_cpus == float(engine["resources"]["requests"]["cpu"])
    assert args.worker_gpus == engine["resources"]["limits"]["nvidia.com/gpu"]
    assert job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "no engine on the head"
    for url in (args.script, args.output):
        assert re.match(r"s3://[^/]+\.example/", url)


def test_engines_understand_the_overlay_s_settings(manifests: list[Manifest]):
    (settings,) = (m["data"] for m in manifests if m["kind"] == "ConfigMap" and "settings" in m["metadata"]["name"])
    config = configuration({}, jobs=32, threads=3, environment=settings)
    (engine,) = config.engine_configs()
    assert (engine.model, engine.device, engine.max_streams) == ("turbo", "cuda", 32)
    assert config.http_listen is None


def test_the_object_stores_are_within_the_memory_volumes(job: Manifest):
    spec = job["spec"]["rayClusterSpec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        (memory,) = (v["emptyDir"] for v in group["template"]["spec"]["volumes"] if v["name"] == "memory")
        assert memory["medium"] == "Memory"
        assert int(group["rayStartParams"]["object-store-memory"]) < 2**30 * number(memory["sizeLimit"])


def test_nothing_reaches_the_cluster_without_a_token(job: Manifest):
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_the_queue_has_quota_for_the_whole_job(manifests: list[Manifest], job: Manifest):
    label = job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    queue = one(manifests, "LocalQueue", label)
    quota = one(cluster(), "ClusterQueue", queue["spec"]["clusterQueue"])
    (resources,) = quota["spec"]["resourceGroups"]
    (flavor,) = resources["flavors"]
    one(cluster(), "ResourceFlavor", flavor["name"])
    assert quota["spec"]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "mynah"}
    has = {each["name"]: number(each["nominalQuota"]) for each in flavor["resources"]}
    head, worker = (template["spec"]["containers"][0]["resources"] for template in templates(job))
    replicas = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"]
    for name, most in has.items():
        asked = [number(each["requests"].get(name, 0)) for each in (head, worker)]
        assert asked[0] + replicas * asked[1] <= most
    assert set(has) == set(resources["coveredResources"])


def number(quantity: str | int) -> float:
    return float(str(quantity).removesuffix("Gi"))


def test_the_cluster_has_the_version_of_ray_that_is_tested(job: Manifest):
    (tested,) = re.findall(r"^ray==(.*)$", (ROOT / "tests/ray/requirements.txt").read_text(), re.MULTILINE)
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == tested
    assert f"ray[data,default]=={tested}\n" in (ROOT / "docker/locks/ray.in").read_text()


@pytest.mark.parametrize("flavour", ["cpu", "gpu"])
def test_the_image_has_the_head_s_http_server(flavour: str):
    """Without the packages of `ray[default]` Ray starts and has none: its probes fail, and no job can be submitted."""
    locks = [(ROOT / f"docker/locks/{name}.txt").read_text() for name in (flavour, f"{flavour}+ray")]
    has = {name for text in locks for name in re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE)}
    assert {"ray", "aiohttp", "aiohttp-cors", "colorful", "opencensus", "pydantic", "smart-open", "virtualenv"} <= has
