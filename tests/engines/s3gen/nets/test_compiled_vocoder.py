"""A vocoder with compiled blocks sounds as without; where they cannot stand in, it says why and stays as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from engines.kernels import library, resblocks
from engines.s3gen.nets import compiled_vocoder
from engines.s3gen.nets.compiled_vocoder import compile_residual_blocks
from tests.engines.s3gen import small_nets


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("lengths", [[45], [33, 7, 20]])
@pytest.mark.parametrize("margins", [(0, 0), (3, 2)])
def test_the_waveform_is_torchs(lengths: list[int], margins: tuple[int, int]) -> None:
    plain, tiled, batch = small_nets.vocoder(), small_nets.vocoder(), small_nets.vocoder_batch(lengths)
    assert compile_residual_blocks(tiled) is None
    inputs = small_nets.vocoder_inputs(batch, padded=len(lengths) > 1)
    expected, f0_hz = plain(*inputs, margins)
    got, same_f0_hz = tiled(*inputs, margins)
    assert torch.equal(f0_hz, same_f0_hz)
    signal, noise = expected.square().mean(), (got - expected).square().mean()
    assert 10 * torch.log10(signal / noise) > 85  # dB; 16-bit samples of this level end at 83


def test_its_own_blocks_are_given_up() -> None:
    net = small_nets.vocoder()
    assert compile_residual_blocks(net) is None
    assert not [name for name in net.state_dict() if "resblocks" in name]


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_vocoder, "simd_widths", lambda: ())
    assert _stays_as_it_was() == library.MISSING


def test_wrong_blocks_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resblocks, "PAIRS", (1.0, 0.5, 2.0, 0.7, 1.6))  # not those of the weights
    assert "off by" in (_stays_as_it_was() or "")


def _stays_as_it_was() -> str | None:
    """What it says."""
    net, batch = small_nets.vocoder(), small_nets.vocoder_inputs(small_nets.vocoder_batch([12]))
    expected, _ = net(*batch)
    why = compile_residual_blocks(net)
    assert torch.equal(net(*batch)[0], expected)
    return why
