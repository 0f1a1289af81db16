"""The vocoder: its source follows f0 without drifting, it ends rows cleanly, and windows of it join exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from engines.checkpoints.tensor_file import write_tensors
from engines.model_spec import MEL_HOP_SAMPLES, MODELS, SAMPLE_RATE_HZ, TINY, VocoderSpec
from engines.s3gen.nets.source import HARMONICS, Source, frame_phase
from engines.s3gen.nets.spectrum import HOP_SAMPLES, WINDOW_SAMPLES, Spectrum
from engines.s3gen.nets.vocoder import ResBlock
from engines.s3gen.nets.vocoder_weights import PREFIX, load_vocoder
from engines.s3gen.random_weights import random_tensors
from engines.s3gen.runtime import VocoderBatch
from tests.engines.s3gen import small_nets

CONTEXT_FRAMES, F0_CONTEXT_FRAMES = 14, 5


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


# ---- the source


def test_the_phase_does_not_drift_in_a_minute() -> None:
    draw = np.random.default_rng(0)
    f0_hz = draw.uniform(60.0, 400.0, (2, 60 * 50)).astype(np.float32)
    start = np.array([0.25, 0.999], np.float32)
    exact = start[:, None] + np.cumsum(f0_hz.astype(np.float64) * MEL_HOP_SAMPLES / SAMPLE_RATE_HZ, axis=1)
    got = frame_phase(torch.tensor(f0_hz), torch.tensor(start)).numpy()
    off = np.abs(got[:, 1:] - exact[:, :-1] % 1.0)
    assert np.minimum(off, 1.0 - off).max() < 1e-4  # of a cycle; 1e-3 at the ninth harmonic
    assert np.array_equal(got[:, 0], start)
    assert (got >= 0).all()
    assert (got <= 1).all()


def test_the_source_is_the_running_sum_of_f0_over_samples() -> None:
    """Against upstream's definition, sample by sample in float64."""
    draw = np.random.default_rng(1)
    source = small_nets.vocoder().m_source
    f0_hz = draw.uniform(0.0, 300.0, (2, 30)).astype(np.float32)
    f0_hz[:, 10:15] = 9.9  # unvoiced
    start, offsets = draw.random(2, np.float32), draw.random((2, HARMONICS), np.float32) - np.float32(0.5)
    noise = draw.standard_normal((2, 30 * MEL_HOP_SAMPLES), np.float32)
    got = source(*(torch.tensor(array) for array in (f0_hz, start, offsets, noise)))
    assert np.abs(got.numpy() - _source_in_float64(source, f0_hz, start, offsets, noise)).max() < 2e-5


def _source_in_float64(
    source: Source, f0_hz: np.ndarray, start: np.ndarray, offsets: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    weights = source.l_linear.weight[0].double().numpy()
    per_sample = np.repeat(f0_hz.astype(np.float64), MEL_HOP_SAMPLES, axis=1)
    cycles = start[:, None] + np.cumsum(per_sample / SAMPLE_RATE_HZ, axis=1)
    sines = np.sin(2 * np.pi * (cycles[..., None] * np.arange(1, HARMONICS + 1) + offsets[:, None]))
    voiced = per_sample > 10.0
    level = np.where(voiced, 0.003, 0.1 / 3) * np.linalg.norm(weights)
    return np.tanh(voiced * (0.1 * sines @ weights) + level * noise + source.l_linear.bias.double().numpy())


def test_fixed_f0_is_used_as_it_is() -> None:
    net, batch = small_nets.vocoder(), small_nets.vocoder_batch([20, 20])
    fixed = np.full_like(batch.fixed_f0_hz, 123.0)
    _, predicted = net(*small_nets.vocoder_inputs(batch))
    _, used = net(*small_nets.vocoder_inputs(replace(batch, fixed_f0_hz=fixed, fixed_frames=np.array([0, 7]))))
    assert distance(used[0], predicted[0]) == 0
    assert (used[1, :7] == 123.0).all()
    assert distance(used[1, 7:], predicted[1, 7:]) == 0


def test_f0_sees_five_frames_to_either_side() -> None:
    net, batch = small_nets.vocoder(), small_nets.vocoder_batch([40])
    _, f0_hz = net(*small_nets.vocoder_inputs(batch))
    batch.mel[0, 20] += 1.0
    _, moved = net(*small_nets.vocoder_inputs(batch))
    changed = (moved != f0_hz)[0].nonzero().flatten()
    assert (changed.min().item(), changed.max().item()) == (20 - F0_CONTEXT_FRAMES, 20 + F0_CONTEXT_FRAMES)


# ---- the Fourier transform


def test_the_spectrum_is_torchs_stft() -> None:
    signal = torch.randn(2, 960, generator=torch.Generator().manual_seed(0))
    window = torch.hann_window(WINDOW_SAMPLES)
    expected = torch.stft(signal, WINDOW_SAMPLES, HOP_SAMPLES, window=window, return_complex=True)
    got = Spectrum().analyse(signal, None)
    assert distance(got, torch.cat([expected.real, expected.imag], dim=1)) < 5e-6


def test_synthesis_is_torchs_istft_of_any_spectrum() -> None:
    parts = torch.randn(2, 18, 241, generator=torch.Generator().manual_seed(0))
    window = torch.hann_window(WINDOW_SAMPLES)
    expected = torch.istft(torch.complex(parts[:, :9], parts[:, 9:]), WINDOW_SAMPLES, HOP_SAMPLES, window=window)
    assert distance(Spectrum().synthesise(parts, None), expected) < 5e-6


def test_each_row_has_its_own_end_in_the_spectrum() -> None:
    signal = torch.randn(2, 960, generator=torch.Generator().manual_seed(0))
    spectrum, lengths = Spectrum(), torch.tensor([480, 960])
    parts = spectrum.analyse(signal, lengths)
    short = spectrum.analyse(signal[:1, :480], None)
    assert distance(parts[:1, :, : short.shape[2]], short) < 1e-6
    assert not parts[0, :, short.shape[2] :].any()
    back = spectrum.synthesise(parts + 1.0, lengths)
    assert distance(back[:1, :480], spectrum.synthesise(short + 1.0, None)) < 1e-6
    assert torch.isfinite(back).all()


# ---- the whole


@pytest.mark.parametrize("margins", [(14, 6), (14, 0), (0, 5), (3, 3), (20, 16)])
@pytest.mark.parametrize("lengths", [[45], [45, 38, 45]])
def test_what_is_heard_does_not_depend_on_the_margins(margins: tuple[int, int], lengths: list[int]) -> None:
    net, batch = small_nets.vocoder(), small_nets.vocoder_batch(lengths)
    inputs = small_nets.vocoder_inputs(batch, padded=len(lengths) > 1)
    whole, f0_hz = net(*inputs)
    waves, same_f0_hz = net(*inputs, margins)
    assert waves.shape == whole.shape
    assert distance(same_f0_hz, f0_hz) == 0
    for row, frames in enumerate(lengths):
        heard = slice(margins[0] * MEL_HOP_SAMPLES, (frames - margins[1]) * MEL_HOP_SAMPLES)
        assert distance(waves[row, heard], whole[row, heard]) < 1e-6


def test_a_padded_row_is_what_it_is_alone() -> None:
    net, batch = small_nets.vocoder(), small_nets.vocoder_batch([33, 7, 20])
    waves, f0_hz = net(*small_nets.vocoder_inputs(batch))
    for row, frames in enumerate(batch.lengths):
        one = small_nets.vocoder_frames(batch, row, 0, int(frames))
        wave, f0 = net(*small_nets.vocoder_inputs(one, padded=False))
        assert wave.shape == (1, frames * MEL_HOP_SAMPLES)
        assert distance(waves[row : row + 1, : wave.shape[1]], wave) < 3e-4  # 1.3e-4 seen, by the CPU's own products
        assert distance(f0_hz[row : row + 1, :frames], f0) < 2e-4  # Hz
        assert not f0_hz[row, frames:].any()
        assert not waves[row, frames * MEL_HOP_SAMPLES :].any()


def test_windows_join_into_one_pass() -> None:
    """14 frames of context to either side, f0 frozen, the phase carried: each window renders what one pass does."""
    net, batch = small_nets.vocoder(), small_nets.vocoder_batch([150])
    whole, f0_hz = net(*small_nets.vocoder_inputs(batch, padded=False))
    joined = []
    for start in range(0, 150, 30):
        first, last = max(0, start - CONTEXT_FRAMES), min(150, start + 30 + CONTEXT_FRAMES)
        window = _window(batch, f0_hz.numpy(), first, start, last)
        wave, _ = net(*small_nets.vocoder_inputs(window, padded=False))
        joined.append(wave[:, (start - first) * MEL_HOP_SAMPLES :][:, : 30 * MEL_HOP_SAMPLES])
    assert distance(torch.cat(joined, dim=1), whole) < 1e-4


def _window(batch: VocoderBatch, f0_hz: np.ndarray, first: int, start: int, last: int) -> VocoderBatch:
    """Frames [first, last) of which those before `start` were rendered and those near the end see less future."""
    passed = f0_hz[0, :first].astype(np.float64) * MEL_HOP_SAMPLES / SAMPLE_RATE_HZ
    settled = max(start, last - F0_CONTEXT_FRAMES) if last < batch.mel.shape[1] else start
    return replace(
        small_nets.vocoder_frames(batch, 0, first, last),
        fixed_f0_hz=f0_hz[:, first:last],
        fixed_frames=np.array([settled - first]),
        phase_cycles=((batch.phase_cycles + passed.sum()) % 1.0).astype(np.float32),
    )


def test_noise_and_offsets_are_inputs_and_matter() -> None:
    net, batch = small_nets.vocoder(), small_nets.vocoder_batch([30])
    wave, _ = net(*small_nets.vocoder_inputs(batch))
    again, _ = net(*small_nets.vocoder_inputs(batch))
    assert distance(wave, again) == 0
    for changed in (
        replace(batch, noise=-batch.noise),
        replace(batch, phase_cycles=batch.phase_cycles + np.float32(0.5)),
        replace(batch, harmonic_cycles=batch.harmonic_cycles + np.float32(0.25)),
    ):
        assert distance(net(*small_nets.vocoder_inputs(changed))[0], wave) > 1e-3


@pytest.mark.parametrize("scale", [0.0, 30.0, 1e4])
@pytest.mark.parametrize("frames", [1, 12])
def test_extreme_inputs_stay_finite_and_within_full_scale(scale: float, frames: int) -> None:
    net, batch = small_nets.vocoder(), small_nets.vocoder_batch([frames, 1])
    loud = replace(batch, mel=batch.mel * np.float32(scale), noise=batch.noise * np.float32(scale))
    for padded in (True, False):
        wave, f0_hz = net(*small_nets.vocoder_inputs(loud, padded=padded))
        assert torch.isfinite(f0_hz).all()
        assert wave.abs().max() <= 0.99


def test_random_weights_sound() -> None:
    """Neither silent nor clipped, voiced and unvoiced: what everything built on random weights relies on."""
    wave, f0_hz = small_nets.vocoder()(*small_nets.vocoder_inputs(small_nets.vocoder_batch([400])))
    assert 0.01 < wave.std() < 0.3
    assert (wave.abs() > 0.98).float().mean() < 0.001
    assert 0.002 < (f0_hz < 10).float().mean() < 0.3


@lru_cache(maxsize=2)
def _drawn_speech(spec: VocoderSpec) -> np.ndarray:
    """1.2 s of a drawn vocoder. Nano and Turbo have the same one."""
    model = next(model for model in MODELS.values() if model.vocoder == spec)
    drawn = ((name, values) for name, values in random_tensors(model, seed=0) if name.startswith(PREFIX))
    with TemporaryDirectory() as folder:
        write_tensors(path := Path(folder) / "s3gen_meanflow.safetensors", drawn)
        net = load_vocoder(path, model)
    wave, _ = net(*small_nets.vocoder_inputs(small_nets.vocoder_batch([60])))
    return wave[0].double().numpy()


@pytest.mark.parametrize("model", MODELS)
def test_random_weights_have_no_tone(model: str) -> None:
    """The inverse transform's hop of 4 samples makes lines at 0, 6 and 12 kHz of bins that have different means, and
    the last upsampling makes lines at multiples of 2 kHz."""
    speech = _drawn_speech(MODELS[model].vocoder)
    power = np.square(np.abs(np.fft.rfft(speech)))
    hz = np.fft.rfftfreq(len(speech), 1 / SAMPLE_RATE_HZ)
    assert power[hz > 11_700].sum() < 0.02 * power.sum()
    for line_hz in range(0, 12_001, 2_000):
        from_line_hz = np.abs(hz - line_hz)
        beside = power[(from_line_hz > 50) & (from_line_hz < 400)].mean()
        assert power[from_line_hz < 5].mean() < 20 * beside, line_hz


def test_the_filter_runs_in_half_precision() -> None:
    batch = small_nets.vocoder_batch([12, 9])
    wave, f0_hz = small_nets.vocoder()(*small_nets.vocoder_inputs(batch))
    half, half_f0 = small_nets.vocoder().to_filter_dtype(torch.float16)(*small_nets.vocoder_inputs(batch))
    assert distance(half_f0, f0_hz) == 0
    assert half.dtype == torch.float32
    assert (half - wave).norm() < 0.01 * wave.norm()


# ---- the weights


def test_folded_weights_compute_upstreams_formula(tmp_path: Path) -> None:
    """Also with the factors that folding divides by being negative, tiny or zero."""
    tensors = load_file(small_nets.checkpoint().s3gen_path)
    name = "mel2wav.resblocks.1"
    for i, which in enumerate(("activations1.0", "activations2.1", "activations1.2")):
        tensors[f"{name}.{which}.alpha"][:4] = [-0.7, 1e-5, 0.0, 30.0 + i]
    save_file(tensors, tmp_path / "s3gen.safetensors")
    block = load_vocoder(tmp_path / "s3gen.safetensors", TINY).resblocks[1]
    assert isinstance(block, ResBlock)
    x = torch.randn(1, TINY.vocoder.base_channels // 2, 50, generator=torch.Generator().manual_seed(0))
    exact = {key.removeprefix(f"{name}."): torch.tensor(t).double() for key, t in tensors.items() if name in key}
    assert distance(block(x, None).double(), _resblock_in_float64(exact, x.double())) < 2e-4


def _resblock_in_float64(tensors: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    for i, dilation in enumerate((1, 3, 5)):
        h = x
        for half, spread in ((1, dilation), (2, 1)):
            alpha = tensors[f"activations{half}.{i}.alpha"][:, None]
            h = h + torch.sin(alpha * h) ** 2 / (alpha + 1e-9)
            conv = f"convs{half}.{i}"
            gain, direction = (tensors[f"{conv}.parametrizations.weight.original{n}"] for n in (0, 1))
            weight = gain * direction / direction.flatten(1).norm(dim=1)[:, None, None]
            reach = spread * (weight.shape[2] - 1) // 2
            h = torch.conv1d(h, weight, tensors[f"{conv}.bias"], padding=reach, dilation=spread)
        x = x + h
    return x


def test_the_vocoder_exports_with_any_batch_and_length() -> None:
    net = small_nets.vocoder()
    rows, frames = (torch.export.Dim(name, max=4096) for name in ("rows", "frames"))
    by_row, by_frame = {0: rows}, {0: rows, 1: frames}
    dims = (by_frame, by_row, by_frame, by_row, by_row, by_row, {0: rows, 1: MEL_HOP_SAMPLES * frames})
    example, other = (
        small_nets.vocoder_inputs(small_nets.vocoder_batch(lengths)) for lengths in ([9, 12], [21, 5, 17])
    )
    exported = torch.export.export(net, example, dynamic_shapes=dims, strict=False).module()
    for got, expected in zip(exported(*other), net(*other), strict=True):
        assert distance(got, expected) < 2e-4
