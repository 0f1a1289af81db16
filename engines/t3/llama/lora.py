"""A LoRA adapter in PEFT's layout, whose product of two thin matrices is added to weights as they are loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from engines.checkpoints.json_file import read_json
from engines.checkpoints.tensor_file import FLOATING, Shape, TensorInfo, read_header
from engines.checkpoints.weights import check_finite, load_tensors
from engines.errors import CheckpointError

ADAPTER_FILE = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_NAME = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<part>[AB])(?:\.default)?\.weight")
# What adds more to a model than a product to each weight
_REFUSED = (
    "use_dora", "fan_in_fan_out", "bias", "modules_to_save", "lora_bias", "layer_replication", "use_qalora",
    "trainable_token_indices", "alora_invocation_tokens",
)  # fmt: skip
_CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq")  # such a start leaves the model's weights others than it found
_T3_PREFIX = "tfmr."  # adapters are trained on T3 or on the Llama inside it


class Lora:
    """An adapter's folder. Reads the configuration and the names of its tensors when it is made.

    Raises CheckpointError if a file is missing or malformed, or if the adapter needs more than adding a product to a
    weight.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / ADAPTER_FILE
        self._config = _read_config(folder)
        infos = read_header(self._path)
        self._shapes = {name: info.shape for name, info in infos.items()}
        self._names = self._by_module(infos)  # module -> part -> the tensor's name
        check_finite(self._path)

    def _by_module(self, infos: Mapping[str, TensorInfo]) -> dict[str, dict[str, str]]:
        """Returns the names of each module's two tensors. Raises CheckpointError if there are other tensors."""
        names: dict[str, dict[str, str]] = {}
        unknown, twice = [], []
        for name, info in infos.items():
            match = _NAME.fullmatch(name)
            if match is None or info.dtype not in FLOATING:
                unknown.append(f"{name} {info.shape}" + ("" if match is None else f" of dtype {info.dtype}"))
                continue
            parts = names.setdefault(match["module"].removeprefix(_T3_PREFIX), {})
            if parts.setdefault(match["part"], name) != name:
                twice.append(f"{parts[match['part']]} and {name}")
        if unknown:
            raise self._error("holds tensors that are no lora_A or lora_B of a linear layer", unknown)
        if twice:
            raise self._error("holds tensors that are for the same weight", twice)
        alone = [module for module, parts in names.items() if len(parts) != 2]
        if alone:
            raise self._error("lacks lora_A or lora_B", alone)
        if not names:
            raise CheckpointError(f"{self._path}: the adapter holds no tensors")
        return names

    def check(self, expected: Mapping[str, Shape]) -> None:
        """Raises CheckpointError naming every module that T3 lacks, and every pair whose product has another shape than
        its weight. `expected`: T3's tensors."""
        problems = []
        for module, parts in self._names.items():
            name = self._weight_name(module, expected)
            down, up = self._shapes[parts["A"]], self._shapes[parts["B"]]
            if name is None:
                problems.append(f"{module}.weight is no weight of T3")
            elif 0 in (*down, *up):
                problems.append(f"{module}: lora_B {up} times lora_A {down} is empty")
            elif (rank := self._config_rank(parts["A"])) not in (None, down[0]):
                problems.append(f"{module}: lora_A {down} has rank {down[0]}, {_CONFIG} says {rank}")
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
            merged = tensors[name] + self._scale(parts["A"]) * product
            if not merged.isfinite().all():
                raise self._error("makes weights that are not finite", [module])
            tensors[name] = merged

    def _weight_name(self, module: str, names: Mapping[str, object]) -> str | None:
        candidates = (f"{module}.weight", f"{_T3_PREFIX}{module}.weight")
        return next((name for name in candidates if name in names), None)

    def _scale(self, name: str) -> float:
        """Returns the factor of the product of the lora_A of this name."""
        alpha, rank = float(self._of(name, "alpha_pattern", "lora_alpha")), self._shapes[name][0]
        return alpha / math.sqrt(rank) if self._config.get("use_rslora") else alpha / rank

    def _config_rank(self, name: str) -> object:
        return self._of(name, "rank_pattern", "r")

    def _of(self, name: str, patterns: str, default: str) -> Any:
        """Returns PEFT's value for a tensor: of the first pattern that is the end of its module's name, or of all."""
        match = _NAME.fullmatch(name)
        assert match is not None, "others are refused before"
        for key, value in (self._config.get(patterns) or {}).items():
            if re.fullmatch(rf"(?:.*\.)?(?:{key})", match["module"]):
                return value
        return self._config.get(default)

    def _error(self, what: str, names: list[str]) -> CheckpointError:
        return CheckpointError(f"{self._folder}: the adapter {what}: {'; '.join(sorted(names))}")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG
    if folder.is_dir() and not path.exists():
        raise CheckpointError(f"{folder}: an adapter needs {_CONFIG} and {ADAPTER_FILE}; {_CONFIG} is missing")
    config = read_json(path)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise CheckpointError(f"{path}: peft_type is {kind!r}; it must be 'LORA'")
    for key, is_allowed, allowed in (
        ("lora_alpha", _is_finite, "a finite number"),
        ("use_rslora", lambda value: value is None or isinstance(value, bool), "true or false"),
        ("alpha_pattern", _are_finite, "an object of finite numbers by regular expressions"),
        ("rank_pattern", _are_finite, "an object of finite numbers by regular expressions"),
    ):
        if not is_allowed(config.get(key)):
            raise CheckpointError(f"{path}: {key} is {_short(config.get(key))}; it must be {allowed}")
    refused = [f"{key} is {_short(config[key])}" for key in _REFUSED if not _is_off(config.get(key))]
    started = config.get("init_lora_weights")
    if isinstance(started, str) and started.lower().startswith(_CHANGES_THE_BASE):
        refused.append(f"init_lora_weights is {started!r}")
    if refused:
        raise CheckpointError(f"{path}: {'; '.join(refused)}, which cannot be merged into T3's weights")
    return config


def _is_off(value: object) -> bool:
    return value is None or value is False or value == "none" or value == []


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # of an integer
        return False


def _are_finite(patterns: object) -> bool:
    if patterns is None:
        return True
    try:
        return isinstance(patterns, dict) and all(re.compile(key) and _is_finite(patterns[key]) for key in patterns)
    except (re.error, RecursionError):
        return False


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
