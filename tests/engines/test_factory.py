"""Tests of build_engine: the selected runtimes, their fallbacks, and refused configurations."""

from __future__ import annotations

import asyncio
import logging
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import engines
from engines import factory
from engines.api import AudioChunk, Engine, Segment
from engines.checkpoints.checkpoint import EMBEDDED
from engines.config import EngineConfig, Sampling
from engines.errors import CheckpointError, InvalidInput
from engines.model_spec import STANDARD, TURBO, ModelSpec
from engines.s3gen.parity_check import RuntimeRefused
from engines.t3.alignment.sources import ForcedAligner
from engines.t3.backend import T3Request
from engines.t3.guidance import VARIABLE
from engines.t3.parity import T3Refused
from tests.engines.s3gen.gpu.test_double_buffer import has_gpu

without_gpu = pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")


@asynccontextmanager
async def loaded(**options: object) -> AsyncIterator[Engine]:
    usual: dict[str, object] = {"model": "random:tiny", "device": "cpu", "threads": 1, "max_streams": 2}
    if options.get("t3_dtype") != "int8" and options.get("decode") != "cached":
        usual["strict_reference"] = True  # nothing is measured
    config = EngineConfig(**{"decode": "reference", **usual, **options})  # type: ignore[arg-type]
    engine = await asyncio.to_thread(engines.load, config)
    yield engine
    await engine.close()


async def spoken(engine: Engine) -> np.ndarray:
    assert engine.default_voice is not None
    stream = await engine.open(engine.default_voice, Sampling(seed=1, max_speech_tokens=30))
    chunks = [e.samples async for e in stream.speak(Segment(0, "Good morning.")) if isinstance(e, AudioChunk)]
    await stream.close()
    return np.concatenate(chunks)


async def test_onnx_runs_both_stages_and_sounds_like_torch() -> None:
    async with loaded(t3_dtype="float32") as torch, loaded(t3="onnx", s3gen="onnx") as onnx:
        assert (onnx.info.t3_runtime, onnx.info.s3gen_runtime) == ("onnx", "onnx")
        assert onnx.info.refused_runtimes == ()
        theirs, ours = await spoken(torch), await spoken(onnx)
    assert len(ours) == len(theirs), "the speech tokens differ"
    # Phases add up pitch, so what a pitch is rounded by is heard as a turn of its harmonics: more of it on AMX.
    assert np.square(ours - theirs).mean() < 1e-3 * np.square(theirs).mean()


@pytest.mark.parametrize(
    ("kernels", "streams", "dtype", "runtime"),
    [
        (True, 1, "auto", "torch"),
        (False, 1, "auto", "onnx"),
        (False, 2, "auto", "torch"),
        (True, 2, "int8", "torch-int8"),
        (False, 2, "int8", "onnx"),
    ],
)
async def test_t3_on_a_cpu_uses_the_fastest_backend(
    kernels: bool, streams: int, dtype: str, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factory, "fp16_supported", lambda: kernels)
    monkeypatch.setattr(factory, "int8_supported", lambda: kernels)
    async with loaded(max_streams=streams, t3_dtype=dtype) as engine:
        assert engine.info.t3_runtime == runtime


async def test_t3_on_fixed_memory_speaks_as_t3_on_torch() -> None:
    async with loaded(t3_dtype="float32") as torch, loaded(t3="torch_graphs") as graphs:
        assert graphs.info.t3_runtime == "torch_graphs"
        assert graphs.info.refused_runtimes == ()
        theirs, ours = await spoken(torch), await spoken(graphs)
    assert len(ours) == len(theirs), "the speech tokens differ"
    # Phases add up pitch, so what a pitch is rounded by is heard as a turn of its harmonics: more of it on AMX.
    assert np.square(ours - theirs).mean() < 1e-3 * np.square(theirs).mean()


@pytest.mark.parametrize(
    ("failing", "given", "runtime", "spec"),
    [
        (("vllm",), {}, "torch_graphs", TURBO),
        (("vllm", "torch_graphs"), {}, "torch", TURBO),
        (("torch_graphs",), {"t3": "torch_graphs"}, None, TURBO),
        (("vllm",), {"strict": True}, None, TURBO),
        (("vllm",), {}, "torch", STANDARD),
        (("vllm",), {"strict": True}, None, STANDARD),
        ((), {}, "vllm", STANDARD),
    ],
)
def test_t3_on_a_gpu_falls_back_in_order_unless_it_was_chosen(
    failing: tuple[str, ...],
    given: dict[str, object],
    runtime: str | None,
    spec: ModelSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    def make(name: str) -> str:
        tried.append(name)
        if name in failing:
            raise T3Refused(f"{name} computes something else")
        return name

    def local(config: EngineConfig, *_: object) -> str:
        return make(factory._t3_name(config, "cuda"))

    monkeypatch.setattr(factory, "_vllm", lambda *_: make("vllm"))
    monkeypatch.setattr(factory, "_local_net", local)
    monkeypatch.setattr(factory, "LocalT3Backend", lambda net, *_: net)
    monkeypatch.setattr(factory.backend, "installed", lambda: True)
    setting = SimpleNamespace(refused=[], observer=None, on_device=None, words_bytes=lambda _: 0)
    config = EngineConfig(**given)  # type: ignore[arg-type]
    nets, checkpoint = SimpleNamespace(take_t3=lambda _: local(config)), SimpleNamespace(spec=spec)
    if runtime is None:
        with pytest.raises(T3Refused):
            factory._make_t3(config, checkpoint, "cuda", setting, nets)  # type: ignore[arg-type]
        assert len(tried) == 1
        return
    assert factory._make_t3(config, checkpoint, "cuda", setting, nets) == runtime  # type: ignore[arg-type, comparison-overlap]
    assert [name for name, _ in setting.refused] == list(failing)
    monkeypatch.setattr(factory.backend, "installed", lambda: False)
    assert factory._t3_name(EngineConfig(), "cuda") == "torch_graphs"


@pytest.mark.parametrize(
    ("config", "device", "t3"),
    [
        ({}, "cuda", "auto"),
        ({}, "cpu", "torch"),
        ({"t3_dtype": "float16"}, "cuda:0", "auto"),
        ({"t3_dtype": "float32"}, "cuda", "torch"),
        ({"t3": "vllm"}, "cpu", "vllm"),
        ({"t3": "torch"}, "cuda", "torch"),
    ],
)
def test_a_family_without_graphs_of_its_own_runs_on_vllm_or_torch(
    config: dict[str, str], device: str, t3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factory.backend, "installed", lambda: True)
    checkpoint = SimpleNamespace(spec=STANDARD)
    assert factory._for_family(EngineConfig(**config), checkpoint, device).t3 == t3  # type: ignore[arg-type]
    monkeypatch.setattr(factory.backend, "installed", lambda: False)
    expected = "torch" if t3 == "auto" else t3
    assert factory._for_family(EngineConfig(**config), checkpoint, device).t3 == expected  # type: ignore[arg-type]


async def test_float16_weights_need_the_compiled_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "fp16_supported", lambda: False)
    with pytest.raises(InvalidInput, match=r"t3_dtype is float16, which torch without .* does not support; .* float32"):
        async with loaded(t3="torch", t3_dtype="float16"):
            pass


@pytest.mark.parametrize("t3", ["torch", "onnx"])
async def test_int8_speaks(t3: str) -> None:
    async with loaded(t3=t3, t3_dtype="int8") as engine:
        assert (await spoken(engine)).std() > 1e-3


@without_gpu
async def test_tensorrt_without_a_gpu_falls_back_and_logs_one_error(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        async with loaded(s3gen="tensorrt") as engine:
            assert engine.info.s3gen_runtime == "onnx"
            assert [name for name, _ in engine.info.refused_runtimes] == ["tensorrt"]
            assert (await spoken(engine)).std() > 1e-3
    assert [record.message for record in caplog.records if "tensorrt" in record.message] == [
        f"S3Gen on tensorrt {engine.info.refused_runtimes[0][1]}; falling back to the next runtime"
    ]


@without_gpu
@pytest.mark.parametrize("options", [{"s3gen": "tensorrt"}, {"s3gen": "onnx", "providers": ("cuda", "cpu")}])
async def test_strict_refuses_to_start(options: dict[str, object]) -> None:
    with pytest.raises(RuntimeRefused, match="cannot be used"):
        async with loaded(strict=True, **options):
            pass


async def test_guidance_is_refused_for_every_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0.5")
    with pytest.raises(InvalidInput, match="classifier-free guidance"):
        async with loaded():
            pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t3": "jax"}, "t3 is 'jax'; it must be one of .*vllm"),
        ({"t3": "torch", "t3_dtype": "bfloat16"}, "t3_dtype is bfloat16, which T3 on torch does not support; .*int8"),
        ({"strict_reference": True, "decode": "cached"}, "decode is cached, which strict_reference does not support"),
        ({"strict_reference": True, "t3_dtype": "int8"}, "t3_dtype is int8, which strict_reference does not support"),
        ({"t3": "onnx", "t3_dtype": "bfloat16"}, "t3_dtype is bfloat16, which T3 on onnx does not support; .*int8"),
        ({"s3gen": "torch", "s3gen_dtype": "float16"}, "s3gen_dtype is float16, which S3Gen on torch"),
        (
            {"s3gen": "onnx", "s3gen_dtype": "float16", "decode": "cached"},
            "s3gen_dtype is float16, which cached decoding",
        ),
        (
            {"s3gen": "tensorrt", "decode": "cached"},
            "decode is cached, which S3Gen on tensorrt without a GPU does not support; .*reference",
        ),
        (
            {"s3gen": "torch_graphs", "decode": "cached", "device": "cpu"},
            "decode is cached, which S3Gen on torch_graphs without a GPU does not support; .*reference",
        ),
        (
            {"t3": "torch_graphs", "t3_dtype": "int8"},
            "t3_dtype is int8, which T3 on torch_graphs does not support; .*float16",
        ),
    ],
)
async def test_impossible_configurations_are_refused_by_option(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        async with loaded(**options):
            pass


def test_the_example_of_the_package_speaks() -> None:
    assert engines.__doc__ is not None
    example = textwrap.dedent(engines.__doc__.partition("\n\n")[2].rpartition("\n\n")[0])
    samples: list[int] = []
    exec(example.replace("...  # event.samples", "samples.append(len(event.samples))  #"), {"samples": samples})
    assert sum(samples) > 12_000


_BARE = (
    "av", "soxr", "pyloudnorm", "tensorrt", "tensorrt_rtx", "vllm", "cuda",
    "riva", "gradio", "starlette", "uvicorn", "websockets",
)  # fmt: skip


@pytest.mark.parametrize("module", ["engines.factory", "engines.tools.measure"])
def test_an_engine_needs_no_library_of_uploads_gpus_or_servers(module: str) -> None:
    """A bare machine with a GPU has torch and little else."""
    blocked = f"import sys; sys.modules |= dict.fromkeys({_BARE!r}); import {module}"  # None: the import raises
    subprocess.run([sys.executable, "-c", blocked], check=True, capture_output=True, text=True)


def test_the_package_imports_no_model_library() -> None:
    """The kernels' wheels are checked in environments without one."""
    models = ("torch", "tokenizers", "huggingface_hub", "onnxruntime", *_BARE)
    blocked = f"import sys; sys.modules |= dict.fromkeys({models!r}); import engines, engines.kernels.dense"
    subprocess.run([sys.executable, "-c", blocked], check=True, capture_output=True, text=True)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_damaged_voice_encoder_stops_the_start(tmp_path: Path, value: float) -> None:
    shutil.copytree(EMBEDDED, tmp_path / "model")
    file = tmp_path / "model/ve.safetensors"
    tensors = load_file(file)
    name = max(tensors, key=lambda name: tensors[name].size)
    tensors[name].flat[3] = value
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=name):
        engines.load(EngineConfig(model=str(tmp_path / "model"), device="cpu", threads=1))


@pytest.mark.parametrize(
    ("t3", "device", "own"),
    [("torch", "cpu", True), ("torch-int8", "cpu", True), ("onnx", "cpu", False), ("vllm", "cpu", False),
     ("torch", "cuda", False), ("torch_graphs", "cuda:1", False), ("vllm", "cuda", False)],
)  # fmt: skip
def test_words_come_from_t3s_own_steps_on_a_cpu_alone(t3: str, device: str, own: bool) -> None:
    """On a GPU another thread would read what the step thread's stream has not computed yet."""
    assert factory._observes_steps(t3, device) is own


async def test_the_pass_for_words_waits_while_t3s_engine_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM loads its model with another default precision for all threads, and no other may allocate meanwhile."""
    made: list[factory.Exclusive] = []
    arrived = threading.Event()

    class Kept(factory.Exclusive):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

        def shared(self) -> AbstractContextManager[None]:
            arrived.set()
            return super().shared()

    monkeypatch.setattr(factory, "Exclusive", Kept)
    monkeypatch.setattr(factory, "_observes_steps", lambda *_: False)
    config = EngineConfig(model="tiny", device="cpu", threads=1, t3_dtype="float32", decode="reference")
    engine = await asyncio.to_thread(factory.build_engine, config)
    try:
        aligner, voice = engine.stages.aligner, engine.default_voice
        assert isinstance(aligner, ForcedAligner)
        assert voice is not None
        _, source = aligner.start(T3Request((1, 2, 3), voice, Sampling()))
        arrived.clear()
        with made[0].alone():
            reading = asyncio.ensure_future(source.rows([5, 6]))
            assert await asyncio.to_thread(arrived.wait, 60), "the pass does not ask whether it may compute"
            assert not reading.done()
        assert (await reading).shape == (2, 3)
    finally:
        await engine.close()
