"""Several models on one device: their memory is summed before any is loaded, equal weights of S3Gen are shared."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import engines
from engines import device, factory
from engines.api import AudioChunk, DeviceMemory, Segment
from engines.checkpoints.checkpoint import EMBEDDED, open_folder
from engines.checkpoints.hub import HuggingFaceHub
from engines.config import EngineConfig
from engines.errors import CheckpointError, EngineError, EngineFailure, InvalidInput
from engines.pipeline import Pipeline
from engines.shared_device import SharedDevice, check_sum
from engines.t3.guidance import VARIABLE
from tests.engines.t3.llama.test_lora import adapter

ONE = EngineConfig(model="tiny", device="cpu", threads=1, max_streams=2, strict_reference=True, t3_dtype="float32")


def of_models(*models: str | Path, **options: object) -> list[EngineConfig]:
    return [replace(ONE, model=str(model), **options) for model in models]  # type: ignore[arg-type]


@asynccontextmanager
async def loaded(*models: str | Path) -> AsyncIterator[list[Pipeline]]:
    configs = of_models(*models)
    shared = SharedDevice(configs)
    made = [await asyncio.to_thread(engines.load, config, shared=shared) for config in configs]
    pipelines = [engine for engine in made if isinstance(engine, Pipeline)]
    yield pipelines
    for engine in pipelines:
        await engine.close()


async def spoken(engine: Pipeline, text: str = "Good morning.") -> np.ndarray:
    assert engine.default_voice is not None
    stream = await engine.open(engine.default_voice, replace(engine.info.sampling, seed=1, max_speech_tokens=30))
    try:
        return np.concatenate(
            [event.samples async for event in stream.speak(Segment(0, text)) if isinstance(event, AudioChunk)]
        )
    finally:
        await stream.close()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model as a folder of its own: equal weights in another place."""
    folder = tmp_path_factory.mktemp("models") / "copy"
    shutil.copytree(EMBEDDED, folder)
    return folder


async def test_equal_weights_of_s3gen_have_one_batcher_and_others_their_own(copy: Path):
    async with loaded("tiny", copy, "random:multilingual-tiny") as (tiny, same, guided):
        assert tiny.stages.s3gen is same.stages.s3gen
        assert tiny.stages.t3 is not same.stages.t3
        assert guided.stages.s3gen is not tiny.stages.s3gen
        assert tiny._active_streams is same._active_streams is guided._active_streams
        alone, together = await spoken(tiny), await asyncio.gather(*(map(spoken, (tiny, same, guided))))
        assert [len(samples) for samples in together[:2]] == [len(alone)] * 2
        assert np.abs(together[1] - alone).max() < 1e-3, "another stream in the call changes rounding alone"


async def test_a_shared_batcher_lives_until_its_last_engine_is_closed(copy: Path):
    async with loaded("tiny", copy) as (tiny, same):
        await tiny.close()
        assert len(await spoken(same))
        await same.close()
        with pytest.raises(EngineFailure):
            await spoken(same)


def test_the_sum_is_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "host_memory_bytes", lambda: 1_000_000)
    monkeypatch.setattr("engines.factory.load_net", lambda *_, **__: pytest.fail("loaded"))
    configs = of_models("tiny", "random:multilingual-tiny")
    with pytest.raises(InvalidInput) as raised:
        engines.load(configs[0], shared=SharedDevice(configs))
    assert (raised.value.reason, raised.value.field) == ("MODELS_TOO_LARGE", "model")
    for word in ("model 1 (tiny)", "model 2 (random:multilingual-tiny)", "S3Gen", "this machine has 1 MB"):
        assert word in str(raised.value)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_equal_weights_of_s3gen_are_counted_once(on_gpu: bool, copy: Path, monkeypatch: pytest.MonkeyPatch):
    if on_gpu:
        monkeypatch.setattr(device, "resolve_device", lambda name: "cuda")
        monkeypatch.setattr(device, "device_memory", lambda name: DeviceMemory(0, 1))
    else:
        monkeypatch.setattr(device, "host_memory_bytes", lambda: 1)

    def needed_bytes(*models: str | Path) -> tuple[int, int]:
        with pytest.raises(InvalidInput) as raised:
            SharedDevice(of_models(*models, t3_dtype="float16")).check(lambda config: config.model)
        said = str(raised.value)
        return int(said.partition(" = ")[2].split()[0]), said.count("S3Gen")

    same, other = needed_bytes("tiny", copy), needed_bytes("tiny", "random:multilingual-tiny")
    assert (same[1], other[1]) == (1, 2)
    if on_gpu:
        assert needed_bytes("tiny", copy, "random:tiny")[0] > other[0] > same[0]


def test_what_fits_is_not_refused():
    check_sum({"a": 60, "b": 40}, 100, on_gpu=False)
    with pytest.raises(InvalidInput, match=r"a 60 \+ b 41 = 101 MB; this GPU has 100 MB\. Serve fewer models"):
        check_sum({"a": 60_000_000, "b": 41_000_000}, 100_000_000, on_gpu=True)


def test_one_model_is_not_summed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device, "host_memory_bytes", lambda: 1)
    SharedDevice([ONE]).check(lambda config: config.model)


def refused_unbuilt(monkeypatch: pytest.MonkeyPatch, configs: list[EngineConfig], *names: str) -> EngineError:
    """The error of loading the first of these models, before which nothing was built."""

    def built(*_: object) -> None:
        raise AssertionError("a model was built first")

    monkeypatch.setattr(factory, "settle", built)
    with pytest.raises(EngineError) as raised:
        engines.load(configs[0], shared=SharedDevice(configs, names))
    return raised.value


def damaged(copy: Path, folder: Path) -> Path:
    """A copy whose T3 lacks a tensor and has another of a wrong shape."""
    shutil.copytree(copy, folder)
    path = open_folder(folder).t3_path
    tensors = load_file(path)
    tensors.pop("speech_head.weight")
    tensors["text_emb.weight"] = tensors["text_emb.weight"][:-1].copy()
    save_file(tensors, path)
    return folder


def test_wrong_weights_of_the_second_model_are_found_before_the_first_is_built(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = damaged(copy, tmp_path / "damaged")
    error = refused_unbuilt(monkeypatch, of_models("tiny", folder))
    assert isinstance(error, CheckpointError)
    for word in (f"model 2 ({folder})", "speech_head.weight", "text_emb.weight"):
        assert word in str(error)


def test_a_missing_folder_is_found_before_the_hub_is_asked_for_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(HuggingFaceHub, "cached", lambda *_: pytest.fail("the hub was asked first"))
    for place in (tmp_path / "no", "not a model"):
        error = refused_unbuilt(monkeypatch, of_models("standard", "tiny", place))
        assert isinstance(error, CheckpointError)
        assert f"model 3 ({place})" in str(error)


def test_an_adapter_that_fits_not_all_models_is_found_before_the_first_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fits, wide = {"layers.1.self_attn.q_proj": (128, 128)}, {"layers.1.self_attn.q_proj": (64, 128)}
    for modules, second, words in (
        (fits, "tiny", ("model 2 (tiny)", "no adapter")),
        (wide, "tiny", ("model 1 (random:multilingual-tiny)", "(128, 128)")),
    ):
        folder = adapter(tmp_path / "lora", modules)
        error = refused_unbuilt(monkeypatch, of_models("random:multilingual-tiny", second, lora=(folder,)))
        for word in words:
            assert word in str(error)


def test_a_missing_package_is_found_before_the_first_model_is_built(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "engines.t3.onnx.export", None)
    monkeypatch.setattr(factory, "settle", lambda *_: pytest.fail("a model was built first"))
    configs = of_models("tiny", "random:tiny", t3="onnx")
    with pytest.raises(ModuleNotFoundError):
        engines.load(configs[0], shared=SharedDevice(configs))


def test_two_models_of_one_name_are_found_before_the_first_is_built(copy: Path, monkeypatch: pytest.MonkeyPatch):
    for models, names in (((("tiny"), copy), ("", "")), (("tiny", "random:tiny"), ("", "tiny"))):
        error = refused_unbuilt(monkeypatch, of_models(*models), *names)
        assert error.reason == "MODEL_NAME_TAKEN"


def test_vllm_does_not_share_a_device():
    both, alone = SharedDevice(of_models("tiny", "random:tiny")), SharedDevice([ONE])
    asked = replace(ONE, t3="vllm")
    assert alone.without_vllm(asked, "cuda", guided=False) == asked
    with pytest.raises(InvalidInput) as raised:
        both.without_vllm(asked, "cuda", guided=False)
    assert raised.value.reason == "T3_UNSUPPORTED"
    assert "a server of several models" in str(raised.value)
    for guided, t3 in ((False, "torch_graphs"), (True, "torch")):
        assert both.without_vllm(ONE, "cuda", guided=guided).t3 == t3
        assert both.without_vllm(ONE, "cpu", guided=guided) == ONE


async def test_the_environments_guidance_is_that_of_the_models_that_have_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "0.7")
    async with loaded("tiny", "random:multilingual-tiny") as (tiny, guided):
        assert (tiny.info.sampling.cfg_weight, guided.info.sampling.cfg_weight) == (0.0, 0.7)
    with pytest.raises(InvalidInput):
        engines.load(of_models("tiny")[0])
