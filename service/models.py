"""The models of a server: an engine for each, by name. A server of one model is the case of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engines.api import DeviceMemory, Engine, EngineInfo
from engines.errors import quoted
from engines.health import Health
from service.errors import NotFound


class Models:
    """Engines in the order of the server's options. The first one speaks where a stream names no model.

    `health` is healthy while all of them are. Every engine admits as many streams as the server does in all.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        """`engines`: at least one."""
        self._engines = tuple(engines)
        self.health = Health()
        for engine in self._engines:
            engine.health.watch(lambda _: self.health.set(all(each.health.healthy for each in self._engines)))
            engine.health.watch_loss(self.health.lose)

    @property
    def engines(self) -> tuple[Engine, ...]:
        return self._engines

    @property
    def first(self) -> Engine:
        return self._engines[0]

    @property
    def infos(self) -> tuple[EngineInfo, ...]:
        return tuple(engine.info for engine in self._engines)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(info.model for info in self.infos)

    def named(self, name: str, field: str = "settings.model") -> Engine:
        """Returns the engine of a model; the first one for an empty name. Raises NotFound naming those there are."""
        if not name:
            return self.first
        for engine in self._engines:
            if engine.info.model == name:
                return engine
        raise model_not_found(name, self.names, field)

    @property
    def max_streams(self) -> int:
        """Streams of all models together."""
        return min(info.limits.max_streams for info in self.infos)

    @property
    def max_offline_streams(self) -> int | None:
        """The same for streams without a listener; None: as `max_streams`."""
        bounds = [info.limits.max_offline_streams for info in self.infos]
        return min((bound for bound in bounds if bound is not None), default=None)

    def wrap(self, wrapper: Callable[[Engine], Engine]) -> None:
        """Put a wrapper around every engine."""
        self._engines = tuple(map(wrapper, self._engines))

    def device_memory(self) -> DeviceMemory | None:
        """As Engine.device_memory; all engines are on one device."""
        return self.first.device_memory()

    async def warm_up(self) -> None:
        """Warm the engines up, one after the other. Raises what they raise."""
        for engine in self._engines:
            await engine.warm_up()

    async def close(self) -> None:
        for engine in self._engines:
            await engine.close()


def model_not_found(name: str, names: Sequence[str], field: str = "model") -> NotFound:
    """The error for a name that is none of `names`."""
    allowed = ", ".join(names)
    message = f"There is no model {quoted(name)} on this server; allowed names are {allowed}."
    return NotFound("MODEL_NOT_FOUND", message, field=field, value=name, allowed=allowed)
