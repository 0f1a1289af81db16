"""`python -m k8s.helm`: writes the chart k8s/helm/mynah from the base, components and overlays. Needs kubectl."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from engines.version import VERSION
from k8s.helm.kustomize import NAMESPACE, OVERLAYS, Objects, base, summary_of
from k8s.helm.merged import Slot, changed, placed, tree
from k8s.helm.schema import schema
from k8s.helm.template import template
from k8s.helm.values import (
    CERTIFICATE_NAME,
    HOSTS,
    IMAGE,
    IMAGES,
    SLOTS,
    camel,
    defaults,
    of_overlay,
    settings_of,
    switches,
    without,
)

FOLDER = Path(__file__).parent / "mynah"
_SETTINGS = ("ConfigMap", "mynah-settings")
_RULES = ("PrometheusRule", "mynah")
_REQUIRED = ("MYNAH_MODEL", "MYNAH_DEVICE")  # without them a pod would choose by the node that it meets
_CHART = {
    "apiVersion": "v2",
    "name": "mynah",
    "description": "Streaming speech servers for Chatterbox Turbo and Nano, with what they need around them.",
    "type": "application",
    "version": VERSION,
    "appVersion": VERSION,
    "kubeVersion": ">=1.30.0-0",
}
_HEAD = "# Written by `python -m k8s.helm` from k8s/base, k8s/components and k8s/overlays; change those.\n"
_CHECKSUM = '{{ include (print $.Template.BasePath "/configmap-mynah-settings.yaml") . | sha256sum }}'


_NOTES = """\
The servers are ready when this returns:
  kubectl -n {{ .Release.Namespace }} rollout status deployment/mynah --timeout=30m
{{- if .Values.components.tls }}
They wait for the Secret mynah-tls, with tls.crt and tls.key.
{{- end }}
{{- if .Values.components.keys }}
They wait for the Secret mynah-keys, with keys.json (mynah-keys keys.json add NAME).
{{- end }}
{{- if or .Values.components.sharedVoices .Values.components.sharedModels }}
Their volumes need the storage class {{ .Values.storage.class }}.
{{- end }}
docs/deploy-eks.md has the steps, docs/operations.md what to watch.
"""


def write(folder: Path) -> None:
    """Writes the chart into a folder. Raises Conflict where two components could not be switched alone."""
    named = switches()
    plain = base()
    extended = {name: base(name) for name in named.values()}
    templates = {_file(key): text for key, text in _templates(plain, extended).items()}
    values = defaults(plain, extended)
    (folder / "templates").mkdir(parents=True, exist_ok=True)
    for old in (folder / "templates").iterdir():
        old.unlink()
    for name, text in (templates | {"NOTES.txt": _NOTES}).items():
        (folder / "templates" / name).write_text(text)
    (folder / "Chart.yaml").write_text(_HEAD + yaml.safe_dump(_CHART, sort_keys=False))
    (folder / "values.yaml").write_text(_HEAD + _values_text(values))
    for overlay in OVERLAYS:
        own = without(of_overlay(overlay, extended), values)
        (folder / f"values-{overlay}.yaml").write_text(_HEAD + yaml.safe_dump(own, sort_keys=False, width=120))
    (folder / "values.schema.json").write_text(json.dumps(schema(named, _REQUIRED), indent=1) + "\n")
    (folder / "files").mkdir(exist_ok=True)
    if not (link := folder / "files/monitoring").is_symlink():
        link.symlink_to("../../../components/monitoring")


def _templates(plain: Objects, extended: Mapping[str, Objects]) -> dict[tuple[str, str], str]:
    merged: dict[tuple[str, str], Any] = {key: tree(manifest) for key, manifest in plain.items()}
    owners: dict[tuple[str, str], str] = {}
    for component, objects in extended.items():
        for key, manifest in objects.items():
            if key not in merged:
                merged[key], owners[key] = tree(manifest), camel(component)
            elif key in plain and key != _SETTINGS:
                merged[key] = changed(merged[key], tree(plain[key]), tree(manifest), camel(component))
    _place_values(merged)
    texts = {key: template(manifest, owners.get(key)) for key, manifest in merged.items() if not _is_special(key)}
    texts["ScaledObject", "mynah"] = texts["ScaledObject", "mynah"].replace(
        f'namespace="{NAMESPACE}"', 'namespace="{{ .Release.Namespace }}"'
    )
    texts["Deployment", "mynah"] = _with_checksum(texts["Deployment", "mynah"])
    texts[_SETTINGS] = _HEAD + _settings_template(merged[_SETTINGS], plain, extended)
    texts[_RULES] = _rules_template(merged[_RULES])
    texts["ConfigMap", "mynah-dashboards"] = _dashboards_template(merged)
    return texts


def _is_special(key: tuple[str, str]) -> bool:
    """Objects whose texts have braces of their own are read from files."""
    return key in (_SETTINGS, _RULES) or key[1].startswith("mynah-dashboard")


def _place_values(merged: dict[tuple[str, str], Any]) -> None:
    slots = {place: slot for places, slot in SLOTS.values() for place in places}
    slots |= {place: Slot(f"[{{{{ .Values.{name} }}}}]") for name, places in HOSTS.items() for place in places}
    slots |= {CERTIFICATE_NAME: Slot("{{ .Values.gateway.host }}"), **dict.fromkeys(IMAGES, IMAGE)}
    for (key, path), slot in slots.items():
        merged[key] = placed(merged[key], path, slot)
    for key, manifest in merged.items():
        merged[key] = placed(manifest, ("metadata", "namespace"), Slot("{{ .Release.Namespace }}"))


def _settings_template(manifest: Any, plain: Objects, extended: Mapping[str, Objects]) -> str:
    """The settings as values have them, then what components set, where values leave what the base has."""
    lines = ["{{- $settings := deepCopy .Values.settings }}"]
    for component, objects in extended.items():
        if own := sorted(set(settings_of(objects).items()) - set(settings_of(plain).items())):
            lines.append(f"{{{{- if .Values.components.{camel(component)} }}}}")
            for name, value in own:
                given = ".Values.storage.bucket" if component == "bucket-voices" else json.dumps(value)
                setting = f"{{{{- $_ := set $settings {json.dumps(name)} {given} }}}}"
                if before := settings_of(plain).get(name):
                    is_default = f"{{{{- if eq (get $settings {json.dumps(name)}) {json.dumps(before)} }}}}"
                    lines += [is_default, setting, "{{- end }}"]
                else:
                    lines.append(setting)
            lines.append("{{- end }}")
    head = {key: value for key, value in manifest.items() if key != "data"}
    return "\n".join([*lines, template(head) + "data:", "  {{- toYaml $settings | nindent 2 }}"]) + "\n"


def _with_checksum(deployment: str) -> str:
    """Pods are replaced when their settings change, whose name has no hash in a chart."""
    given = "      {{- if .Values.podAnnotations }}\n      annotations:\n"
    before, after = deployment.split(given)
    own = f"      annotations:\n        checksum/settings: {_CHECKSUM}\n        {{{{- if .Values.podAnnotations }}}}\n"
    return before + own + after.replace("      {{- end }}", "        {{- end }}", 1)


def _rules_template(manifest: Any) -> str:
    head = {key: value for key, value in manifest.items() if key != "spec"}
    lines = ["{{- if .Values.components.monitoring }}", template(head) + "spec:"]
    lines.append('  {{- $rules := .Files.Get "files/monitoring/rules.yaml" | fromYaml }}')
    lines.append(
        f"  {{{{- toYaml $rules.spec | replace {json.dumps(_RUNBOOKS)} .Values.monitoring.runbooks | nindent 2 }}}}"
    )
    return "\n".join([*lines, "{{- end }}"]) + "\n"


_RUNBOOKS = "https://docs.example.com/mynah"


def _dashboards_template(merged: dict[tuple[str, str], Any]) -> str:
    """One ConfigMap for each file of a board."""
    (manifest, *_) = (node for (_, name), node in merged.items() if name.startswith("mynah-dashboard-"))
    head = {key: value for key, value in manifest.items() if key != "data"}
    head = placed(head, ("metadata", "name"), Slot('mynah-dashboard-{{ base $path | trimSuffix ".json" }}'))
    text = template(head).replace("{{ .Release", "{{ $.Release")
    lines = ["{{- if .Values.components.monitoring }}"]
    lines.append('{{- range $path, $_ := .Files.Glob "files/monitoring/dashboards/*.json" }}')
    lines += ["---", text + "data:", "  {{ base $path }}: |", "    {{- $.Files.Get $path | nindent 4 }}"]
    return "\n".join([*lines, "{{- end }}", "{{- end }}"]) + "\n"


def _values_text(values: dict[str, Any]) -> str:
    """The values with the components' own words, and a sentence about each group."""
    text = "\n" + str(yaml.safe_dump(values, sort_keys=False, width=120))
    for name, component in switches().items():
        text = text.replace(f"  {name}: false\n", _comment(summary_of(component), "  ") + f"  {name}: false\n")
    for name, about in _ABOUT.items():
        text = text.replace(f"\n{name}:", f"\n{_comment(about)}{name}:")
    return text.removeprefix("\n")


def _comment(text: str, indent: str = "") -> str:
    prefix = f"{indent}# "
    return textwrap.fill(text, 120, initial_indent=prefix, subsequent_indent=prefix) + "\n"


_ABOUT = {
    "components": "Parts of k8s/components that can be switched alone; values-a10g.yaml and values-cpu.yaml have sets "
    "that work.",
    "image": "Your registry's image of Mynah; pin it by digest.",
    "replicas": "null where an autoscaler sets them.",
    "settings": "The server's options (docs/options.md), as strings in quotes. MYNAH_MODEL and MYNAH_DEVICE are "
    "required.",
    "prepare": "The init container that fetches the weights and, with `--engines here`, builds TensorRT engines.",
    "storage": "The volumes of sharedVoices and sharedModels, the node's disk without these, and bucketVoices' URL.",
    "gateway": "The Gateway that routes attach to, and the names by which clients call.",
    "monitoring": "Where your copy of docs/operations.md is.",
}


def _file(key: tuple[str, str]) -> str:
    kind, name = key
    return f"{kind.lower()}-{name}.yaml"


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
