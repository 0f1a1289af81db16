"""A vocoder with compiled blocks sounds as without; where they cannot stand in, it says so and stays as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

from engines.s3gen.winograd import blocks, stages
from engines.s3gen.winograd.stages import compute_in_tiles
from tests.engines.s3gen import nets


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("lengths", [[45], [33, 7, 20]])
@pytest.mark.parametrize("margins", [(0, 0), (3, 2)])
def test_the_waveform_is_torchs(lengths: list[int], margins: tuple[int, int]) -> None:
    plain, tiled, batch = nets.vocoder(), nets.vocoder(), nets.vocoder_batch(lengths)
    assert compute_in_tiles(tiled)
    inputs = nets.vocoder_inputs(batch, padded=len(lengths) > 1)
    expected, f0_hz = plain(*inputs, margins)
    got, same_f0_hz = tiled(*inputs, margins)
    assert torch.equal(f0_hz, same_f0_hz)
    signal, noise = expected.square().mean(), (got - expected).square().mean()
    assert 10 * torch.log10(signal / noise) > 85  # dB; 16-bit samples of this level end at 83


def test_its_own_blocks_are_given_up() -> None:
    vocoder = nets.vocoder()
    assert compute_in_tiles(vocoder)
    assert not [name for name in vocoder.state_dict() if "resblocks" in name]


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(stages, "lanes_here", lambda: ())
    _stays_as_it_was("C compiler", caplog)


def test_blocks_that_are_wrong_do_not_stand_in(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(blocks, "PAIRS", (1.0, 0.5, 2.0, 0.7, 1.6))  # not those of the weights
    _stays_as_it_was("off by", caplog)


def _stays_as_it_was(reason: str, caplog: pytest.LogCaptureFixture) -> None:
    vocoder, batch = nets.vocoder(), nets.vocoder_inputs(nets.vocoder_batch([12]))
    expected, _ = vocoder(*batch)
    with caplog.at_level(logging.WARNING):
        assert not compute_in_tiles(vocoder)
    assert len(caplog.records) == 1
    assert reason in caplog.text
    assert torch.equal(vocoder(*batch)[0], expected)
