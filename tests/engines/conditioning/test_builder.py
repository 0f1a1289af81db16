"""Tests of building voices with the tiny model: lengths, limits, repeatability, threads and broken checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from engines.audio import resample
from engines.checkpoints.checkpoint import Checkpoint
from engines.conditioning import random_weights
from engines.conditioning.builder import VoiceBuilder
from engines.conditioning.reference import load_reference
from engines.errors import CheckpointError, InvalidInput
from engines.model_spec import TINY
from engines.version import VERSION
from engines.voice import Voice
from engines.voice_report import VoiceReport
from tests.clips import speech, wav_bytes


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoint]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more threads would spin and slow other processes
    checkpoint = Checkpoint(tmp_path_factory.mktemp("tiny"), TINY)
    save_file(dict(random_weights.random_tensors(TINY, 0)), checkpoint.s3gen_path)
    save_file(dict(random_weights.random_voice_encoder_tensors(TINY, 0)), checkpoint.voice_encoder_path)
    yield checkpoint
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def builder(checkpoint: Checkpoint) -> VoiceBuilder:
    return VoiceBuilder(checkpoint, decode=load_reference)


def clip(duration_s: float, voice: str = "slt", gain: float = 1.0) -> bytes:
    samples, rate_hz = speech(duration_s, voice)
    return wav_bytes(samples * np.float32(gain), rate_hz)


@pytest.mark.parametrize("duration_s", [5.01, 5.02, 5.03, 5.04, 9.99, 10.01])
def test_mel_has_two_frames_to_every_token(builder: VoiceBuilder, duration_s: float) -> None:
    voice = builder.build(clip(duration_s), "clip")
    tokens = min(250, int(duration_s * 25 + 1e-6))
    assert len(voice.s3gen_prompt_tokens) == tokens
    assert voice.s3gen_prompt_mel.shape == (2 * tokens, 80)
    assert len(voice.t3_prompt_tokens) - int(duration_s * 25) in (0, 1), "T3 hears the last, partly filled token too"


def test_prompts_end_at_fifteen_and_ten_seconds(builder: VoiceBuilder) -> None:
    long, longer = builder.build(clip(16.0), "a"), builder.build(clip(20.0), "b")
    for voice in (long, longer):
        assert len(voice.t3_prompt_tokens) == 375
        assert len(voice.s3gen_prompt_tokens) == 250
    assert (long.t3_prompt_tokens == longer.t3_prompt_tokens).mean() > 0.8, "what follows changes the loudness only"
    assert np.abs(long.speaker_embedding - longer.speaker_embedding).max() > 1e-4, (
        "the speaker encoder uses the whole recording"
    )


def test_the_same_recording_makes_the_same_voice(builder: VoiceBuilder, checkpoint: Checkpoint) -> None:
    first, second = builder.build(clip(6.0), "a"), VoiceBuilder(checkpoint, decode=load_reference).build(clip(6.0), "b")
    assert first.key == second.key
    assert Voice.from_bytes(first.to_bytes()).key == first.key


def test_different_speakers_make_different_voices(builder: VoiceBuilder) -> None:
    woman, man = builder.build(clip(6.0), "a"), builder.build(clip(6.0, "rms"), "b")
    assert woman.key != man.key
    assert np.abs(woman.x_vector - man.x_vector).max() > 0.02


def test_the_loudness_of_a_recording_does_not_matter(builder: VoiceBuilder) -> None:
    loud, soft = builder.build(clip(6.0), "loud"), builder.build(clip(6.0, gain=0.25), "soft")
    np.testing.assert_allclose(soft.speaker_embedding, loud.speaker_embedding, atol=5e-3)
    assert (soft.s3gen_prompt_tokens == loud.s3gen_prompt_tokens).mean() > 0.9
    assert float(loud.metadata["loudness_lufs"]) - float(soft.metadata["loudness_lufs"]) == pytest.approx(12.0, abs=0.2)


def test_metadata_describes_the_recording_and_the_model(checkpoint: Checkpoint) -> None:
    voice = VoiceBuilder(replace(checkpoint, random_weights=True), decode=load_reference).build(clip(6.5), "ada")
    assert voice.name == "ada"
    assert -30 < float(voice.metadata.pop("loudness_lufs")) < -10
    report = VoiceReport.of_metadata(voice.metadata)
    assert report is not None
    assert (report.used_from_s, report.used_s, report.warnings) == (0.0, 6.5, ())
    del voice.metadata["report"]
    assert voice.metadata == {
        "duration_s": "6.500",
        "level_lufs": "-27.0",
        "source": "pcm_s16le 16000 Hz",
        "model": "random:tiny",
        "mynah_version": VERSION,
    }


def test_concurrent_builds_equal_sequential_ones(builder: VoiceBuilder) -> None:
    jobs = [clip(5.5, name) for name in ("slt", "rms", "awb")] * 2
    alone = [builder.build(audio, "alone").key for audio in jobs[:3]]
    with ThreadPoolExecutor(4) as pool:
        together = [voice.key for voice in pool.map(lambda audio: builder.build(audio, "together"), jobs)]
    assert together == alone * 2


def test_loudness_is_normalised_unless_the_caller_says_otherwise(builder: VoiceBuilder) -> None:
    soft = clip(6.0, gain=0.25)
    levelled, as_it_is = builder.build(soft, "a"), builder.build(soft, "b", normalize_loudness=False)
    loud_as_it_is = builder.build(clip(6.0), "c", normalize_loudness=False)
    assert abs(levelled.s3gen_prompt_mel.mean() - as_it_is.s3gen_prompt_mel.mean()) > 0.05
    assert loud_as_it_is.s3gen_prompt_mel.mean() > as_it_is.s3gen_prompt_mel.mean() + 0.9, (
        "12 dB are 1.4 in its logarithm"
    )


def test_a_voice_is_nearest_to_its_own_recording(builder: VoiceBuilder) -> None:
    woman = builder.build(clip(6.0), "a")
    near, far = (resample(*speech(6.0, name), 24_000) for name in ("slt", "rms"))
    assert builder.similarity(woman, near) == pytest.approx(1.0, abs=0.02)
    assert builder.similarity(woman, far) < builder.similarity(woman, near) - 0.01


def test_bad_audio_is_refused_before_any_net_is_loaded(tmp_path: Path) -> None:
    builder = VoiceBuilder(Checkpoint(tmp_path / "nowhere", TINY))
    with pytest.raises(InvalidInput, match="more than 5 s"):
        builder.build(clip(1.0), "short")
    with pytest.raises(CheckpointError):
        builder.build(clip(6.0), "long enough")


def test_every_wrong_tensor_is_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    broken = Checkpoint(tmp_path, TINY)
    tensors = load_file(checkpoint.s3gen_path)
    del tensors["tokenizer.encoder.conv1.weight"]
    tensors["tokenizer.quantizer._codebook.project_down.bias"] = np.zeros(7, np.float32)
    save_file(tensors, broken.s3gen_path)
    broken.voice_encoder_path.write_bytes(checkpoint.voice_encoder_path.read_bytes())
    with pytest.raises(CheckpointError) as caught:
        VoiceBuilder(broken).load()
    assert "tokenizer.encoder.conv1.weight is missing" in str(caught.value)
    assert "tokenizer.quantizer._codebook.project_down.bias has shape (7,), expected (8,)" in str(caught.value)


def test_nets_stay_views_of_the_mapped_file(checkpoint: Checkpoint) -> None:
    builder = VoiceBuilder(checkpoint, decode=load_reference)
    builder.load()
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(checkpoint.folder) in line]
    assert len(mapped) >= 2, "one mapping for each file"
