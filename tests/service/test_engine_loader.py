"""Models that are loaded one after the other while the server answers, then measured together."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engines.api import Engine, EngineInfo, Limits
from engines.errors import CheckpointError, EngineFailure, InvalidInput
from engines.fake import FakeEngine, Script
from service.config import build_config
from service.engine_loader import LazyEngine, LazyModels, lazy_models

EXPECTED = EngineInfo("auto", "cpu", "auto", "auto", Limits(1000, 1000, 16), notice="The model is being loaded.")


def lazy(engine: FakeEngine, log: list[str] | None = None, name: str = "") -> LazyEngine:
    def load() -> Engine:
        if log is not None:
            log.append(engine.info.model)
        return engine

    return LazyEngine(load, EXPECTED, name)


async def test_models_are_loaded_in_order_and_named_once_they_are():
    log: list[str] = []
    engines = [FakeEngine(model=model, max_streams=4) for model in ("turbo", "standard")]
    models = LazyModels([lazy(engines[0], log), lazy(engines[1], log, "mine")], measured=False)
    assert (models.names, models.first.default_voice) == (("auto", "mine"), None)
    with pytest.raises(EngineFailure):
        models.first.count_text_tokens("word")
    await models.warm_up()
    assert log == ["turbo", "standard"]
    assert (models.names, models.max_streams) == (("turbo", "mine"), 4)
    assert models.named("mine").default_voice is engines[1].default_voice
    await models.close()
    assert all(engine.closed for engine in engines)


async def test_two_models_of_one_name_are_refused():
    models = LazyModels([lazy(FakeEngine(model="turbo")), lazy(FakeEngine(model="turbo"))], measured=False)
    with pytest.raises(InvalidInput) as raised:
        await models.warm_up()
    assert raised.value.reason == "MODEL_NAME_TAKEN"
    assert "turbo-2=MODEL" in str(raised.value)


async def test_each_model_says_what_the_device_carries_of_all():
    slow = FakeEngine(Script(underruns_from=3), model="slow", max_streams=8)
    models = LazyModels([lazy(FakeEngine(model="fast", max_streams=8)), lazy(slow)], measured=True)
    await models.warm_up()
    assert [(info.limits.max_streams, info.limits.max_offline_streams) for info in models.infos] == [(2, 8), (2, 8)]
    assert (models.max_streams, models.max_offline_streams) == (2, 8)


@pytest.mark.parametrize("fails", [0, 1])
async def test_a_model_that_cannot_be_loaded_ends_the_start(fails: int):
    def failing() -> Engine:
        raise CheckpointError("its weights are missing")

    loads: list[Callable[[], Engine]] = [lambda: FakeEngine(model="a"), lambda: FakeEngine(model="b")]
    loads[fails] = failing
    with pytest.raises(CheckpointError, match="missing"):
        await LazyModels([LazyEngine(load, EXPECTED) for load in loads], measured=False).warm_up()


def test_the_options_name_the_models_before_they_are_loaded():
    models = lazy_models(build_config(model=("tiny", "mine=random:tiny"), device="cpu", max_streams=3))
    assert models.names == ("tiny", "mine")
    assert {info.notice for info in models.infos} == {"The model is being loaded."}
    assert (models.max_streams, models.loading) == (3, False)
