"""Engines: text and a Voice in, audio out. `load` is the only place that picks backends, and it does so lazily."""

from __future__ import annotations

from engines.api import Engine
from engines.config import EngineConfig

__all__ = ["EngineConfig", "load"]


def load(config: EngineConfig) -> Engine:
    """The engine that `config` describes, with its weights verified and loaded. Slow; call it off the event loop.

    Raises CheckpointError when weights are missing or wrong, InvalidInput when the configuration cannot be met.
    """
    from engines.assembly import assemble

    return assemble(config)
