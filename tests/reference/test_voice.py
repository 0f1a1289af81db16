"""Voices against the published package, with the same random weights and the same clip."""

from __future__ import annotations

import io
import sys
import tempfile
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engines.audio import (
    loudness_lufs,
    mel_filterbank,
    resample,
    resample_windowed_sinc,
    trim_silence,
    with_gain,
)
from engines.checkpoints.checkpoint import Checkpoint
from engines.checkpoints.tensor_file import write_tensors
from engines.conditioning import random_weights, speaker, tokenizer, xvector
from engines.conditioning.builder import VoiceBuilder
from engines.conditioning.builtin import load_builtin, save_builtin
from engines.conditioning.mel import prompt_mel
from engines.conditioning.random_weights import random_voice
from engines.conditioning.reference import load_reference
from engines.model_spec import NANO, STANDARD_TINY, TINY, ModelSpec
from engines.voice import Voice
from tests.clips import speech, wav_bytes
from tests.engines.conditioning.media import encode
from tests.reference import upstream

# the watermarker: tts_turbo imports it, and these tests do not use it
if "perth" not in sys.modules:
    sys.modules["perth"] = types.ModuleType("perth")

from chatterbox.models.s3gen.utils.mel import mel_spectrogram
from chatterbox.tts import ChatterboxTTS
from chatterbox.tts_turbo import ChatterboxTurboTTS, Conditionals

if sys.modules["perth"].__spec__ is None:  # other tests check whether the real one is installed
    del sys.modules["perth"]


@dataclass
class Pair:
    """A random checkpoint, loaded by us and by upstream."""

    spec: ModelSpec
    folder: Path
    s3gen: Any
    voice_encoder: Any

    @property
    def builder(self) -> VoiceBuilder:
        return VoiceBuilder(Checkpoint(self.folder, self.spec), decode=load_reference)

    def upstream_voice(self, wav: Path) -> dict[str, Any]:
        """Returns the result of upstream's prepare_conditionals for a file, as numpy arrays."""
        kind = ChatterboxTTS if self.spec.is_llama else ChatterboxTurboTTS
        hp = types.SimpleNamespace(speech_cond_prompt_len=self.spec.conditioning.t3_prompt_tokens)
        model = types.SimpleNamespace(
            DEC_COND_LEN=kind.DEC_COND_LEN,
            ENC_COND_LEN=kind.ENC_COND_LEN,
            norm_loudness=_norm_loudness,
            s3gen=self.s3gen,
            ve=self.voice_encoder,
            t3=types.SimpleNamespace(hp=hp),
            device="cpu",
        )
        with torch.inference_mode():
            kind.prepare_conditionals(model, wav)
        t3, gen = model.conds.t3, model.conds.gen
        return {
            "speaker_embedding": t3.speaker_emb[0].numpy(),
            "t3_prompt_tokens": t3.cond_prompt_speech_tokens[0].numpy(),
            "s3gen_prompt_tokens": gen["prompt_token"][0].numpy(),
            "s3gen_prompt_mel": gen["prompt_feat"][0].numpy(),
            "x_vector": gen["embedding"][0].numpy(),
        }


def _norm_loudness(wav: np.ndarray, rate_hz: int) -> np.ndarray:
    """Upstream's, as in its pinned numpy (below 1.26): float32 times the gain rounded to float32."""
    scaled = ChatterboxTurboTTS.norm_loudness(None, wav, rate_hz)
    loudest = np.abs(wav).argmax()
    return scaled if scaled.dtype == np.float32 else wav * np.float32(scaled[loudest] / wav[loudest])


# of standard and Multilingual, whose nets for voices are Turbo's, the rules alone are other ones
@pytest.fixture(scope="module", params=[TINY, STANDARD_TINY, NANO], ids=["tiny", "standard", "full"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more threads would spin and slow other processes
    spec: ModelSpec = request.param
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Path(folder), spec)
        write_tensors(checkpoint.s3gen_path, random_weights.random_tensors(spec, seed=3))
        write_tensors(checkpoint.voice_encoder_path, random_weights.random_voice_encoder_tensors(spec, seed=3))
        s3gen, voice_encoder = upstream.s3gen(spec), upstream.voice_encoder(spec)
        weights = load_file(checkpoint.s3gen_path)
        missing, unexpected = s3gen.load_state_dict(weights, strict=False, assign=True)
        assert not unexpected
        assert not [name for name in missing if name.startswith((tokenizer.PREFIX, xvector.PREFIX))]
        voice_encoder.load_state_dict(load_file(checkpoint.voice_encoder_path))
        yield Pair(spec, checkpoint.folder, s3gen, voice_encoder)
    torch.set_num_threads(threads)


def _assert_same(ours: Voice, theirs: dict[str, Any], t3_agreement: float) -> None:
    assert ours.t3_prompt_tokens.shape == theirs["t3_prompt_tokens"].shape
    assert (ours.t3_prompt_tokens == theirs["t3_prompt_tokens"]).mean() >= t3_agreement
    np.testing.assert_array_equal(ours.s3gen_prompt_tokens, theirs["s3gen_prompt_tokens"])
    mel = theirs["s3gen_prompt_mel"]
    assert len(mel) - len(ours.s3gen_prompt_mel) in (0, 1), "only an odd frame may be cut"
    np.testing.assert_allclose(ours.s3gen_prompt_mel, mel[: len(ours.s3gen_prompt_mel)], atol=1e-4)
    np.testing.assert_allclose(ours.speaker_embedding, theirs["speaker_embedding"], atol=1e-4)
    np.testing.assert_allclose(ours.x_vector, theirs["x_vector"], atol=1e-4)


# 5.51 s gives an odd number of mel frames; 17 s is cut for T3 and for S3Gen; 44.1 kHz resamples on the way in.
# Up to 10 s, T3's tokens are S3Gen's, which were made after another resampler than upstream's for T3.
@pytest.mark.parametrize(
    ("duration_s", "rate_hz", "speaker_name", "t3_agreement"),
    [(17.0, 16_000, "slt", 1.0), (5.51, 44_100, "rms", 0.85), (10.0, 24_000, "slt", 0.85)],
)
def test_voice_of_a_spoken_clip(
    pair: Pair, tmp_path: Path, duration_s: float, rate_hz: int, speaker_name: str, t3_agreement: float
) -> None:
    samples, clip_hz = speech(duration_s, speaker_name)
    audio = wav_bytes(resample(samples, clip_hz, rate_hz), rate_hz)
    wav = tmp_path / "clip.wav"
    wav.write_bytes(audio)
    ours, theirs = pair.builder.build(audio, "clip"), pair.upstream_voice(wav)
    of_its_own = pair.spec.is_llama and duration_s > 6  # T3's 6 s of a longer clip are tokenized apart
    _assert_same(ours, theirs, 1.0 if of_its_own else t3_agreement)
    assert len(set(ours.t3_prompt_tokens.tolist())) > 20, "tokens that do not vary prove nothing"


def test_random_weights_distinguish_speakers(pair: Pair) -> None:
    builder = pair.builder
    woman, man = (builder.build(wav_bytes(*speech(5.5, name)), name) for name in ("slt", "rms"))
    assert woman.speaker_embedding @ man.speaker_embedding < 0.97
    assert np.abs(woman.x_vector - man.x_vector).max() > 0.05
    assert np.abs(woman.x_vector).max() < 10.0


def test_prompt_mel_of_noise_and_near_silence() -> None:
    noise = np.random.default_rng(0).standard_normal(48_123).astype(np.float32)
    for level in (0.2, 1e-4):
        theirs = mel_spectrogram(noise * np.float32(level))[0].T.numpy()
        np.testing.assert_allclose(prompt_mel(noise * np.float32(level)), theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("rate_hz", "fft", "bands", "high_hz"),
    [(16_000, 400, 40, 8000), (16_000, 400, 128, 8000), (24_000, 1920, 80, 8000), (22_050, 1024, 80, 11_025)],
)
def test_mel_filters_are_librosas(rate_hz: int, fft: int, bands: int, high_hz: int) -> None:
    theirs = librosa.filters.mel(sr=rate_hz, n_fft=fft, n_mels=bands, fmin=0, fmax=high_hz)
    np.testing.assert_allclose(mel_filterbank(rate_hz, fft, bands, 0.0, high_hz), theirs, atol=1e-6)


@pytest.mark.parametrize("length", [3000, 16_000, 51_234])
def test_trimming_is_librosas(length: int) -> None:
    samples, _ = speech(8.0)
    for start in range(0, len(samples) - length, 20_000):
        piece = samples[start : start + length] * np.hanning(length).astype(np.float32)
        np.testing.assert_array_equal(trim_silence(piece), librosa.effects.trim(piece, top_db=20)[0])
    silence = np.zeros(length, np.float32)
    np.testing.assert_array_equal(trim_silence(silence), librosa.effects.trim(silence, top_db=20)[0])


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize(("container", "codec"), [("wav", "pcm_s16le"), ("wav", "pcm_s24le"), ("flac", "flac")])
def test_recordings_are_read_as_librosa_reads_them(container: str, codec: str, rate_hz: int) -> None:
    samples, clip_hz = speech(5.5)
    planes = np.stack([resample(samples, clip_hz, rate_hz)] * 2) * np.array([[1.0], [0.3]], np.float32)
    audio = encode(container, codec, rate_hz, planes)
    theirs, _ = librosa.load(io.BytesIO(audio), sr=24_000)
    np.testing.assert_allclose(load_reference(audio).samples, theirs, atol=1e-6)


def test_windowed_sinc_is_torchaudios() -> None:
    samples, rate_hz = speech(2.0)
    samples = resample(samples, rate_hz, 24_000)[:47_999]
    theirs = upstream._Resample(24_000, 16_000)(torch.from_numpy(samples)).numpy()
    np.testing.assert_allclose(resample_windowed_sinc(samples, 24_000, 16_000), theirs, atol=1e-6)


def test_filterbank_is_kaldis() -> None:
    samples, _ = speech(3.0)
    theirs = upstream._kaldi_fbank(torch.from_numpy(samples.copy())[None]).numpy()
    np.testing.assert_allclose(xvector.kaldi_fbank(samples), theirs, atol=1e-3)


def test_loudness_is_upstreams() -> None:
    samples, rate_hz = speech(6.0)
    theirs = _norm_loudness(samples, rate_hz)
    np.testing.assert_allclose(with_gain(samples, -27.0 - loudness_lufs(samples, rate_hz)), theirs, atol=1e-7)
    silence = np.zeros(24_000, np.float32)
    np.testing.assert_array_equal(with_gain(silence, -27.0 - loudness_lufs(silence, 24_000)), silence)


@pytest.mark.parametrize("frames", [1, 79, 80, 160, 161, 205, 237, 238, 282, 314, 315, 1000, 4321])
def test_window_count_is_upstreams(frames: int) -> None:
    from chatterbox.models.voice_encoder.config import VoiceEncConfig
    from chatterbox.models.voice_encoder.voice_encoder import get_frame_step, get_num_wins

    step = get_frame_step(0.5, 1.3, VoiceEncConfig)
    assert speaker.window_count(frames) == get_num_wins(frames, step, 0.8, VoiceEncConfig)[0]


def test_upstream_reads_our_conds_and_we_read_its(tmp_path: Path) -> None:
    voice = random_voice(5)
    save_builtin(voice, tmp_path / "ours.pt")
    theirs = Conditionals.load(tmp_path / "ours.pt")
    np.testing.assert_array_equal(theirs.gen["prompt_feat"][0].numpy(), voice.s3gen_prompt_mel)
    np.testing.assert_array_equal(theirs.t3.cond_prompt_speech_tokens[0].numpy(), voice.t3_prompt_tokens)
    assert theirs.t3.emotion_adv.shape == (1, 1, 1)
    theirs.save(tmp_path / "theirs.pt")
    assert load_builtin(tmp_path / "theirs.pt").key == voice.key
