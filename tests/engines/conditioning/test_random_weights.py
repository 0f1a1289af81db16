"""Tests of random weights: the published layout, repeatability, and realistic activations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engines.audio import loudness_lufs, resample, with_gain
from engines.conditioning import random_weights, speaker, tokenizer, xvector
from engines.conditioning.mel import prompt_mel
from engines.model_spec import NANO, TINY
from tests.clips import speech


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    return dict(random_weights.random_tensors(TINY, 0))


def test_names_and_shapes_are_the_nets_own(drawn: dict[str, np.ndarray]) -> None:
    expected = {tokenizer.PREFIX + name: shape for name, shape in tokenizer.expected_tensors(TINY).items()}
    expected |= {xvector.PREFIX + name: shape for name, shape in xvector.expected_tensors(TINY).items()}
    assert {name: array.shape for name, array in drawn.items()} == expected
    voice_encoder = dict(random_weights.random_voice_encoder_tensors(TINY, 0))
    assert {name: array.shape for name, array in voice_encoder.items()} == speaker.expected_tensors(TINY)
    integers = {name for name, array in drawn.items() if array.dtype != np.float32}
    assert integers
    assert all(name.endswith("num_batches_tracked") for name in integers)


def test_full_size_has_the_published_number_of_parameters() -> None:
    def count(shapes: dict[str, tuple[int, ...]]) -> int:
        return sum(int(np.prod(shape)) for shape in shapes.values())

    assert count(tokenizer.expected_tensors(NANO)) == pytest.approx(123.7e6, rel=0.01)
    assert count(xvector.expected_tensors(NANO)) == pytest.approx(6.93e6, rel=0.01)
    assert count(speaker.expected_tensors(NANO)) == pytest.approx(1.42e6, rel=0.01)


def test_only_the_seed_matters(drawn: dict[str, np.ndarray]) -> None:
    again, other = dict(random_weights.random_tensors(TINY, 0)), dict(random_weights.random_tensors(TINY, 1))
    name = "tokenizer.encoder.conv1.weight"
    assert all(np.array_equal(drawn[key], again[key]) for key in drawn)
    assert not np.array_equal(drawn[name], other[name])
    twins = [drawn[f"tokenizer.encoder.blocks.{layer}.attn.query.weight"] for layer in (0, 1)]
    assert not np.array_equal(*twins), "layers differ"


def test_speech_tokens_vary_and_activations_stay_near_one(drawn: dict[str, np.ndarray]) -> None:
    net = tokenizer.SpeechTokenizer(TINY)
    prefix = tokenizer.PREFIX
    net.load_state_dict({k.removeprefix(prefix): torch.tensor(v) for k, v in drawn.items() if k.startswith(prefix)})
    samples, _ = speech(8.0)
    mel = torch.from_numpy(net.log_mel(samples))[None]
    hidden = net.eval().encoder(mel)
    assert 0.3 < hidden.std().item() < 10.0
    speech_tokens = net.encode(samples)
    assert len(speech_tokens) == 8 * 25
    assert (np.diff(speech_tokens) != 0).mean() > 0.5
    assert len(set(speech_tokens.tolist())) > 50


def test_the_random_voice_has_the_statistics_of_a_real_one() -> None:
    voice, again, other = (random_weights.random_voice(seed) for seed in (0, 0, 1))
    assert voice.key == again.key != other.key
    assert (len(voice.t3_prompt_tokens), len(voice.s3gen_prompt_tokens)) == (375, 250)
    assert np.linalg.norm(voice.speaker_embedding) == pytest.approx(1.0, abs=1e-5)
    samples, rate_hz = speech(10.0)
    samples = resample(samples, rate_hz, 24_000)
    real = prompt_mel(with_gain(samples, -27.0 - loudness_lufs(samples, 24_000)))
    mel = voice.s3gen_prompt_mel
    assert mel.shape == real.shape
    assert abs(mel.mean() - real.mean()) < 1.5
    assert abs(mel.std() - real.std()) < 0.7
    assert mel.min() >= np.log(1e-5) - 1e-5
    assert np.abs(np.diff(mel.mean(axis=1))).mean() < 1.0, "levels move as syllables do, not as noise"
