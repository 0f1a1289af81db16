"""What several models have in common on one device: their memory, summed before any is loaded, and S3Gen where its
weights are equal."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from engines.config import EngineConfig
from engines.errors import EngineError, InvalidInput, unsupported
from engines.model_spec import ModelSpec
from engines.playback import ActiveStreams

if TYPE_CHECKING:  # they import torch and the tokenizers' library
    from engines.checkpoints.checkpoint import Checkpoint
    from engines.s3gen.select_runtime import Chosen
    from engines.s3gen.streaming.batcher import WindowBatcher

    S3Gen = tuple[Chosen, WindowBatcher]

_MB = 1_000_000
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


class SharedDevice:
    """The device of the engines of one process, which are loaded one after the other."""

    def __init__(self, configs: Sequence[EngineConfig], names: Sequence[str] = ()) -> None:
        """`configs`: of all engines; they differ in their models alone. `names`: those by which the models are called,
        empty for a model's own; without `names` they are called by none."""
        self._configs = configs
        self._names = names
        self._checked = len(configs) < 2  # one model checks its own memory
        self._s3gen: dict[Hashable, S3Gen] = {}
        self.active_streams = ActiveStreams()  # of all engines
        self.guided = False  # whether a model has guidance; known once the memory has been summed

    @property
    def several(self) -> bool:
        return len(self._configs) > 1

    def check(self, check_model: Callable[[EngineConfig], str]) -> None:
        """Checks all models of several, once, before the first is built: each by `check_model`, which returns its name,
        those that no hub is asked for first; then their names, and the sum of their memory.

        Raises what `check_model` raises, its message with the model's number and option before it, and InvalidInput for
        two models of one name or for a device with less memory than the sum.
        """
        if self._checked:
            return
        self._check_each(check_model)
        from engines.device import device_memory, host_memory_bytes, resolve_device

        device = resolve_device(self._configs[0].device)
        memory = device_memory(device)
        parts: dict[str, int] = {} if memory is None else {"CUDA context": _context_bytes()}
        for number, config in enumerate(self._configs, 1):
            parts |= self._parts_of(config, _named(number, config), device)
        check_sum(parts, host_memory_bytes() if memory is None else memory.total_bytes, on_gpu=memory is not None)
        self._checked = True

    def _check_each(self, check_model: Callable[[EngineConfig], str]) -> None:
        from engines.checkpoints.checkpoint import needs_hub

        own_names: dict[int, str] = {}
        for number, config in sorted(enumerate(self._configs, 1), key=lambda each: needs_hub(each[1].model)):
            try:
                own_names[number] = check_model(config)
            except EngineError as error:
                error.args = (f"{_named(number, config)}: {error}",)
                raise
        check_names([given or own_names[number] for number, given in enumerate(self._names, 1)])

    def _parts_of(self, config: EngineConfig, name: str, device: str) -> dict[str, int]:
        from engines.checkpoints.checkpoint import default_cache_dir, open_checkpoint
        from engines.checkpoints.hub import HuggingFaceHub
        from engines.published.graphs import find_published

        hub = HuggingFaceHub((config.cache_dir or default_cache_dir()) / "hub")
        if (folder := find_published(config.model, hub)) is not None:
            return {name: sum(path.stat().st_size for path in folder.rglob("*.onnx*") if path.is_file())}
        checkpoint = open_checkpoint(config.model, cache_dir=config.cache_dir, seed=config.weights_seed, device=device)
        self.guided = self.guided or checkpoint.spec.is_llama
        s3gen = f"S3Gen {digest(checkpoint.s3gen_path)[:8]}"  # of equal weights: counted once
        if device == "cpu":
            return {name: _t3_bytes(config, checkpoint.spec), s3gen: _s3gen_bytes_on_cpu(checkpoint)}
        return {name: _t3_bytes_on_gpu(config, checkpoint.spec), s3gen: _s3gen_bytes_on_gpu(checkpoint.spec)}

    def without_vllm(self, config: EngineConfig, device: str, *, guided: bool) -> EngineConfig:
        """The configuration for one of several models: vLLM takes a share of a GPU that it measures while nothing else
        is loaded, so T3 runs in this process. Raises InvalidInput if vLLM is asked for."""
        if not self.several:
            return config
        if config.t3 == "vllm":
            raise unsupported("t3", "vllm", "a server of several models", "auto, torch, torch_graphs or onnx")
        automatic = config.t3 == "auto" and device != "cpu"
        return replace(config, t3="torch" if guided else "torch_graphs") if automatic else config

    def s3gen(self, checkpoint: Checkpoint, config: EngineConfig, device: str, make: Callable[[], S3Gen]) -> S3Gen:
        """The runtime and batcher that `make` returns, or those of a model that was loaded before, if its weights and
        its settings are equal."""
        if not self.several:
            return make()
        spec, settings = checkpoint.spec, (config.s3gen, config.s3gen_dtype, config.decode, device)
        key = (digest(checkpoint.s3gen_path), spec.flow, spec.vocoder, settings)
        if key in self._s3gen:
            chosen, batcher = self._s3gen[key]
            return chosen, batcher.shared()
        self._s3gen[key] = made = make()
        return made


def _named(number: int, config: EngineConfig) -> str:
    return f"model {number} ({config.model})"


def check_names(names: Sequence[str]) -> None:
    """Raises InvalidInput if two models have one name."""
    for name in names:
        if names.count(name) > 1:
            allowed = "names that differ, such as other=MODEL"
            message = f"model is given twice as {name!r}: give one of them another name, such as {name}-2=MODEL."
            raise InvalidInput("model", message, "MODEL_NAME_TAKEN", value=name, allowed=allowed)


def check_sum(parts: Mapping[str, int], available_bytes: int, *, on_gpu: bool) -> None:
    """Raises InvalidInput if the parts, in bytes, are more than the device has."""
    needed_bytes = sum(parts.values())
    if needed_bytes <= available_bytes:
        return
    summands = " + ".join(f"{name} {size / _MB:.0f}" for name, size in parts.items())
    where, what = ("GPU", "memory") if on_gpu else ("machine", "weights alone")
    allowed = f"models that need at most {available_bytes / _MB:.0f} MB"
    message = (
        f"model names several, whose {what} would take {summands} = {needed_bytes / _MB:.0f} MB; this {where} has "
        f"{available_bytes / _MB:.0f} MB. Serve fewer models here" + (", or fewer streams." if on_gpu else ".")
    )
    raise InvalidInput("model", message, "MODELS_TOO_LARGE", value=f"{needed_bytes / _MB:.0f} MB", allowed=allowed)


def digest(path: Path) -> str:
    """The SHA-256 of a file of weights, in hexadecimal."""
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@cache
def _digest(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _context_bytes() -> int:
    from engines.t3.vllm.memory import CONTEXT_BYTES

    return CONTEXT_BYTES


def _t3_bytes(config: EngineConfig, spec: ModelSpec) -> int:
    """T3's weights on a CPU, in the smallest precision that `auto` may choose."""
    from engines.t3.load import expected_tensors

    values = sum(math.prod(shape) for shape in expected_tensors(spec).values())
    return values * _BYTES.get(config.t3_dtype, 1)


def _s3gen_bytes_on_cpu(checkpoint: Checkpoint) -> int:
    from engines.s3gen.nets import flow, vocoder_weights

    shapes = [shape for net in (flow, vocoder_weights) for shape in net.expected_tensors(checkpoint.spec).values()]
    return sum(map(math.prod, shapes)) * _BYTES["float32"]


def _t3_bytes_on_gpu(config: EngineConfig, spec: ModelSpec) -> int:
    """T3 as it is planned for one model: with the KV cache of all streams, or its weights where that grows with use."""
    from engines.t3.gpu.memory import static_plan
    from engines.t3.load import expected_tensors

    if spec.is_llama or config.t3 == "torch":
        return sum(math.prod(shape) for shape in expected_tensors(spec).values()) * _BYTES["float32"]
    positions = min(config.max_positions, spec.t3.positions)
    per_value = _BYTES.get(config.t3_dtype, _BYTES["float16"])
    plan = static_plan(
        spec.t3, max_streams=config.max_streams, max_positions=positions, bytes_per_value=per_value, s3gen=0
    )
    return plan.total - plan.context


def _s3gen_bytes_on_gpu(spec: ModelSpec) -> int:
    from engines.t3.vllm.memory import s3gen_bytes

    return s3gen_bytes(spec.flow)
