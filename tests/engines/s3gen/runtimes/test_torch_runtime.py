"""The torch runtime: what a row becomes depends on that row alone, and nothing of the file stays mapped."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from engines.s3gen.runtime import FlowBatch, Runtime, VocoderBatch
from engines.s3gen.runtimes.torch import TorchRuntime
from tests.engines.s3gen import small_nets


@cache
def runtime() -> Runtime:
    return TorchRuntime(small_nets.checkpoint())


@pytest.mark.parametrize("new_tokens", [[20, 18, 11], [20, 7, 29]], ids=["different lengths", "equal lengths"])
def test_mel_of_a_row_does_not_depend_on_its_companions(new_tokens: list[int]) -> None:
    batch = small_nets.flow_batch([12, 25, 3], new_tokens)
    together = runtime().flow(batch)
    assert together.shape == batch.noise.shape
    for row, length in enumerate(batch.token_lengths):
        alone = runtime().flow(small_nets.flow_row(batch, row))
        assert np.abs(together[row, : 2 * length] - alone[0]).max() < 2e-5
        assert not together[row, 2 * length :].any()


@pytest.mark.parametrize("lengths", [[33, 7, 20], [12, 12]], ids=["different lengths", "equal lengths"])
def test_waveform_of_a_row_does_not_depend_on_its_companions(lengths: list[int]) -> None:
    batch = small_nets.vocoder_batch(lengths)
    together = runtime().vocoder(batch)
    assert together.waveform.shape == batch.noise.shape
    assert together.f0_hz.shape == batch.mel.shape[:2]
    for row, frames in enumerate(lengths):
        alone = runtime().vocoder(small_nets.vocoder_frames(batch, row, 0, frames))
        # the drawn phases are wide, which makes more of rounding; 60 dB below the waveform is far from another row's
        assert np.abs(together.waveform[row, : 480 * frames] - alone.waveform[0]).max() < 1e-3 * alone.waveform.std()
        assert np.abs(together.f0_hz[row, :frames] - alone.f0_hz[0]).max() < 2e-4


def test_the_nets_give_the_same_without_packing() -> None:
    flow, vocoder = small_nets.flow_batch([9, 12], [20, 5]), small_nets.vocoder_batch([15, 9])
    with torch.inference_mode():
        mel = small_nets.flow()(*small_nets.flow_inputs(flow)).numpy()
        wave = small_nets.vocoder()(*small_nets.vocoder_inputs(vocoder))[0].numpy()
    assert np.abs(runtime().flow(flow) - mel).max() < 1e-4  # 5e-6 without AMX
    assert np.abs(runtime().vocoder(vocoder).waveform - wave).max() < 1e-3 * wave.std()


def test_fixed_f0_comes_back_as_it_was_given() -> None:
    batch = small_nets.vocoder_batch([20, 14])
    fixed = replace(batch, fixed_f0_hz=np.full_like(batch.fixed_f0_hz, 77.0), fixed_frames=np.array([5, 14]))
    f0_hz = runtime().vocoder(fixed).f0_hz
    assert (f0_hz[0, :5] == 77.0).all()
    assert (f0_hz[1, :14] == 77.0).all()
    assert (f0_hz[0, 5:] != 77.0).all()


def test_repeated_calls_give_the_same_bytes() -> None:
    flow, vocoder = small_nets.flow_batch([30], [40]), small_nets.vocoder_batch([60])
    assert np.array_equal(runtime().flow(flow), runtime().flow(flow))
    assert np.array_equal(runtime().vocoder(vocoder).waveform, runtime().vocoder(vocoder).waveform)


def test_read_only_inputs_are_fine_and_stay_untouched() -> None:
    flow, vocoder = small_nets.flow_batch([5], [5]), small_nets.vocoder_batch([8])
    for batch in (flow, vocoder):
        for array in _arrays(batch).values():
            array.setflags(write=False)
    expected = [{name: array.copy() for name, array in _arrays(batch).items()} for batch in (flow, vocoder)]
    runtime().flow(flow)
    runtime().vocoder(vocoder)
    for batch, before in zip((flow, vocoder), expected, strict=True):
        for name, array in _arrays(batch).items():
            assert np.array_equal(array, before[name])


def _arrays(batch: FlowBatch | VocoderBatch) -> dict[str, np.ndarray]:
    return {name: value for name, value in vars(batch).items() if isinstance(value, np.ndarray)}


def test_the_file_is_let_go_after_loading() -> None:
    """Its pages would count twice, beside the packed weights."""
    made = TorchRuntime(small_nets.checkpoint())
    assert str(small_nets.checkpoint().s3gen_path) not in Path("/proc/self/maps").read_text()
    assert np.isfinite(made.flow(small_nets.flow_batch([5], [5]))).all()
