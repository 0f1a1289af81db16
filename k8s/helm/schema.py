"""values.schema.json: the chart's values, and every option of the server as its option table has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from service.config import OPTIONS
from service.options import Option

_WRITTEN = "Written as a string in quotes, because YAML reads on, off and numbers as other things."
_PATTERNS = {  # by how the words for what is allowed begin
    "a whole number": "[0-9]+",
    "auto, or a whole number": "auto|[0-9]+",
    "a number of seconds": "[0-9]+(\\.[0-9]+)?",
    "a number above 0": "[0-9]*\\.?[0-9]+",
    "HOST:PORT": ".+:[0-9]+",
    "http://": "https?://.+",
}


def schema(components: Iterable[str], required: Iterable[str]) -> dict[str, Any]:
    """JSON Schema, draft 7, of the chart's values. `required`: settings without which no server starts."""
    names = {each.variable: _setting(each) for each in OPTIONS.values()}
    hub = {name: {"type": "string"} for name in ("HF_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SERVICE_NAME")}
    settings = _object({**names, **hub}, required, f"The server's options (docs/options.md). {_WRITTEN}")
    switches = _object({name: {"type": "boolean"} for name in components}, (), "The components of k8s/components.")
    switches["required"] = sorted(components)
    text, count = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}
    anything, size = {"type": "object"}, {"type": "string", "pattern": "^[0-9]+(Ki|Mi|Gi|Ti)$"}
    image = {"repository": text, "tag": {"type": "string"}, "pullPolicy": {"type": "string"}}
    image["digest"] = {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}
    prepare = {"args": {"type": "array", "items": {"type": "string"}}, "resources": anything}
    gateway = {"host": text, "httpHost": text, "parentRefs": {"type": "array", "items": anything, "minItems": 1}}
    autoscaling = {"minReplicas": count, "maxReplicas": count, "prometheus": text}
    storage = {"class": text, "voices": size, "models": size, "modelsOnNode": size, "bucket": text}
    properties = {
        "components": switches,
        "settings": settings,
        "image": _object(image, ["repository"]),
        "replicas": {"type": ["integer", "null"], "minimum": 0, "description": "null where an autoscaler sets them"},
        "resources": anything,
        "prepare": _object(prepare),
        "nodeSelector": anything,
        "affinity": anything,
        "tolerations": {"type": "array", "items": anything},
        "podAnnotations": anything,
        "terminationGracePeriodSeconds": count,
        "gateway": _object(gateway),
        "autoscaling": _object(autoscaling),
        "storage": _object(storage),
        "monitoring": _object({"runbooks": text}),
        "global": anything,
    }
    return {"$schema": "http://json-schema.org/draft-07/schema#", **_object(properties, ["image", "settings"])}


def _object(properties: dict[str, Any], required: Iterable[str] = (), description: str = "") -> dict[str, Any]:
    """An object without other properties."""
    closed = {"type": "object", "additionalProperties": False, "properties": properties}
    closed |= {"required": sorted(required)} if required else {}
    return closed | ({"description": description} if description else {})


def _setting(option: Option) -> dict[str, Any]:
    described = {"type": "string", "description": f"{option.help}; {option.reader.allowed}"}
    names = option.reader.metavar.split("|")
    if len(names) > 1 and all(_reads(option, name) and name.islower() for name in names):
        return described | {"enum": names}
    for beginning, pattern in _PATTERNS.items():
        if option.reader.allowed.startswith(beginning):
            return described | {"pattern": f"^({pattern})$"}
    return described | {"minLength": 1}


def _reads(option: Option, text: str) -> bool:
    try:
        option.reader.read(text)
    except ValueError:
        return False
    return True
