"""The release workflow, the pinned images and the statements about vulnerabilities, as far as they can be checked
without a forge."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packages.clean_environment import ROOT, run

WORKFLOW = ROOT / ".github/workflows/release.yml"
PIN, DOCKERFILE, VEX = ROOT / "docker/pin.sh", ROOT / "Dockerfile", ROOT / "docker/vllm.openvex.json"
DIGEST, SYNTAX_DIGEST = "sha256:" + "0123456789abcdef" * 4, "sha256:" + "fedcba9876543210" * 4
PINNED = (f"docker/dockerfile:1@{SYNTAX_DIGEST}", f"python:3.11@{DIGEST}")
JUSTIFICATIONS = {"vulnerable_code_not_in_execute_path", "vulnerable_code_cannot_be_controlled_by_adversary"}


@cache
def jobs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    return found


def steps(**holding: str) -> list[dict[str, Any]]:
    """The steps of all jobs whose `uses` or `run` has a text in it."""
    ((key, text),) = holding.items()
    return [step for job in jobs().values() for step in job["steps"] if text in step.get(key, "")]


def test_the_workflow_is_of_its_schema():
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", WORKFLOW)


def test_the_workflow_has_no_weakness_that_zizmor_knows():
    run(Path(sys.executable).with_name("zizmor"), "--offline", "--no-progress", WORKFLOW)


def test_actions_are_pinned_by_commit_with_their_version():
    used = re.findall(r"uses: (.*)", WORKFLOW.read_text())
    assert len(used) > 20
    assert [each for each in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+\.\d+)?", each)] == []


def test_nothing_is_published_but_for_a_tag_and_by_no_stored_secret():
    text = WORKFLOW.read_text()
    assert set(re.findall(r"secrets\.(\w+)", text)) == {"GITHUB_TOKEN"}
    publishing = {name for name in jobs() if name.startswith("publish-")}
    assert publishing == {"publish-images", "publish-python", "publish-npm", "publish-chart"}
    for name, job in jobs().items():
        writes = {scope for scope, access in job["permissions"].items() if access == "write"}
        if name in publishing:
            assert job["if"] == "github.ref_type == 'tag'"
            assert "id-token" in writes  # the identity that signs
        else:
            assert writes <= ({"packages"} if name == "image" else set())
    (push,) = (step for step in steps(uses="docker/build-push-action") if "push=" in step["with"]["outputs"])
    assert push["with"]["outputs"].endswith("push=${{ github.ref_type == 'tag' }}")


def test_everything_that_is_published_is_attested():
    attested = {name for name, job in jobs().items() if any("attest-" in step.get("uses", "") for step in job["steps"])}
    assert attested == {"publish-images", "publish-python", "publish-chart"}
    assert "--provenance" in steps(run="npm publish")[0]["run"]
    assert steps(uses="docker/build-push-action")[0]["with"]["provenance"] == "mode=max"


def test_a_release_builds_from_pinned_images_alone():
    assert any(step.get("run") == "docker/pin.sh --check" for step in jobs()["check"]["steps"])
    assert "check" in jobs()["image"]["needs"]
    subprocess.run([PIN, "--check"], check=True)
    for step in steps(uses="docker/build-push-action"):
        assert "PYTHON_IMAGE" not in step["with"]["build-args"], "which would take the place of the pinned one"


def test_every_image_that_an_overlay_names_is_published():
    published = set(jobs()["publish-images"]["strategy"]["matrix"]["image"])
    built = jobs()["image"]["strategy"]["matrix"]["include"]
    assert {each["image"] for each in built} == published
    for each in built:
        assert each["image"] == "-".join(filter(None, (each["flavour"], each.get("add"))))
        assert (ROOT / f"docker/locks/{'+'.join(each['image'].split('-'))}.txt").is_file()
    overlays = [yaml.safe_load(path.read_text()) for path in ROOT.glob("k8s/overlays/*/kustomization.yaml")]
    tags = {image["newTag"] for overlay in overlays for image in overlay["images"]} - {"dev", "dev-ray"}
    assert {tag.partition("-")[2] for tag in tags} == published
    for step in steps(uses="docker/build-push-action"):
        assert "ADD=${{ matrix.add }}" in step["with"]["build-args"]


def test_what_is_added_to_an_image_changes_nothing_that_it_has():
    for path in ROOT.glob("docker/locks/*+*.txt"):
        flavour = path.with_name(f"{path.stem.partition('+')[0]}.txt")
        there, added = (
            set(re.findall(r"^([a-z0-9][\w.-]*)==", each.read_text(), re.MULTILINE)) for each in (flavour, path)
        )
        assert added
        assert not added & there


def test_no_stage_of_the_dockerfile_has_an_image_that_is_not_pinned():
    text = DOCKERFILE.read_text()
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", text, re.MULTILINE)
    own = {name for _, name in stages}
    assert {base for base, _ in stages} <= {"${PYTHON_IMAGE}", "scratch"} | own
    assert set(re.findall(r"--(?:from|mount=\S*\bfrom)=(\w+)", text)) <= own
    assert text.startswith("# syntax="), "BuildKit reads it on the first line only"


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """A folder with a `docker` that answers with a digest, for the tags that it expects."""
    (tmp_path / "docker").write_text(f'''#!/bin/sh
[ "$1 $2 $3 $5 $6" = "buildx imagetools inspect --format {{{{.Manifest.Digest}}}}" ] || exit 1
case $4 in
python:3.11) echo "{DIGEST}" ;;
docker/dockerfile:1) echo "{SYNTAX_DIGEST}" ;;
*) exit 1 ;;
esac
''')
    (tmp_path / "docker").chmod(0o755)
    return tmp_path


def pin(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    path = f"{folder}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "DOCKERFILE": str(folder / "Dockerfile")}
    return subprocess.run([PIN, *options], env=environment, capture_output=True, text=True)


def naming(folder: Path, syntax: str, base: str) -> str:
    """Write a Dockerfile with these images. Returns its text."""
    text = f"# syntax={syntax}\n# said of the base\nARG PYTHON_IMAGE={base}\nFROM ${{PYTHON_IMAGE}} AS builder\n"
    (folder / "Dockerfile").write_text(text)
    return text


@pytest.mark.parametrize(
    "before",
    [
        ("docker/dockerfile:1", "python:3.11"),
        (f"docker/dockerfile:1@sha256:{'e' * 64}", f"python:3.11@sha256:{'f' * 64}"),
    ],
)
def test_pinning_writes_the_digests_of_the_tags_and_nothing_else(docker: Path, before: tuple[str, str]):
    naming(docker, *before)
    assert pin(docker).returncode == 0
    written = (docker / "Dockerfile").read_text()
    assert written == naming(docker, *PINNED)
    assert pin(docker, "--check").returncode == 0
    assert pin(docker, "--print").stdout.split() == list(PINNED)


@pytest.mark.parametrize("images", [("docker/dockerfile:1", "python:4"), ("docker/dockerfile:2", "python:3.11")])
def test_a_tag_that_the_registry_does_not_have_changes_nothing(docker: Path, images: tuple[str, str]):
    before = naming(docker, *images)
    assert pin(docker).returncode != 0
    assert (docker / "Dockerfile").read_text() == before


@pytest.mark.parametrize("image", ["python:3.11", "python@sha256:12", f"python:3.11@{DIGEST}0", f"python@{DIGEST} x"])
@pytest.mark.parametrize("place", [0, 1])
def test_an_image_without_a_whole_digest_is_refused(docker: Path, image: str, place: int):
    images = list(PINNED)
    images[place] = image
    naming(docker, *images)
    refused = pin(docker, "--check")
    assert refused.returncode == 1
    assert "docker/pin.sh" in refused.stderr


def statements() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(VEX.read_text())["statements"]
    return found


def test_every_statement_says_why_an_advisory_of_the_locked_vllm_does_not_apply():
    document = json.loads(VEX.read_text())
    assert document["@context"] == "https://openvex.dev/ns/v0.2.0"
    assert {"@id", "author", "timestamp", "version"} < document.keys()
    (locked,) = re.findall(r"^vllm==(\S+)", (ROOT / "docker/locks/gpu.txt").read_text(), re.MULTILINE)
    names = [each["vulnerability"]["name"] for each in statements()]
    assert len(set(names)) == len(names) > 40
    for each in statements():
        assert re.fullmatch(r"CVE-20\d\d-\d{4,}", each["vulnerability"]["name"])
        assert each["products"] == [{"@id": f"pkg:pypi/vllm@{locked}"}]  # another version: look at each again
        assert (each["status"], each["justification"] in JUSTIFICATIONS) == ("not_affected", True)
        assert len(each["impact_statement"]) > 80


@pytest.mark.parametrize(
    ("claim", "files", "absent"),
    [
        ("API server", "engines/**/*.py", r"vllm\.entrypoints|api_server"),
        ("structured output", "engines/t3/vllm/*.py", r"guided_decoding|structured_output|StructuredOutputs"),
        ("multimodal", "engines/t3/vllm/*.py", r"multi_modal|SupportsMultiModal|mm_"),
        ("tensor parallelism", "engines/t3/vllm/*.py", r"tensor_parallel|kv_transfer|pipeline_parallel"),
        ("without -O", "docker/*", r"PYTHONOPTIMIZE|python\S* -O"),
        ("without -O", "Dockerfile", r"PYTHONOPTIMIZE|python\S* -O"),
        ("without -O", "k8s/**/*.yaml", r"PYTHONOPTIMIZE"),
    ],
)
def test_what_the_statements_rest_on_holds(claim: str, files: str, absent: str):
    assert any(claim in each["impact_statement"] for each in statements())
    paths = [path for path in ROOT.glob(files) if path.is_file() and path != VEX]
    assert paths
    assert [str(path) for path in paths if re.search(absent, path.read_text())] == []


def test_vllms_own_sampling_has_constants_only():
    text = (ROOT / "engines/t3/vllm/engine.py").read_text()
    (arguments,) = re.findall(r"SamplingParams\(\n(.*?)\n        \)", text, re.DOTALL)
    names = set(re.findall(r"^ +(\w+)=", arguments, re.MULTILINE))
    assert names == {"temperature", "max_tokens", "ignore_eos", "detokenize", "output_kind", "extra_args"}
    assert re.search(r"temperature=0,", arguments)
    assert '"activation_function": "gelu_new"' in (ROOT / "engines/t3/vllm/family.py").read_text()
