"""The chart's values: where each one stands in the manifests, and what the base and the overlays have there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k8s.helm.kustomize import Objects, all_components, components_of, overlay
from k8s.helm.merged import MISSING, Slot, at, plain, tree

OWN = {"bulk"}  # components that are no part of the server
_IMAGE = "{{ .Values.image.repository }}{{ with .Values.image.tag }}:{{ . }}{{ end }}"
_IMAGE += "{{ with .Values.image.digest }}@{{ . }}{{ end }}"
_POD = ("spec", "template", "spec")
_PREPARE, _SERVER = (*_POD, "initContainers", "prepare"), (*_POD, "containers", "server")
_VOICES, _MODELS = ("PersistentVolumeClaim", "mynah-voices"), ("PersistentVolumeClaim", "mynah-models")
_DEPLOYMENT, _SCALED = ("Deployment", "mynah"), ("ScaledObject", "mynah")
_ROUTES = (("GRPCRoute", "mynah"), ("HTTPRoute", "mynah"))
_TRIGGERS, _SERVER_ADDRESS = ("streams", "first-audio", "refused"), ("metadata", "serverAddress")
_SIZE = ("spec", "resources", "requests", "storage")
Place = tuple[tuple[str, str], tuple[str, ...]]  # an object, and a path in it


def _whole(value: str) -> Slot:
    """A value of any shape that is left out where it is empty."""
    return Slot(path=value, when=f".Values.{value}")


def _scalar(value: str, when: str = "") -> Slot:
    return Slot(f"{{{{ .Values.{value} }}}}", when=when)


# by the values' names; the first place has the value, the others repeat it
SLOTS: dict[str, tuple[list[Place], Slot]] = {
    "replicas": (
        [(_DEPLOYMENT, ("spec", "replicas"))],
        _scalar("replicas", 'not (kindIs "invalid" .Values.replicas)'),
    ),
    "podAnnotations": (
        [(_DEPLOYMENT, ("spec", "template", "metadata", "annotations"))],
        _whole("podAnnotations"),
    ),
    "nodeSelector": ([(_DEPLOYMENT, (*_POD, "nodeSelector"))], _whole("nodeSelector")),
    "affinity": ([(_DEPLOYMENT, (*_POD, "affinity"))], _whole("affinity")),
    "tolerations": ([(_DEPLOYMENT, (*_POD, "tolerations"))], _whole("tolerations")),
    "terminationGracePeriodSeconds": (
        [(_DEPLOYMENT, (*_POD, "terminationGracePeriodSeconds"))],
        _scalar("terminationGracePeriodSeconds"),
    ),
    "resources": ([(_DEPLOYMENT, (*_SERVER, "resources"))], Slot(path="resources")),
    "prepare.args": ([(_DEPLOYMENT, (*_PREPARE, "args"))], Slot(path="prepare.args")),
    "prepare.resources": ([(_DEPLOYMENT, (*_PREPARE, "resources"))], Slot(path="prepare.resources")),
    "image.pullPolicy": (
        [(_DEPLOYMENT, (*_SERVER, "imagePullPolicy"))],
        _scalar("image.pullPolicy", ".Values.image.pullPolicy"),
    ),
    "storage.modelsOnNode": (
        [(_DEPLOYMENT, (*_POD, "volumes", "models", "emptyDir", "sizeLimit"))],
        _scalar("storage.modelsOnNode"),
    ),
    "storage.class": (
        [(claim, ("spec", "storageClassName")) for claim in (_VOICES, _MODELS)],
        _scalar("storage.class"),
    ),
    "storage.voices": ([(_VOICES, _SIZE)], _scalar("storage.voices")),
    "storage.models": ([(_MODELS, _SIZE)], _scalar("storage.models")),
    "autoscaling.minReplicas": ([(_SCALED, ("spec", "minReplicaCount"))], _scalar("autoscaling.minReplicas")),
    "autoscaling.maxReplicas": ([(_SCALED, ("spec", "maxReplicaCount"))], _scalar("autoscaling.maxReplicas")),
    "autoscaling.prometheus": (
        [(_SCALED, ("spec", "triggers", trigger, *_SERVER_ADDRESS)) for trigger in _TRIGGERS],
        _scalar("autoscaling.prometheus"),
    ),
    "gateway.parentRefs": ([(route, ("spec", "parentRefs")) for route in _ROUTES], Slot(path="gateway.parentRefs")),
}
HOSTS: dict[str, list[Place]] = {  # lists of one name, and the name in the servers' certificate
    "gateway.host": [(_ROUTES[0], ("spec", "hostnames"))],
    "gateway.httpHost": [(_ROUTES[1], ("spec", "hostnames"))],
}
CERTIFICATE_NAME: Place = (("BackendTLSPolicy", "mynah"), ("spec", "validation", "hostname"))
IMAGES: list[Place] = [(_DEPLOYMENT, (*_PREPARE, "image")), (_DEPLOYMENT, (*_SERVER, "image"))]
IMAGE = Slot(_IMAGE)


def camel(component: str) -> str:
    """The name of a component's switch: `shared-voices` is `sharedVoices`."""
    first, *rest = component.split("-")
    return first + "".join(word.capitalize() for word in rest)


def switches() -> dict[str, str]:
    """The components by the names of their switches."""
    return {camel(name): name for name in all_components() if name not in OWN}


def defaults(base: Objects, extended: Mapping[str, Objects]) -> dict[str, Any]:
    """The values of the base, and where only a component has a place, that component's. `extended`: the base with each
    component alone."""
    values: dict[str, Any] = {"components": dict.fromkeys(switches(), False)}
    values["image"] = {"repository": "", "tag": "", "digest": "", "pullPolicy": ""}
    values |= {"replicas": None, "podAnnotations": {}, "nodeSelector": {}, "affinity": {}, "tolerations": []}
    values["settings"] = settings_of(base)
    places: dict[str, list[Place]] = {name: at_ for name, (at_, _) in SLOTS.items()} | HOSTS
    for name, (place, *_) in places.items():
        found = [value for objects in (base, *extended.values()) if (value := _read(objects, place)) is not MISSING]
        if found:
            _put(values, name, found[0][0] if name in HOSTS else found[0])
    values["storage"]["bucket"] = settings_of(extended["bucket-voices"])["MYNAH_VOICES_DIR"]
    values["monitoring"] = {"runbooks": "https://docs.example.com/mynah"}
    return values


def settings_of(objects: Objects) -> dict[str, str]:
    """The server's environment."""
    return dict(objects["ConfigMap", "mynah-settings"]["data"])


def of_overlay(name: str, extended: Mapping[str, Objects]) -> dict[str, Any]:
    """What an overlay has: its components, its image, its places, and the settings that no component of it sets."""
    objects, used = overlay(name), components_of(name)
    values: dict[str, Any] = {"components": {camel(component): True for component in used}}
    repository, _, tag = _read(objects, IMAGES[0]).rpartition(":")
    values["image"] = {"repository": repository, "tag": tag}
    set_by_components = {pair for component in used for pair in settings_of(extended[component]).items()}
    values["settings"] = dict(sorted(set(settings_of(objects).items()) - set_by_components))
    for value, (places, _) in SLOTS.items():
        if (found := _read(objects, places[0])) is not MISSING:
            _put(values, value, found)
    return values


def _read(objects: Objects, place: Place) -> Any:
    key, path = place
    return plain(at(tree(objects[key]), path)) if key in objects else MISSING


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    *groups, last = name.split(".")
    for group in groups:
        values = values.setdefault(group, {})
    values[last] = value


def without(values: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """The values that differ from others."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(others.get(key), dict) and others[key]:
            if inner := without(value, others[key]):
                kept[key] = inner
        elif key not in others or value != others[key]:
            kept[key] = value
    return kept
