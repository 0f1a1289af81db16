"""A LoRA adapter in PEFT's layout, whose product of two thin matrices is added to weights as they are loaded."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from engines.checkpoints.tensor_file import Shape, read_header
from engines.checkpoints.weights import check_finite, load_tensors
from engines.errors import CheckpointError

ADAPTER_FILE = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_NAME = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<part>[AB])(?:\.default)?\.weight")
_T3_PREFIX = "tfmr."  # adapters are trained on T3 or on the Llama inside it


class Lora:
    """An adapter's folder. Reads the configuration and the names of its tensors when it is made.

    Raises CheckpointError if a file is missing or malformed, or if the adapter needs more than adding a product to a
    weight.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / ADAPTER_FILE
        self._config = _read_config(folder)
        shapes = {name: info.shape for name, info in read_header(self._path).items()}
        self._names: dict[str, dict[str, str]] = {}  # module -> part -> the tensor's name
        unknown = []
        for name in shapes:
            match = _NAME.fullmatch(name)
            if match is None:
                unknown.append(f"{name} {shapes[name]}")
            else:
                self._names.setdefault(match["module"], {})[match["part"]] = name
        if unknown:
            raise self._error("holds tensors that are no lora_A or lora_B of a linear layer", unknown)
        alone = [module for module, parts in self._names.items() if len(parts) != 2]
        if alone:
            raise self._error("lacks lora_A or lora_B", alone)
        if not self._names:
            raise CheckpointError(f"{self._path}: the adapter holds no tensors")
        self._shapes = shapes
        check_finite(self._path)

    def check(self, expected: Mapping[str, Shape]) -> None:
        """Raises CheckpointError naming every module that T3 lacks, and every pair whose product has another shape than
        its weight. `expected`: T3's tensors."""
        problems = []
        for module, parts in self._names.items():
            name = self._weight_name(module, expected)
            down, up = self._shapes[parts["A"]], self._shapes[parts["B"]]
            if name is None:
                problems.append(f"{module}.weight is no weight of T3")
            elif len(down) != 2 or len(up) != 2 or up[1] != down[0] or (up[0], down[1]) != expected[name]:
                problems.append(f"{module}: lora_B {up} times lora_A {down} does not fit {name} {expected[name]}")
        if problems:
            raise self._error("does not fit this model", problems)

    def merge(self, tensors: dict[str, Tensor], prefix: str) -> None:
        """Replace those of `tensors`, by names without `prefix`, that the adapter changes."""
        names = {prefix + name: name for name in tensors}
        for module, parts in self._names.items():
            whole = self._weight_name(module, names)
            if whole is None:
                continue
            pair = load_tensors(self._path, {name: self._shapes[name] for name in parts.values()})
            product = pair[parts["B"]] @ pair[parts["A"]]
            name = names[whole]
            tensors[name] = tensors[name] + self._scale(module, len(pair[parts["A"]])) * product

    def _weight_name(self, module: str, names: Mapping[str, object]) -> str | None:
        candidates = (f"{module}.weight", f"{_T3_PREFIX}{module}.weight")
        return next((name for name in candidates if name in names), None)

    def _scale(self, module: str, rank: int) -> float:
        alpha = float(_by_pattern(self._config.get("alpha_pattern"), module) or self._config["lora_alpha"])
        return alpha / math.sqrt(rank) if self._config.get("use_rslora") else alpha / rank

    def _error(self, what: str, names: list[str]) -> CheckpointError:
        return CheckpointError(f"{self._folder}: the adapter {what}: {'; '.join(sorted(names))}")


def _by_pattern(patterns: Mapping[str, float] | None, module: str) -> float | None:
    """PEFT's rule: the value of the first key that is the end of the module's name."""
    for key, value in (patterns or {}).items():
        if re.fullmatch(rf"(?:.*\.)?{key}", module):
            return value
    return None


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder}: an adapter needs {_CONFIG} and {ADAPTER_FILE}; {_CONFIG} is missing"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise CheckpointError(f"{path}: peft_type is {kind!r}; it must be 'LORA'")
    if not isinstance(config.get("lora_alpha"), int | float):
        raise CheckpointError(f"{path}: lora_alpha is {config.get('lora_alpha')!r}; it must be a number")
    refused = [
        f"{key} is {config[key]!r}"
        for key, allowed in (
            ("use_dora", False),
            ("fan_in_fan_out", False),
            ("bias", "none"),
            ("modules_to_save", None),
        )
        if config.get(key, allowed) not in (allowed, None, [])
    ]
    if refused:
        raise CheckpointError(f"{path}: {'; '.join(refused)}, which cannot be merged into T3's weights")
    return config
