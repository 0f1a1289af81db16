"""The steps of a flow: which are possible, what is said of them, and that they are what is loaded."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engines
from engines.api import AudioChunk, Segment
from engines.checkpoints.checkpoint import Checkpoint, open_checkpoint, open_folder
from engines.config import EngineConfig, Sampling
from engines.device import cpu_threads, host_memory_bytes, use_threads
from engines.errors import InvalidInput
from engines.kernels.library import amx_supported, simd_widths
from engines.model_spec import MODELS, TINY
from engines.realtime import settle
from engines.realtime.ladder import Setting, Trial
from engines.realtime.remembered import fingerprint, path_of, remember
from engines.realtime.settle import settings_of
from engines.s3gen.flow_steps import (
    cached_bytes,
    check_decode,
    steps_held,
    steps_notice,
    steps_to_measure,
    with_steps,
    worth_measuring,
)
from tests.engines.s3gen import small_nets
from tests.engines.s3gen.small_nets import GUIDED_TINY


def alone(tmp_path: Path, guided: bool) -> Checkpoint:
    """A folder with one kind of nets."""
    spec = GUIDED_TINY if guided else TINY
    made = small_nets.checkpoint(spec)
    shutil.copy(made.s3gen_path, tmp_path / spec.s3gen_name)
    return replace(made, folder=tmp_path)


def test_a_model_takes_its_own_steps_unless_others_are_named() -> None:
    for spec, own in ((TINY, "2"), (GUIDED_TINY, "10")):
        checkpoint = small_nets.checkpoint(spec)
        assert steps_held(checkpoint)[0] == own
        assert with_steps(checkpoint, "auto") is with_steps(checkpoint, own) is checkpoint
    other = with_steps(small_nets.checkpoint(GUIDED_TINY), "2")
    assert (other.spec, other.s3gen_path.name) == (TINY, "s3gen_meanflow.safetensors")
    assert with_steps(other, "10") == small_nets.checkpoint(GUIDED_TINY)


@pytest.mark.parametrize(("guided", "steps", "file"), [(True, "2", "s3gen_meanflow"), (False, "10", "s3gen")])
def test_steps_whose_nets_are_missing_are_refused_by_the_file_s_name(
    tmp_path: Path, guided: bool, steps: str, file: str
) -> None:
    checkpoint = alone(tmp_path, guided)
    own = "10" if guided else "2"
    assert steps_held(checkpoint) == (own,)
    with pytest.raises(InvalidInput, match=rf"without {file}\.safetensors .*allowed here: auto or {own}") as caught:
        with_steps(checkpoint, steps)
    assert caught.value.reason == "S3GEN_STEPS_UNSUPPORTED"


def test_an_engine_refuses_steps_that_its_model_does_not_have() -> None:
    with pytest.raises(InvalidInput, match=r"s3gen_steps is 10, which tiny without s3gen\.safetensors"):
        engines.load(EngineConfig(model="random:tiny", device="cpu", s3gen_steps="10"))
    with pytest.raises(InvalidInput, match="it must be one of auto, 2, 10"):
        engines.load(EngineConfig(model="random:tiny", device="cpu", s3gen_steps="4"))


def test_the_speed_chooses_only_where_there_is_a_choice(tmp_path: Path) -> None:
    assert steps_to_measure(small_nets.checkpoint(GUIDED_TINY)) == ("10", "2")
    assert steps_to_measure(small_nets.checkpoint(TINY)) == ("2",), "more steps than published are never taken"
    assert steps_to_measure(alone(tmp_path, guided=True)) == ("10",)


def test_cached_guidance_is_refused_where_its_memory_does_not_fit() -> None:
    guided = small_nets.checkpoint(GUIDED_TINY)
    with pytest.raises(InvalidInput, match="10 guided steps of S3Gen on a GPU"):
        check_decode(guided, "cached", "cuda", 10**12)
    needed = cached_bytes(GUIDED_TINY.flow)
    with pytest.raises(InvalidInput, match=r"guided steps of S3Gen in \d+\.\d GB of memory"):
        check_decode(guided, "cached", "cpu", needed - 1)
    check_decode(guided, "cached", "cpu", needed)
    check_decode(guided, "reference", "cuda:1", 0)
    check_decode(small_nets.checkpoint(TINY), "cached", "cuda", 0)
    assert not worth_measuring(guided, "cached", 2 * needed - 1)
    assert worth_measuring(guided, "cached", 2 * needed)
    assert worth_measuring(guided, "reference", 0)
    assert worth_measuring(small_nets.checkpoint(TINY), "cached", 0)


def test_a_container_s_limit_is_the_memory(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    machine = host_memory_bytes(limit)
    limit.write_text("max\n")
    assert host_memory_bytes(limit) == machine > 10**8
    limit.write_text("123456789\n")
    assert host_memory_bytes(limit) == 123456789


def test_caches_that_do_not_fit_are_not_tried(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(settle, "host_memory_bytes", lambda: cached_bytes(GUIDED_TINY.flow))
    settings = tuple(Setting(decode, "auto", steps) for steps in ("10", "2") for decode in ("reference", "cached"))
    with caplog.at_level("INFO"):
        kept = settle._within_memory(small_nets.checkpoint(GUIDED_TINY), settings)
    assert kept == (settings[0], *settings[2:])
    assert "left out" in caplog.text


def test_the_notice_says_how_many_steps_are_taken() -> None:
    guided = small_nets.checkpoint(GUIDED_TINY)
    assert (
        steps_notice(guided, "10")
        == steps_notice(guided, "auto")
        == "S3Gen takes 10 steps with guidance, as published."
    )
    assert "2 steps" in steps_notice(guided, "2")
    assert "different" in steps_notice(guided, "2")
    assert steps_notice(small_nets.checkpoint(TINY), "2") == ""


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a random model of tiny dimensions with guided nets, which also holds meanflow nets."""
    spec = replace(GUIDED_TINY, name="guided-tiny")
    monkeypatch.setitem(MODELS, spec.name, spec)
    folder = open_checkpoint(f"random:{spec.name}", cache_dir=tmp_path, device="cpu").folder
    assert (folder / "s3gen.safetensors").is_file()
    meanflow = open_checkpoint("random:tiny", cache_dir=None, device="cpu").s3gen_path
    shutil.copy(meanflow, folder / meanflow.name)
    return folder


async def spoken(folder: Path, **options: Any) -> tuple[str, np.ndarray]:
    """The engine's notice, and a short text's samples."""
    config = EngineConfig(model=str(folder), device="cpu", threads=1, max_streams=1, t3_dtype="float32", **options)
    engine = engines.load(config)
    try:
        assert engine.default_voice is not None
        stream = await engine.open(engine.default_voice, Sampling(seed=3, max_speech_tokens=16))
        text = Segment(0, "The rain in Spain.")
        chunks = [event.samples async for event in stream.speak(text) if isinstance(event, AudioChunk)]
        await stream.close()
    finally:
        await engine.close()
    return engine.info.notice, np.concatenate(chunks)


async def test_a_cpu_that_is_too_slow_for_ten_steps_takes_two(model: Path, tmp_path: Path) -> None:
    """By times that were measured at an earlier start."""
    config = EngineConfig(model=str(model), device="cpu", threads=1, max_streams=1, t3_dtype="float32")
    checkpoint = open_folder(model)
    settings = settings_of(config, "cpu", steps_to_measure(checkpoint))
    assert [setting.s3gen for setting in settings] == [
        ("reference", "10"), ("cached", "10"), ("reference", "2"), ("cached", "2"),
    ]  # fmt: skip
    weights = [checkpoint.t3_path, checkpoint.s3gen_path, with_steps(checkpoint, "2").s3gen_path]
    path = path_of(tmp_path, fingerprint(weights, settings, 1, next(iter(simd_widths()), 0), amx_supported()))
    before = cpu_threads()
    made: dict[str, np.ndarray] = {}
    try:
        for ten_s, said in ((0.3, "10 steps with guidance"), (2.0, "2 steps")):
            times_s = (3.0, ten_s, 0.5, 0.2)
            remember(path, [Trial(setting, 0.1, s) for setting, s in zip(settings, times_s, strict=True)])
            notice, made[said] = await spoken(model, cache_dir=tmp_path)
            assert said in notice
        notice, named = await spoken(model, strict_reference=True, s3gen_steps="2")
        assert "2 steps" in notice
    finally:
        use_threads(before)
    ten, two = made.values()
    assert ten.shape == two.shape
    assert np.abs(ten - two).max() > 0.01
    assert np.array_equal(named, two), "both recompute windows in two steps"
