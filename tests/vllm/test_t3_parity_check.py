"""The parity check of T3 on vLLM accepts what is right and refuses what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engines.t3.parity import Comparison, T3ParityCheck, T3Refused
from engines.t3.vllm.decoder import VllmDecoder
from tests.engines.t3 import setting
from tests.vllm.setting import engine, runner, vllm_decoder


@pytest.fixture(scope="module")
def check() -> T3ParityCheck:
    return T3ParityCheck(setting.net())


def test_vllm_passes_and_a_wrong_model_does_not(check: T3ParityCheck, tmp_path: Path) -> None:
    decoder: VllmDecoder = vllm_decoder(tmp_path)
    comparisons = check.raise_if_wrong(engine(decoder), "float32", 4, "vllm")
    assert [comparison.name for comparison in comparisons] == ["alone", "alone, its prefix cached", "4 together"]
    assert engine(decoder).use.cached_positions > 0
    assert engine(decoder).idle
    assert type(runner(decoder).sampler).__name__ == "_VllmSampler", "it draws as before"
    model = runner(decoder).model
    with torch.no_grad():
        model.transformer.wpe.weight += 0.05 * torch.randn_like(model.transformer.wpe.weight)
    with pytest.raises(T3Refused, match="logits off by"):
        check.raise_if_wrong(engine(decoder), "float16", 2, "vllm")
    decoder.close()


def test_nan_does_not_pass() -> None:
    assert not Comparison("alone", "float16", float("nan"), 1.0).passed
    assert not Comparison("alone", "float16", 0.001, 0.9).passed
    assert Comparison("alone", "float16", 0.001, 0.99).passed
