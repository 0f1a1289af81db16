"""Weights that are not finite: what reads them fails with an error, and leaves the others as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from engines.errors import EngineFailure
from engines.model_spec import STANDARD_TINY
from engines.t3.backend import T3Request
from engines.t3.decoder import T3Decoder
from engines.t3.llama.net import LlamaNet
from tests.engines.t3.llama.setting import checkpoint, net, request
from tests.engines.t3.setting import CPU, limits, run

DAMAGED = 300  # a text token


def damaged(folder: Path, value: float) -> LlamaNet:
    tensors = load_file(checkpoint().t3_path)
    tensors["text_emb.weight"][DAMAGED] = value
    path = folder / STANDARD_TINY.t3_file
    save_file(tensors, path)
    return LlamaNet.load(path, STANDARD_TINY, CPU)


def without_damage(seed: int, **sampling: float) -> T3Request:
    sound = request(seed, max_speech_tokens=12, **sampling)
    return replace(sound, text_tokens=tuple(token if token != DAMAGED else 1 for token in sound.text_tokens))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_text_that_reads_damage_fails_alone_and_its_memory_is_used_again(value: float, tmp_path: Path) -> None:
    decoder = T3Decoder(damaged(tmp_path, value), limits(max_streams=2))
    others = [without_damage(seed, cfg_weight=weight) for seed, weight in ((1, 0.5), (2, 0.0), (3, 1.0))]
    expected = [run(T3Decoder(net(), limits(max_streams=2)), other)[0] for other in others]
    bad = replace(request(7), text_tokens=(5, DAMAGED, 6))
    failed, beside = decoder.add(bad), decoder.add(others[0])
    errors = []
    while not decoder.idle:
        errors += [progress for progress in decoder.step() if progress.error is not None]
    assert [progress.sequence for progress in errors] == [failed]
    assert isinstance(errors[0].error, EngineFailure)
    assert beside.speech.raw == expected[0]
    assert run(decoder, *others[1:]) == expected[1:]
