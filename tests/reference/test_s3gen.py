"""S3Gen against the published package on the same random weights, with the same noise injected into both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engines.checkpoints.checkpoint import Checkpoint
from engines.checkpoints.tensor_file import write_tensors
from engines.conditioning import random_weights as voice_weights
from engines.model_spec import (
    GUIDED_STEPS,
    MEL_BANDS,
    MEL_HOP_SAMPLES,
    SPEECH_CODES,
    TINY,
    TURBO,
    X_VECTOR_DIM,
    ModelSpec,
    with_guided_flow,
)
from engines.s3gen.nets.cfm import euler_times
from engines.s3gen.nets.source import HARMONICS
from engines.s3gen.random_weights import random_tensors
from engines.s3gen.runtime import FlowBatch, VocoderBatch
from engines.s3gen.runtimes.torch import TorchRuntime
from tests.engines.s3gen.small_nets import GUIDED_TINY
from tests.reference import upstream

import chatterbox.models.s3gen.hifigan as upstream_hifigan  # isort: skip  (found by way of tests.reference.upstream)
from chatterbox.models.s3gen.s3gen import S3Token2Wav  # isort: skip

NETS = ("flow", "mel2wav")


class Pair:
    """Ours and upstream's on one file of random weights."""

    def __init__(self, spec: ModelSpec, folder: Path) -> None:
        checkpoint = Checkpoint(folder, spec, random_weights=True)
        write_tensors(checkpoint.s3gen_path, random_tensors(spec, seed=3))
        self.ours = TorchRuntime(checkpoint)
        self.upstream: S3Token2Wav = upstream.s3gen(spec)
        result = self.upstream.load_state_dict(load_file(checkpoint.s3gen_path), strict=False)
        assert not result.unexpected_keys
        assert not [key for key in result.missing_keys if key.startswith(NETS)]


@pytest.fixture(scope="module", params=[TINY, TURBO], ids=lambda spec: spec.name)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Turbo stands for Nano too: they share S3Gen."""
    return Pair(request.param, tmp_path_factory.mktemp("s3gen"))


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """At the tiny size, with the flow of standard and Multilingual."""
    return Pair(GUIDED_TINY, tmp_path_factory.mktemp("guided"))


@contextmanager
def drawing(noise: torch.Tensor, offsets: torch.Tensor | None = None) -> Iterator[None]:
    """Upstream draws `noise` wherever it wants normal numbers of its shape, and `offsets` radians as phases."""
    normal, uniform = torch.randn_like, upstream_hifigan.Uniform.sample

    def randn_like(like: torch.Tensor, **kwargs: object) -> torch.Tensor:
        return noise.clone() if like.shape == noise.shape else normal(like, **kwargs)

    torch.randn_like = randn_like
    upstream_hifigan.Uniform.sample = lambda _, sample_shape: offsets.clone().expand(sample_shape)
    try:
        yield
    finally:
        torch.randn_like, upstream_hifigan.Uniform.sample = normal, uniform


def flow_batch(prompt_tokens: int, new_tokens: int) -> FlowBatch:
    draw = np.random.default_rng(prompt_tokens)
    frames = 2 * (prompt_tokens + new_tokens)
    prompt_mel = np.zeros((1, frames, MEL_BANDS), np.float32)
    prompt_mel[:, : 2 * prompt_tokens] = draw.normal(-5.0, 1.5, (1, 2 * prompt_tokens, MEL_BANDS))
    return FlowBatch(
        tokens=draw.integers(0, SPEECH_CODES, (1, prompt_tokens + new_tokens)),
        token_lengths=np.array([prompt_tokens + new_tokens]),
        prompt_mel=prompt_mel,
        noise=draw.standard_normal((1, frames, MEL_BANDS), np.float32),
        x_vector=draw.standard_normal((1, X_VECTOR_DIM), np.float32),
    )


def upstream_mel(model: S3Token2Wav, batch: FlowBatch, prompt_tokens: int) -> np.ndarray:
    """(frames, 80) of the generated tokens, with the batch's noise for prompt and generated frames alike."""
    tokens = torch.tensor(batch.tokens)
    prompt = {
        "prompt_token": tokens[:, :prompt_tokens],
        "prompt_token_len": torch.tensor([prompt_tokens]),
        "prompt_feat": torch.tensor(batch.prompt_mel[:, : 2 * prompt_tokens]),
        "prompt_feat_len": None,
        "embedding": torch.tensor(batch.x_vector),
    }
    new, steps = tokens[:, prompt_tokens:], 2 if model.meanflow else 10
    with drawing(torch.tensor(batch.noise).transpose(1, 2)):
        mel, _ = model.flow.inference(
            new, torch.tensor([new.shape[1]]), **prompt, finalize=True, n_timesteps=steps, meanflow=model.meanflow
        )
    return mel[0].T.numpy()


def test_mel_equals_upstreams(pair: Pair) -> None:
    batch = flow_batch(40, new_tokens=31)
    expected = upstream_mel(pair.upstream, batch, 40)
    got = pair.ours.flow(batch)[0, 80:]
    assert expected.std() > 0.5
    assert np.abs(got - expected).max() < 1e-4


def test_a_long_prompt_and_utterance_equal_upstreams(tmp_path: Path) -> None:
    """At the tiny size, across the block boundaries of attention."""
    tiny, batch = Pair(TINY, tmp_path), flow_batch(250, new_tokens=170)
    got = tiny.ours.flow(batch)[0, 500:]
    assert np.abs(got - upstream_mel(tiny.upstream, batch, 250)).max() < 1e-4


@pytest.mark.parametrize(("prompt_tokens", "new_tokens"), [(40, 31), (170, 90)])
def test_mel_of_ten_guided_steps_equals_upstreams(guided: Pair, prompt_tokens: int, new_tokens: int) -> None:
    batch = flow_batch(prompt_tokens, new_tokens)
    expected = upstream_mel(guided.upstream, batch, prompt_tokens)
    got = guided.ours.flow(batch)[0, 2 * prompt_tokens :]
    assert expected.std() > 0.5
    assert np.abs(got - expected).max() < 1e-4


def test_mel_of_ten_guided_steps_equals_upstreams_at_full_size(tmp_path: Path) -> None:
    full, batch = Pair(with_guided_flow(TURBO), tmp_path), flow_batch(20, 12)
    expected = upstream_mel(full.upstream, batch, 20)
    assert np.abs(full.ours.flow(batch)[0, 40:] - expected).max() < 1e-4 * max(1.0, float(np.abs(expected).max()))


def test_the_guided_schedule_is_upstreams() -> None:
    times = euler_times(GUIDED_STEPS)
    assert len(times) == 11
    assert times[0] == 0.0
    assert times[5] == pytest.approx(1 - np.cos(np.pi / 4), abs=1e-7)
    assert times[-1] == pytest.approx(1.0, abs=1e-6)


def test_f0_and_waveform_equal_upstreams(pair: Pair) -> None:
    """On a mel of the flow's own; upstream's nine noises per sample are merged as the vocoder expects them."""
    mel = pair.ours.flow(flow_batch(28, new_tokens=60))[:, 56:]
    frames, draw = mel.shape[1], torch.Generator().manual_seed(5)
    noises = torch.randn(1, HARMONICS, frames * MEL_HOP_SAMPLES, generator=draw)
    offsets = torch.rand(1, HARMONICS, 1, generator=draw) - 0.5
    offsets[:, 0] = 0.0
    weights = pair.upstream.mel2wav.m_source.l_linear.weight[0].detach()
    merged = (weights @ noises[0]) / weights.norm()
    batch = VocoderBatch(
        mel=mel,
        lengths=np.array([frames]),
        fixed_f0_hz=np.zeros((1, frames), np.float32),
        fixed_frames=np.array([0]),
        phase_cycles=np.zeros(1, np.float32),
        harmonic_cycles=offsets[..., 0].numpy(),
        noise=merged[None].numpy(),
    )
    bands_first = torch.tensor(mel).transpose(1, 2)
    with drawing(noises, 2 * torch.pi * offsets), torch.inference_mode():
        wave, _ = pair.upstream.mel2wav.inference(bands_first)
        f0_hz = pair.upstream.mel2wav.f0_predictor(bands_first)
    ours = pair.ours.vocoder(batch)
    assert (f0_hz < 10).any(), "voiced and unvoiced frames both belong into this comparison"
    assert np.abs(ours.f0_hz - f0_hz.numpy()).max() < 1e-3
    assert wave.std() > 0.01
    off = ours.waveform - wave.numpy()
    assert off.std() < 1e-3 * float(wave.std())
    assert np.abs(off).max() < 1e-3  # the phase is a sum over f0, whose last bits differ: 5e-5 to 3.2e-4 was seen


@pytest.mark.parametrize("spec", [TINY, GUIDED_TINY], ids=["meanflow", "guided"])
def test_upstream_loads_our_random_file_strictly(tmp_path: Path, spec: ModelSpec) -> None:
    everything = chain(random_tensors(spec, 0), voice_weights.random_tensors(spec, 0))
    write_tensors(tmp_path / "s3gen.safetensors", everything)
    upstream.s3gen(spec).load_state_dict(load_file(tmp_path / "s3gen.safetensors"), strict=True)


def test_random_tensors_repeat_with_their_seed() -> None:
    first, again, other = (dict(random_tensors(TINY, seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    varying = [name for name in first if not np.array_equal(first[name], other[name])]
    assert len(varying) > 0.99 * len(first)
