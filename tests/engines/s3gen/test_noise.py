"""Noise is a function of position and seed, nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engines.s3gen import noise

seeds = st.integers(0, 2**64 - 1)


@given(seeds, st.integers(0, 500), st.integers(0, 130), st.integers(0, 130))
def test_flow_noise_is_the_same_however_it_is_cut(seed: int, first: int, n: int, m: int) -> None:
    whole = noise.flow_noise(seed, first, n + m)
    parts = [noise.flow_noise(seed, first, n), noise.flow_noise(seed, first + n, m)]
    assert whole.shape == (n + m, 80)
    assert np.array_equal(whole, np.concatenate(parts))


@given(seeds, st.integers(0, 10**8), st.integers(0, 40_000))
def test_excitation_noise_is_the_same_however_it_is_cut(seed: int, first: int, n: int) -> None:
    whole = noise.excitation_noise(seed, first, n + 100)
    assert np.array_equal(whole[n:], noise.excitation_noise(seed, first + n, 100))


def test_purposes_seeds_and_positions_do_not_share_draws() -> None:
    draws = [
        noise.flow_noise(1, 0, 10).ravel(),
        noise.flow_noise(2, 0, 10).ravel(),
        noise.flow_noise(1, 10, 10).ravel(),
        noise.prompt_noise(1, 10).ravel(),
        noise.excitation_noise(1, 0, 800),
    ]
    for i, a in enumerate(draws):
        for b in draws[i + 1 :]:
            assert abs(np.corrcoef(a, b)[0, 1]) < 0.15


def test_neighbouring_large_seeds_differ() -> None:
    drawn = [noise.flow_noise(2**64 - 1 - i, 0, 1) for i in range(3)]
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])


def test_noise_is_standard_normal() -> None:
    drawn = noise.flow_noise(7, 0, 2000).ravel()
    assert abs(drawn.mean()) < 0.01
    assert abs(drawn.std() - 1) < 0.01


def test_harmonic_offsets_leave_the_fundamental_alone() -> None:
    offsets = noise.harmonic_cycles(3)
    assert offsets.shape == (9,)
    assert offsets[0] == 0
    assert (np.abs(offsets) <= 0.5).all()
    assert len(set(offsets)) == 9


def test_segments_of_a_stream_have_seeds_of_their_own() -> None:
    seeds = {noise.segment_seed(stream, index) for stream in range(20) for index in range(20)}
    assert len(seeds) == 400
