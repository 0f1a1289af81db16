"""The Helm chart: it is written from the manifests, and Helm renders from it what kustomize renders from them."""

from __future__ import annotations

import json
import subprocess
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.helm.__main__ import FOLDER, write
from k8s.helm.kustomize import NAMESPACE, OVERLAYS, Objects, all_components, base, keyed, overlay, parsed, replaced
from k8s.helm.merged import Conflict, changed, tree
from k8s.helm.values import OWN, switches
from service.config import OPTIONS
from tests.fleet.manifests import with_components

PYTHON = Path(__file__).parents[2] / ".venv-ui" / "bin" / "python"
OPTIONAL = ("bakedWeights", "bucketVoices", "gatewayEnvoy", "spot")  # that no overlay has
PLAIN = {"image": {"repository": "mynah"}, "settings": {"MYNAH_MODEL": "tiny", "MYNAH_DEVICE": "cpu"}}
Values = dict[str, Any]


def asked(*cases: list[Values], lint: bool = False, package: str = "") -> dict[str, Any]:
    """What Helm makes of the chart with each case's values."""
    request = {"chart": str(FOLDER), "namespace": NAMESPACE, "cases": cases, "lint": lint, "package": package}
    command = [PYTHON, "-m", "tests.fleet.render_chart"]
    done = subprocess.run(
        command, input=json.dumps(request), capture_output=True, text=True, check=True, cwd=FOLDER.parents[2]
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def values_of(name: str) -> Values:
    return dict(yaml.safe_load((FOLDER / f"values-{name}.yaml").read_text()))


WRONG: list[tuple[Values, str]] = [  # beside a10g's values, and the name that the answer must have
    ({"settings": {"MYNAH_MAX_STREAM": "32"}}, "MYNAH_MAX_STREAM"),
    ({"settings": {"MYNAH_STRICT": True}}, "MYNAH_STRICT"),
    ({"settings": {"MYNAH_MAX_STREAMS": "many"}}, "MYNAH_MAX_STREAMS"),
    ({"settings": {"MYNAH_T3": "onyx"}}, "MYNAH_T3"),
    ({"components": {"sharedVoice": True}}, "sharedVoice"),
    ({"image": {"repository": ""}}, "repository"),
    ({"settings": {"MYNAH_MODEL": None}}, "MYNAH_MODEL"),
    ({"resource": {}}, "resource"),
]
DEFAULTS = {each.variable: each.default_text for each in OPTIONS.values() if each.default_text}


@cache
def answers() -> dict[str, dict[str, str] | str]:
    """Helm's answers to every case of these tests; one process, because its library takes a second to load."""
    gpu = values_of("a10g")
    cases = {name: [values_of(name)] for name in OVERLAYS}
    cases |= {switch: [PLAIN, {"components": {switch: True}}] for switch in switches()}
    cases |= {f"a10g and {switch}": [gpu, {"components": {switch: True}}] for switch in OPTIONAL}
    cases |= {named: [gpu, values] for values, named in WRONG}
    cases["defaults"] = [PLAIN, {"settings": DEFAULTS}]
    cases["other settings"] = [gpu, {"settings": {"MYNAH_GRACE_S": "100"}}]
    own = {"MYNAH_VOICES_DIR": "s3://own/voices", "MYNAH_GRACE_S": "60"}
    cases["own settings"] = [PLAIN, {"settings": own, "components": {"bucketVoices": True, "spot": True}}]
    cases["own bucket"] = [PLAIN, {"storage": {"bucket": "s3://mine"}, "components": {"bucketVoices": True}}]
    cases["own runbooks"] = [gpu, {"monitoring": {"runbooks": "https://wiki.example/speech"}}]
    return dict(zip(cases, asked(*cases.values())["answers"], strict=True))


def by_helm(name: str) -> Objects:
    return manifests(answers()[name])


def manifests(answer: dict[str, str] | str) -> Objects:
    assert isinstance(answer, dict), answer
    return keyed([manifest for name, text in answer.items() if name.endswith(".yaml") for manifest in parsed(text)])


def comparable(objects: Objects) -> Objects:
    """Without what the two install in ways of their own: the namespace, and how pods follow their settings. Lists of
    named things by their names."""
    found = {}
    for key, manifest in {key: replaced(each, "^mynah-dev$", NAMESPACE) for key, each in objects.items()}.items():
        if key[0] == "Deployment":
            template = manifest["spec"]["template"]["metadata"]
            template.get("annotations", {}).pop("checksum/settings", None)
            if not template.get("annotations", True):
                del template["annotations"]
        if key[0] != "Namespace":
            found[key] = tree(manifest)
    return found


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_and_the_chart_with_its_values_are_the_same_objects(name: str):
    assert comparable(by_helm(name)) == comparable(overlay(name))


@pytest.mark.parametrize("switch", switches())
def test_a_component_and_its_switch_are_the_same_objects(switch: str):
    expected = deepcopy(base(switches()[switch]))
    expected["ConfigMap", "mynah-settings"]["data"] |= {"MYNAH_DEVICE": "cpu"}
    expected["ConfigMap", "mynah-settings"]["data"].setdefault("MYNAH_MODEL", "tiny")
    assert comparable(by_helm(switch)) == comparable(expected)


@pytest.mark.parametrize("switch", OPTIONAL)
def test_a_component_on_top_of_an_overlay_is_the_same_too(switch: str):
    expected = keyed(with_components(switches()[switch]))
    assert comparable(by_helm(f"a10g and {switch}")) == comparable(expected)


def test_every_component_of_the_server_has_a_switch():
    assert set(switches().values()) == set(all_components()) - OWN
    assert {switch for name in OVERLAYS for switch in values_of(name).get("components", {})} | set(OPTIONAL) == set(
        switches()
    )


def test_the_committed_chart_is_fresh(tmp_path: Path):
    write(tmp_path)
    made = {
        str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file() and not _linked(path)
    }
    kept = {str(path.relative_to(FOLDER)): path for path in FOLDER.rglob("*") if path.is_file() and not _linked(path)}
    assert made.keys() == kept.keys()
    for name, path in made.items():
        assert path.read_text() == kept[name].read_text(), f"{name}: run python -m k8s.helm"


def _linked(path: Path) -> bool:
    return "files" in path.parts


def test_pods_are_replaced_when_their_settings_change():
    checksums = {
        by_helm(name)["Deployment", "mynah"]["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
        for name in ("a10g", "other settings")
    }
    assert len(checksums) == 2


def test_a_setting_of_your_own_wins_over_a_components():
    settings = by_helm("own settings")["ConfigMap", "mynah-settings"]["data"]
    assert (settings["MYNAH_VOICES_DIR"], settings["MYNAH_GRACE_S"]) == ("s3://own/voices", "60")
    assert by_helm("own bucket")["ConfigMap", "mynah-settings"]["data"]["MYNAH_VOICES_DIR"] == "s3://mine"


@pytest.mark.parametrize("named", [named for _, named in WRONG])
def test_wrong_values_are_refused_by_name(named: str):
    answer = answers()[named]
    assert isinstance(answer, str)
    assert named in answer


def test_the_schema_has_every_option_as_the_option_table():
    schema = json.loads((FOLDER / "values.schema.json").read_text())
    settings = schema["properties"]["settings"]["properties"]
    assert {name for name in settings if name.startswith("MYNAH_")} == {each.variable for each in OPTIONS.values()}
    for each in OPTIONS.values():
        for name in settings[each.variable].get("enum", ()):
            each.reader.read(name)
    assert by_helm("defaults")["ConfigMap", "mynah-settings"]["data"].items() >= DEFAULTS.items()


def test_helm_lints_and_packages_it(tmp_path: Path):
    answer = asked(*([values_of(name)] for name in OVERLAYS), lint=True, package=str(tmp_path))
    for report in answer["findings"]:
        assert not report["errors"]
        assert [message for message in report["messages"] if message["severity"] >= 2] == []
    assert (tmp_path / answer["archive"]).stat().st_size > 10_000, "the boards and rules are in it, not links to them"


def test_rules_keep_their_own_templates_and_the_runbooks_have_your_address():
    text = json.dumps(by_helm("own runbooks")["PrometheusRule", "mynah"])
    assert "{{ $labels.pod }}" in text
    assert "https://wiki.example/speech/operations.md#mynaht3down" in text
    assert "docs.example.com" not in text


def test_the_notes_name_the_secrets_that_pods_wait_for():
    text: dict[str, str] = {}
    for name in ("a10g", "dev"):
        answer = answers()[name]
        assert isinstance(answer, dict)
        text[name] = answer["mynah/templates/NOTES.txt"]
    assert "mynah-tls" in text["a10g"]
    assert "mynah-shared" in text["a10g"]
    assert "Secret" not in text["dev"]


def test_two_components_that_change_one_node_are_found():
    before, one, other = tree({"a": 1}), tree({"a": 2}), tree({"a": 3})
    merged = changed(before, before, one, "one")
    with pytest.raises(Conflict, match="other"):
        changed(merged, before, other, "other")
