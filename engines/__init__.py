"""Speech engines: text and a Voice in, audio out.

    import asyncio

    import engines
    from engines.api import AudioChunk, Segment
    from engines.config import Sampling

    async def main() -> None:
        engine = engines.load(engines.EngineConfig(model="tiny", device="cpu"))
        stream = await engine.open(engine.default_voice, Sampling(seed=1))
        async for event in stream.speak(Segment(0, "Good morning.")):
            if isinstance(event, AudioChunk):
                ...  # event.samples: float32, mono, 24 kHz
        await stream.close()
        await engine.close()

    asyncio.run(main())

`load` imports the model libraries of the configured backends; importing this package imports none.
"""

from __future__ import annotations

import os

from engines.api import NULL_OBSERVER, Engine, Observer
from engines.config import EngineConfig
from engines.shared_device import SharedDevice

__all__ = ["EngineConfig", "SharedDevice", "load"]


def load(config: EngineConfig, observer: Observer = NULL_OBSERVER, shared: SharedDevice | None = None) -> Engine:
    """Load the engine that `config` describes. It takes seconds: a server calls it on a thread.

    `observer` receives the engine's callbacks from here on. `shared` is the device that it shares with other engines
    of this process; None: it is alone.
    Raises CheckpointError if weights are missing or wrong, InvalidInput if the configuration is not possible.
    """
    # OpenMP reads this once, when torch is imported. T3's and S3Gen's threads share the cores: workers that spin while
    # they wait slow small nets down twentyfold. On idle cores the passive policy costs nothing measurable.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from engines.factory import build_engine

    return build_engine(config, observer, shared)
