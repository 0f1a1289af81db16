"""Engines: text and a Voice in, audio out. `load` is the only place that picks backends, and it does so lazily."""

from __future__ import annotations

import os

from engines.api import NULL_OBSERVER, Engine, Observer
from engines.config import EngineConfig

__all__ = ["EngineConfig", "load"]


def load(config: EngineConfig, observer: Observer = NULL_OBSERVER) -> Engine:
    """The engine that `config` describes, with its weights verified and loaded. Slow; call it off the event loop.

    `observer` is told of the engine's work from here on.
    Raises CheckpointError when weights are missing or wrong, InvalidInput when the configuration cannot be met.
    """
    # OpenMP reads this once, when torch loads. T3's and S3Gen's threads take turns on the same cores; workers that spin
    # while they wait then slow small nets down twentyfold. On idle cores sleeping costs nothing that we could measure.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from engines.factory import build_engine

    return build_engine(config, observer)
