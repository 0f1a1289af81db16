"""What is settled at start: from measured times, from remembered ones, or from the options alone."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import engines
from engines.checkpoints.checkpoint import Checkpoint, open_checkpoint
from engines.config import EngineConfig
from engines.device import cpu_threads
from engines.kernels.library import amx_supported, simd_widths
from engines.realtime.ladder import TIME_LIMIT_S, Setting, Trial
from engines.realtime.measure import MeasuredTimings
from engines.realtime.remembered import fingerprint, path_of, recall, remember
from engines.realtime.settle import CpuNets, settings_of, settle
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime
from engines.s3gen.select_runtime import ReferenceRuntime
from engines.s3gen.streaming.schedule import SCHEDULES
from engines.s3gen.streaming.windows import Window
from engines.t3.model import T3Net
from tests.engines.realtime.test_ladder import CACHED, RECOMPUTED, SMALL, Machine, machine

needs_kernels = pytest.mark.skipif(not simd_widths(), reason="there are no compiled kernels here")
LAPTOP = {"t3": 0.5, "int8": 0.3, "recomputed": 0.9, "cached": 0.25}


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return open_checkpoint("random:tiny", cache_dir=None, seed=0, device="cpu")


def no_nets(checkpoint: Checkpoint) -> CpuNets:
    def unexpected(t3_dtype: str) -> T3Net:
        raise AssertionError(f"T3 in {t3_dtype} was loaded")

    return CpuNets(checkpoint, unexpected)


def settled(checkpoint: Checkpoint, folder: Path, timings: Machine, **options: Any) -> tuple[EngineConfig, str | None]:
    load = [options.pop("load", 0.0)]
    config = EngineConfig(**{"max_streams": 1, "cache_dir": folder, **options})
    result, choice = settle(
        config, checkpoint, "cpu", no_nets(checkpoint), timings=timings, clock=timings.clock, load_average=load.pop
    )
    return result, None if choice is None else choice.reason


@needs_kernels
@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, (RECOMPUTED, CACHED, SMALL)),
        ({"decode": "reference"}, (RECOMPUTED, Setting("reference", "int8"))),
        ({"decode": "cached"}, (CACHED, SMALL)),
        ({"t3_dtype": "float32"}, (Setting("reference", "float32"), Setting("cached", "float32"))),
        ({"t3": "onnx"}, (RECOMPUTED, CACHED)),
        ({"s3gen": "torch"}, (RECOMPUTED, CACHED, SMALL)),
        ({"s3gen": "onnx"}, (RECOMPUTED,)),
        ({"t3": "vllm"}, (RECOMPUTED,)),
        ({"decode": "cached", "t3_dtype": "int8"}, (SMALL,)),
        ({"strict_reference": True}, (RECOMPUTED,)),
    ],
    ids=str,
)
def test_what_the_options_leave_open(options: dict[str, Any], settings: tuple[Setting, ...]) -> None:
    assert settings_of(EngineConfig(**options), "cpu") == settings
    on_gpu = settings_of(EngineConfig(**options), "cuda")
    assert len(on_gpu) == 1, "nothing is measured on a GPU"
    assert on_gpu[0].decode == options.get("decode", "reference")


@needs_kernels
def test_the_first_start_measures_and_the_next_remembers(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        first, reason = settled(checkpoint, tmp_path, machine(**LAPTOP, takes_s=0.5, reference_takes_s=0.5))
        again = machine(9, 9, 9, 9)
        second, same_reason = settled(checkpoint, tmp_path, again)
    assert first.decode == second.decode == "cached"
    assert reason == same_reason
    assert again.measured == []
    said = [record.message for record in caplog.records]
    assert said[0] == f"{reason}; measured in 1.5 s"
    assert f"{tmp_path}/realtime/" in said[1]
    assert {record.levelno for record in caplog.records} == {logging.INFO}


@needs_kernels
def test_a_machine_that_was_too_slow_is_measured_again(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have been busy."""
    settled(checkpoint, tmp_path, machine(2, 1, 5, 1))
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    idle = machine(0.1, 0.1, 0.1, 0.1)
    assert settled(checkpoint, tmp_path, idle)[0].decode == "reference"
    assert idle.measured


@needs_kernels
def test_times_of_a_busy_machine_are_not_kept(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settled(checkpoint, tmp_path, machine(**LAPTOP), load=1000.0)
    assert "not kept, since other programs keep this machine busy" in caplog.text
    assert not list(tmp_path.iterdir())


def test_explicit_settings_measure_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    for options in ({"strict_reference": True}, {"decode": "cached", "t3_dtype": "float32"}):
        idle = machine(0.1, 0.1, 0.1, 0.1)
        config, reason = settled(checkpoint, tmp_path, idle, **options)
        assert config.decode == options.get("decode", "reference")
        assert config.t3_dtype == options.get("t3_dtype", "auto")
        assert reason is None
        assert idle.measured == []
    assert not (tmp_path / "realtime").exists()


def test_times_are_of_one_machine_and_model(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"1")
    name = fingerprint([weights], [RECOMPUTED], 2, 16, False)
    assert fingerprint([weights], [RECOMPUTED], 2, 16, False) == name
    others = [
        fingerprint([weights], [RECOMPUTED], 1, 16, False),
        fingerprint([weights], [RECOMPUTED], 2, 8, False),
        fingerprint([weights], [RECOMPUTED], 2, 16, True),
        fingerprint([weights], [RECOMPUTED, CACHED], 2, 16, False),
    ]
    weights.write_bytes(b"12")
    others.append(fingerprint([weights], [RECOMPUTED], 2, 16, False))
    assert len({name, *others}) == 6


@pytest.mark.parametrize("damage", ["", "{}", "[]", "[1]", '[{"setting": ["cached"]}]', "\x00"])
def test_a_damaged_file_means_measuring_again(damage: str, tmp_path: Path) -> None:
    path = path_of(tmp_path, "name")
    trials = (Trial(RECOMPUTED, 0.25, None), Trial(CACHED, 0.25, 0.5))
    remember(path, trials)
    assert recall(path) == trials
    path.write_text(damage)
    assert recall(path) is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "realtime").write_text("a file")
    remember(path_of(tmp_path, "name"), [Trial(CACHED, 0.1, 0.1)])
    assert recall(path_of(tmp_path, "name")) is None


@needs_kernels
async def test_an_engine_runs_as_remembered_and_says_so(checkpoint: Checkpoint, tmp_path: Path) -> None:
    config = EngineConfig(model=str(checkpoint.folder), device="cpu", threads=1, max_streams=1, cache_dir=tmp_path)
    settings = settings_of(config, "cpu")
    weights = (checkpoint.t3_path, checkpoint.s3gen_path)
    before = cpu_threads()
    name = fingerprint(weights, settings, 1, simd_widths()[0], amx_supported())
    remember(path_of(tmp_path, name), [Trial(RECOMPUTED, 0.7, 0.9), Trial(CACHED, 0.7, 0.5), Trial(SMALL, 0.25, 0.5)])
    engine = engines.load(config)
    try:
        assert (engine.info.t3_runtime, engine.info.s3gen_runtime) == ("torch-int8", "torch-cached")
        assert engine.info.decode == "cached"
        assert engine.info.load == 0.75
        assert engine.info.setting_reason.startswith("cached decoding, T3 in 8 bits: the most faithful")
    finally:
        await engine.close()
        engines.factory.use_threads(before)


@needs_kernels
def test_the_real_nets_are_timed_by_steps_and_windows(checkpoint: Checkpoint) -> None:
    """A clock that advances by a second at each look: T3 takes 25 s per second, each of the six windows of 9.04 s of
    speech one, and two of them are decoded, twice each, as three calls would take too long."""
    ticks: Iterator[float] = itertools.count(0.0, 1.0)

    def make(t3_dtype: str) -> T3Net:
        return T3Net.load(
            checkpoint.t3_path, checkpoint.spec, "cpu", weights="int8" if t3_dtype == "int8" else "float32"
        )

    nets = CpuNets(checkpoint, make)
    timings = MeasuredTimings(nets.t3, nets.s3gen, SCHEDULES["balanced"], None, lambda: next(ticks))
    assert timings.t3_s("auto") == timings.t3_s("int8") == 25.0
    assert timings.expected_s("reference", "auto") == 0
    assert timings.s3gen_s("cached", "auto") == pytest.approx(6 / 9.04)
    expected_s = timings.expected_s("reference", "auto")
    assert expected_s == pytest.approx((250 + 13 + 250 + 50 + 107) / 107)
    assert expected_s < TIME_LIMIT_S
    assert timings.s3gen_s("reference", "auto") == pytest.approx(6 / 9.04)


@needs_kernels
@pytest.mark.parametrize(("decode", "tokens"), [("cached", 0), ("reference", 250)])
def test_windows_between_the_first_and_the_last_lie_on_a_line(checkpoint: Checkpoint, decode: str, tokens: int) -> None:
    """A machine that takes 1 ms per call and 1 ms for each token of the flow, to the end of a sentence."""
    timings = MeasuredTimings(
        lambda _: pytest.fail("T3 is not timed"),
        lambda decode, steps: pytest.fail("nothing is decoded"),
        SCHEDULES["balanced"],
        None,
    )

    def decoded(runtime: Any, window: Window) -> float:
        return 0.001 + 0.001 * (tokens + window.lookahead_stop)

    timings._s3gen_runtime, timings._decode = lambda decode, steps: None, decoded
    contexts = [0, 0, 0, 0, 0, 0] if decode == "cached" else [0, 10, 26, 50, 50, 50]
    windows = [tokens + context + block for context, block in zip(contexts, (13, 19, 28, 32, 57, 107), strict=True)]
    assert timings.s3gen_s(decode, "auto") == pytest.approx(0.001 * (6 + sum(windows)) / 9.04)


def test_many_steps_are_expected_to_take_as_long_as_their_rows(checkpoint: Checkpoint) -> None:
    """Two steps of a row against ten of two lanes; a cached window's prompt comes first."""
    ticks: Iterator[float] = itertools.count(0.0, 1.0)
    reference = ReferenceRuntime(checkpoint, "cpu")
    timings = MeasuredTimings(
        lambda _: pytest.fail("T3 is not timed"),
        lambda decode, steps: TorchCachedRuntime(reference.loaded),
        SCHEDULES["balanced"],
        None,
        lambda: next(ticks),
    )
    timings.s3gen_s("cached", "2")
    recomputed = (250 + 13 + 250 + 50 + 107) / 107
    assert timings.expected_s("reference", "10") == pytest.approx(10 * recomputed)
    assert timings.expected_s("cached", "10") == pytest.approx(10 * (13 + 250 + 107) / 107)
    assert timings.expected_s("reference", "2") == pytest.approx(recomputed)
