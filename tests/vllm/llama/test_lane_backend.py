"""Engines with T3 of a guided model on the real vLLM: chosen by options, they speak as on torch, or say why not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import engines
from engines.errors import CheckpointError, InvalidInput
from engines.pipeline import Pipeline
from engines.t3.vllm.backend import VllmT3Backend
from tests.engines.t3.llama.setting import checkpoint, request
from tests.engines.t3.llama.test_lora import QUERY, WIDTH, adapter
from tests.engines.test_guided_engine import CONFIG, spoken


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Pipeline]]:
    """On vLLM and on torch."""
    made: list[Pipeline] = []
    for t3 in ("vllm", "torch"):
        folder = tmp_path_factory.mktemp("cache")
        engine = engines.load(replace(CONFIG, t3=t3, t3_dtype="float32", cache_dir=folder))
        assert isinstance(engine, Pipeline)
        made.append(engine)
    yield made
    for engine in made:
        asyncio.run(engine.close())


def test_streams_of_different_weights_speak_together_as_on_torch(pair: list[Pipeline]) -> None:
    on_vllm, on_torch = pair
    assert (on_vllm.info.t3_runtime, on_torch.info.t3_runtime) == ("vllm", "torch")
    assert on_vllm.info.refused_runtimes == ()
    assert (on_vllm.info.guidance, on_vllm.info.has_exaggeration, on_vllm.info.has_min_p) == (True, True, True)
    german = ("Guten Tag, Köln.", "de")
    asked = [(*german, 0.5, 0.5), (*german, 0.0, 0.5), ("안녕하세요", "ko", 1.0, 1.25)]

    async def together(engine: Pipeline) -> list[np.ndarray]:
        return await asyncio.gather(
            *(
                spoken(engine, text, language, cfg_weight=weight, exaggeration=exaggeration, temperature=0)
                for text, language, weight, exaggeration in asked
            )
        )

    ours, theirs = asyncio.run(together(on_vllm)), asyncio.run(together(on_torch))
    assert [len(samples) for samples in ours] == [len(samples) for samples in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)
    assert len({samples.tobytes() for samples in ours}) == len(asked)


def make(folder: Path, **options: object) -> VllmT3Backend:
    usual = {"device": "cpu", "max_streams": 2, "max_positions": 600, "work_dir": folder}
    return VllmT3Backend(checkpoint(), **(usual | options))  # type: ignore[arg-type]


async def test_a_text_that_does_not_fit_is_refused_at_once(tmp_path: Path) -> None:
    backend = make(tmp_path)
    with pytest.raises(InvalidInput, match="at most 462 text tokens"):
        backend.start(request(1, text=463, max_speech_tokens=100))
    with pytest.raises(InvalidInput, match="at least one text token"):
        backend.start(request(1, text=0))
    await backend.close()


def test_a_precision_that_guidance_makes_too_coarse_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="t3_dtype is bfloat16, which T3 with guidance on vLLM does not support"):
        make(tmp_path, dtype="bfloat16")


def test_an_adapter_that_does_not_fit_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not fit tfmr\.layers\.1\.self_attn\.q_proj\.weight"):
        make(tmp_path, loras=[adapter(tmp_path / "lora", {QUERY: (WIDTH, 2 * WIDTH)})])
