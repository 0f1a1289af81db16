"""The guides' own blocks, in order, with stand-ins for the commands of clouds and clusters, and the rest as it is."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from tests.fleet.manifests import ROOT, objects, of_kind
from tests.fleet.test_snippets import snippets
from tests.service.test_process import ENVIRONMENT, process, serving

EKS, OTHERS = ROOT / "docs/deploy-eks.md", ROOT / "docs/deploy-gke-aks.md"
RUNBOOKS = ROOT / "docs/operations.md"
ANSWERS = {  # of the clouds, by the beginning of what they are asked
    "aws efs create-file-system": "fs-0123456789abcdef0",
    "aws efs describe-file-systems": "available",
    "aws eks describe-cluster": "sg-0123456789abcdef0",
    "git rev-parse": "0123456789abcdef0123456789abcdef01234567",
    "aws ec2 describe-subnets": "subnet-1\tsubnet-2\tsubnet-3",
}
STAND_IN = """#!{python}
import json, pathlib, subprocess, sys
name = pathlib.Path(sys.argv[0]).name
call = " ".join([name, *sys.argv[1:]])
given = sys.stdin.read() if sys.argv[-2:] == ["-f", "-"] else ""
for beginning, answer in {answers}.items():
    if call.startswith(beginning):
        print(answer)
with open({log}, "a") as log:
    log.write(json.dumps({{"call": call, "given": given}}) + "\\n")
"""
COMMANDS = ("aws", "az", "docker", "eksctl", "gcloud", "git", "helm", "hf", "kubectl", "mynah-engines")


@dataclass(frozen=True)
class Call:
    """A call of a stand-in, and what it read from standard input."""

    words: list[str]
    given: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        return list(yaml.safe_load_all(self.given))


class Workplace:
    """A folder with the repository's k8s in it, and a shell with the stand-ins before all other commands."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._log = folder, folder / "calls"
        commands = folder / "commands"
        commands.mkdir()
        (folder / "k8s").symlink_to(ROOT / "k8s")
        text = STAND_IN.format(python=sys.executable, answers=repr(ANSWERS), log=repr(str(self._log)))
        ours = {
            "mynah-keys": "from service.access.keys import main; main()",
            "mynah": "import mynah.cli.main as m; m.main()",
        }
        scripts = dict.fromkeys(COMMANDS, text)
        scripts |= {
            name: f'#!/bin/sh\nexec {sys.executable} -c {shlex.quote(code)} "$@"\n' for name, code in ours.items()
        }
        for name, script in scripts.items():
            (commands / name).write_text(script)
            (commands / name).chmod(0o755)
        self.environment = {
            **ENVIRONMENT,
            "PATH": f"{commands}:{os.environ['PATH']}",
            "HF_TOKEN": "hf_token",
        }

    async def run(self, script: str, **variables: str) -> None:
        """Runs a script; fails if any of its commands does."""
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", script), cwd=self.folder, env=self.environment | variables,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        _, errors = await shell.communicate()
        assert shell.returncode == 0, errors.decode()

    def calls(self, beginning: str) -> list[Call]:
        """The calls so far that begin so."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [Call(shlex.split(one["call"]), one["given"]) for one in lines if one["call"].startswith(beginning)]


def blocks(page: Path, *, before: str = "", behind: str = "") -> str:
    """The page's sh blocks, up to a heading or behind it, and the commands of its tables."""
    text = page.read_text()
    text = text.partition(f"\n## {before}")[0] if before else text
    text = text.partition(f"\n## {behind}")[2] if behind else text
    found = re.findall(r"```sh\n(.*?)```|^\|[^`\n]*\| `((?:helm|kubectl) [^`]*)` \|$", text, re.DOTALL | re.MULTILINE)
    return "\n".join(block or command for block, command in found)


async def test_the_page_on_eks_works_from_the_first_block_to_the_first_stream(tmp_path: Path):
    """Up to the servers by stand-ins; then the keys that the page made open a real server with TLS."""
    at = Workplace(tmp_path)
    await at.run(blocks(EKS, before="6. A stream"))
    (cluster,) = at.calls("eksctl create cluster -f -")
    assert cluster.documents[0]["metadata"]["name"] == "speech"
    applied = [document for call in at.calls("kubectl apply -f -") for document in call.documents]
    assert {document["kind"] for document in applied} == {"NodePool", "EC2NodeClass", "StorageClass"}
    (storage,) = (document for document in applied if document["kind"] == "StorageClass")
    assert storage["parameters"]["fileSystemId"] == ANSWERS["aws efs create-file-system"]
    assert [call.words[-3] for call in at.calls("aws efs create-mount-target")] == ["subnet-1", "subnet-2", "subnet-3"]
    efs = [call.words[2] for call in at.calls("aws efs")]
    assert efs[:3] == ["create-file-system", "describe-file-systems", "create-mount-target"], "the last waits"
    assert_named_files_exist(at)
    assert len(at.calls("helm upgrade --install")) == 7

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "roots.pem")
    made = authority.issue_cert("speech.example.com", "localhost")
    made.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    made.private_key_pem.write_to_path(tmp_path / "tls.key")
    flags = ["--tls-certificate", str(tmp_path / "tls.crt"), "--tls-key", str(tmp_path / "tls.key")]
    async with process(*flags, "--api-keys", str(tmp_path / "keys.json")) as running:
        address = await serving(running)
        script = blocks(EKS, behind="6. A stream").replace("127.0.0.1:50051", address)
        script = script.replace("speech.example.com:443", f"localhost:{address.rpartition(':')[2]}")
        await at.run(script, GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=str(tmp_path / "roots.pem"))
    assert (tmp_path / "morning.wav").stat().st_size > 10_000


async def test_another_name_of_the_cluster_reaches_everything_that_is_applied(tmp_path: Path):
    at = Workplace(tmp_path)
    names, others = "CLUSTER=speech AWS_REGION=eu-central-1", "CLUSTER=voices-1 AWS_REGION=eu-west-1"
    script = blocks(EKS, before="4. Keys")
    assert names in script
    script = script.replace(names, others)
    await at.run(script)
    (cluster,) = at.calls("eksctl create cluster -f -")
    given = [cluster.given, *(call.given for call in at.calls("kubectl apply -f -"))]
    without_comments = [re.sub(r"#.*", "", text) for text in given]
    assert not [text for text in without_comments if re.search(r"\bspeech\b|eu-central|fs-0\b", text)]
    document = cluster.documents[0]
    assert (document["metadata"]["name"], document["metadata"]["region"]) == ("voices-1", "eu-west-1")
    nodes = {one["kind"]: one for call in at.calls("kubectl apply -f -") for one in call.documents}
    assert nodes["EC2NodeClass"]["spec"]["role"] == "eksctl-KarpenterNodeRole-voices-1"


async def test_the_page_on_gke_and_aks_names_what_exists(tmp_path: Path):
    at = Workplace(tmp_path)
    await at.run(blocks(OTHERS))
    assert_named_files_exist(at)
    assert len(at.calls("gcloud container")) == len(at.calls("az aks")) == 2


async def test_the_runbooks_commands_name_what_the_manifests_have(tmp_path: Path):
    """By stand-ins; tests/engines/tools/test_cli.py runs the one that needs no cluster."""
    at = Workplace(tmp_path)
    await at.run(blocks(RUNBOOKS))
    has = {(one["kind"].lower(), one["metadata"]["name"]) for one in objects("a10g")} | MADE_ELSEWHERE
    (deployment,) = of_kind("a10g", "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    containers = {container["name"] for container in pod["containers"] + pod["initContainers"]}
    calls = at.calls("kubectl")
    assert len(calls) >= 9
    for call in calls:
        assert call.words[1:3] == ["-n", "mynah"]
        named = {tuple(word.split("/")) for word in call.words if re.fullmatch(r"[a-z]+/[a-z-]+", word)}
        if len(call.words) == 6 and call.words[3] == "describe":
            named |= {(kind, call.words[5]) for kind in call.words[4].split(",")}
        assert named <= has, call
        used = {word.split("=")[0] for word in call.words if "=registry" in word}
        used |= {after for word, after in pairwise(call.words) if word == "--container"}
        assert used <= containers, call


MADE_ELSEWHERE = {("certificate", "mynah-tls"), ("secret", "mynah-tls")}  # by the guide, or by cert-manager


def assert_named_files_exist(at: Workplace) -> None:
    """Files and folders of k8s that commands name."""
    named = {word for call in at.calls("") for word in call.words if word.startswith("k8s/")}
    assert named
    assert not [word for word in named if not (ROOT / word).exists()]


@pytest.mark.parametrize("page", [EKS, OTHERS, RUNBOOKS], ids=lambda page: page.stem)
def test_every_block_is_a_script(page: Path):
    for block in snippets(page, "sh"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)
