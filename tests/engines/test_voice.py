"""Tests of Voice and its file format: round trips, and refused arrays and files."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from engines.conditioning.random_weights import random_voice
from engines.errors import InvalidInput
from engines.voice import Voice

FIELDS = ("speaker_embedding", "t3_prompt_tokens", "s3gen_prompt_tokens", "s3gen_prompt_mel", "x_vector")


@pytest.fixture(scope="module")
def voice() -> Voice:
    return replace(
        random_voice(1), name="Zoë / 1", metadata={"duration_s": "7.25", "note": 'with "quotes" and ümlauts'}
    )


def assert_equal(a: Voice, b: Voice) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == getattr(b, name).dtype
    assert (a.name, a.metadata, a.key) == (b.name, b.metadata, b.key)


def test_bytes_and_files_round_trip(voice: Voice, tmp_path: Path) -> None:
    assert_equal(Voice.from_bytes(voice.to_bytes()), voice)
    path = tmp_path / "zoe.safetensors"
    voice.save(path)
    assert_equal(Voice.load(path), voice)
    assert list(tmp_path.iterdir()) == [path], "no partial file stays behind"


def test_short_prompts_round_trip() -> None:
    whole = random_voice(2)
    short = replace(
        whole,
        t3_prompt_tokens=whole.t3_prompt_tokens[:1].copy(),
        s3gen_prompt_tokens=whole.s3gen_prompt_tokens[:3].copy(),
        s3gen_prompt_mel=whole.s3gen_prompt_mel[:6].copy(),
    )
    assert_equal(Voice.from_bytes(short.to_bytes()), short)


def test_the_key_depends_on_the_conditioning_and_not_on_the_name(voice: Voice) -> None:
    assert replace(voice, name="another", metadata={}).key == voice.key
    louder = replace(voice, x_vector=voice.x_vector + np.float32(1e-6))
    assert louder.key != voice.key


def test_arrays_cannot_be_changed(voice: Voice) -> None:
    for name in FIELDS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(voice, name)[0] = 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("speaker_embedding", np.zeros(255, np.float32)),
        ("speaker_embedding", np.zeros(256, np.float64)),
        ("x_vector", np.full(192, np.nan, np.float32)),
        ("t3_prompt_tokens", np.zeros(0, np.int64)),
        ("t3_prompt_tokens", np.zeros(376, np.int64)),
        ("t3_prompt_tokens", np.array([6561])),
        ("t3_prompt_tokens", np.array([-1])),
        ("t3_prompt_tokens", np.zeros(10, np.int32)),
        ("s3gen_prompt_tokens", np.zeros(251, np.int64)),
        ("s3gen_prompt_mel", np.zeros((499, 80), np.float32)),
        ("s3gen_prompt_mel", np.full((500, 80), np.inf, np.float32)),
    ],
)
def test_malformed_arrays_are_named(voice: Voice, field: str, value: np.ndarray) -> None:
    with pytest.raises(InvalidInput) as caught:
        replace(voice, **{field: value})
    assert caught.value.field == f"voice.{field}"
    assert caught.value.reason == "VOICE_FILE_INVALID"


def _refused(data: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        Voice.from_bytes(data)
    assert caught.value.reason == "VOICE_FILE_INVALID"


def test_files_of_another_kind_are_refused(voice: Voice) -> None:
    arrays = load(voice.to_bytes())
    header = {"format": "mynah-voice-1", "name": "x", "metadata": "{}"}
    _refused(b"")
    _refused(b"RIFF" * 10)
    _refused(save(arrays))
    _refused(save(arrays, metadata={**header, "format": "mynah-voice-0"}))
    _refused(save(arrays, metadata={**header, "metadata": json.dumps(["not", "an", "object"])}))
    _refused(save(arrays, metadata={**header, "metadata": json.dumps({"depth": {"too": "deep"}})}))
    _refused(save({**arrays, "extra": arrays["x_vector"]}, metadata=header))
    _refused(save({name: array for name, array in arrays.items() if name != "x_vector"}, metadata=header))


@settings(max_examples=100, deadline=None)
@given(position=st.integers(0, 900), value=st.integers(0, 255), length=st.floats(0.0, 1.0))
def test_a_damaged_file_is_refused_or_still_a_valid_voice(position: int, value: int, length: float) -> None:
    data = bytearray(random_voice(3).to_bytes())
    data[position] = value
    cut = bytes(data[: int(len(data) * length) + 1])
    with suppress(InvalidInput):
        loaded = Voice.from_bytes(cut)
        assert loaded.s3gen_prompt_mel.shape == (2 * len(loaded.s3gen_prompt_tokens), 80)
