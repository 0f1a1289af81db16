"""Settles the options of an engine that are `auto`: by what was measured on this CPU, now or at an earlier start."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from engines.checkpoints.checkpoint import Checkpoint, default_cache_dir
from engines.conditioning.builtin import load_builtin
from engines.config import EngineConfig
from engines.device import cpu_threads, host_memory_bytes
from engines.kernels.dense import int8_supported
from engines.kernels.library import amx_supported, best_simd_width
from engines.realtime.ladder import Choice, Setting, Timings, choose, try_settings
from engines.realtime.measure import MeasuredTimings
from engines.realtime.remembered import fingerprint, path_of, recall, remember
from engines.s3gen.flow_steps import steps_to_measure, with_steps, worth_measuring
from engines.s3gen.runtime import Runtime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime
from engines.s3gen.select_runtime import ReferenceRuntime
from engines.s3gen.streaming.schedule import SCHEDULES
from engines.t3.net import Net

_log = logging.getLogger(__name__)


class CpuNets:
    """The nets on a CPU: those that were measured are those that serve, so nothing is loaded twice."""

    def __init__(self, checkpoint: Checkpoint, make_t3: Callable[[str], Net]) -> None:
        """`make_t3` loads T3 in a precision."""
        self._checkpoint, self._steps = checkpoint, "auto"
        self.reference = ReferenceRuntime(checkpoint, "cpu")
        self._make_t3 = make_t3
        self._t3: dict[str, Net] = {}

    def t3(self, t3_dtype: str) -> Net:
        """T3 in this precision; another one's memory is freed."""
        if t3_dtype not in self._t3:
            self._t3.clear()
            self._t3[t3_dtype] = self._make_t3(t3_dtype)
        return self._t3[t3_dtype]

    def take_t3(self, t3_dtype: str) -> Net:
        """T3 in this precision, for its one user."""
        net = self.t3(t3_dtype)
        self._t3.clear()
        return net

    def take_s3gen(self, steps: str) -> ReferenceRuntime:
        """S3Gen with this many steps, as `with_steps`; another one's memory is freed."""
        if with_steps(self._checkpoint, steps) != with_steps(self._checkpoint, self._steps):
            self.reference.unload()
            self.reference = ReferenceRuntime(with_steps(self._checkpoint, steps), "cpu")
        self._steps = steps
        return self.reference

    def s3gen(self, decode: str, steps: str) -> Runtime:
        """S3Gen in this mode, with this many steps."""
        loaded = self.take_s3gen(steps).loaded
        return TorchCachedRuntime(loaded) if decode == "cached" else loaded


def settings_of(config: EngineConfig, device: str, steps: Sequence[str] = ()) -> tuple[Setting, ...]:
    """The settings that the configuration leaves open, from the most to the least faithful; one if it is settled.

    Only T3 in this process and S3Gen on torch are measured: with other backends `auto` is the reference.
    `steps`: those among which the speed may choose, `steps_to_measure` of the checkpoint.
    """
    open_here = device == "cpu" and config.s3gen in ("auto", "torch") and not config.strict_reference
    measured = open_here and config.t3 != "vllm"
    decodes: tuple[str, ...] = (config.decode,)
    if config.decode == "auto":
        decodes = ("reference", "cached") if measured else ("reference",)
    allowed: Sequence[str] = (config.s3gen_steps,)
    if measured and config.s3gen_steps == "auto" and len(steps) > 1:
        allowed = steps
    settings = [Setting(decode, config.t3_dtype, count) for count in allowed for decode in decodes]
    if measured and config.t3 in ("auto", "torch") and config.t3_dtype == "auto" and int8_supported():
        settings.append(Setting(decodes[-1], "int8", allowed[-1]))
    return tuple(settings)


def settle(
    config: EngineConfig,
    checkpoint: Checkpoint,
    device: str,
    nets: CpuNets,
    *,
    timings: Timings | None = None,
    clock: Callable[[], float] = time.monotonic,
    load_average: Callable[[], float] = lambda: os.getloadavg()[0],
) -> tuple[EngineConfig, Choice | None]:
    """Returns the configuration with `decode`, `t3_dtype` and `s3gen_steps` settled, and the choice; None if there was
    none to make.

    `timings`: by default those of the nets on this machine; `load_average`: how many programs compute or wait to
    """
    settings = _within_memory(checkpoint, settings_of(config, device, steps_to_measure(checkpoint)))
    if len(settings) == 1:
        return _with(config, settings[0]), None
    paths = (with_steps(checkpoint, setting.s3gen_steps).s3gen_path for setting in settings)
    weights = (checkpoint.t3_path, *dict.fromkeys(paths))
    name = fingerprint(weights, settings, cpu_threads(), best_simd_width() or 0, amx_supported())
    path = path_of(config.cache_dir or default_cache_dir(), name)
    trials, how = recall(path), f"measured at an earlier start; remove {path} to measure again"
    if trials is None or not choose(trials, config.max_streams).keeps_real_time:
        began_s, busy = clock(), load_average() > (os.cpu_count() or 1)
        voice = load_builtin(checkpoint.conds_path) if checkpoint.conds_path else None
        schedule = SCHEDULES[config.schedule]
        trials = try_settings(settings, timings or MeasuredTimings(nets.t3, nets.s3gen, schedule, voice), clock)
        how = f"measured in {clock() - began_s:.1f} s"
        if busy:
            how += ", not kept, since other programs keep this machine busy"
        else:
            remember(path, trials)
    choice = choose(trials, config.max_streams)
    _log.log(logging.INFO if choice.keeps_real_time else logging.WARNING, "%s; %s", choice.reason, how)
    return _with(config, choice.setting), choice


def _within_memory(checkpoint: Checkpoint, settings: tuple[Setting, ...]) -> tuple[Setting, ...]:
    """The settings but those whose caches are too large for this machine; at least one."""
    host_bytes = host_memory_bytes()
    kept = tuple(
        setting
        for setting in settings
        if worth_measuring(with_steps(checkpoint, setting.s3gen_steps), setting.decode, host_bytes)
    )
    if len(kept) < len(settings):
        _log.info("cached decoding with guided steps is left out: %.1f GB of memory are too few", host_bytes / 1e9)
    return kept or settings[:1]


def _with(config: EngineConfig, setting: Setting) -> EngineConfig:
    return replace(config, decode=setting.decode, t3_dtype=setting.t3_dtype, s3gen_steps=setting.s3gen_steps)
