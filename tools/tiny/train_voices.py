"""The nets that hear reference audio learn what the other nets were told: the vectors of a voice, the codes of a sound.

The speaker encoder and the S3 tokenizer are trained; CAMPPlus keeps random convolutions, with statistics of real
speech in its norms, and its last layer is solved for, which tells a handful of voices apart and takes one pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.tiny import codes
from tools.tiny.dataset import Stream
from tools.tiny.engine import (
    HEARING_RATE_HZ,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_TOKEN,
    SPEECH_TOKENS_PER_S,
    X_VECTOR_DIM,
    ModelSpec,
    SpeakerEncoder,
    SpeechTokenizer,
    XVectorEncoder,
    hann_window,
    kaldi_fbank,
    mel_filterbank,
    mel_windows,
    random_weights,
    resample,
)
from tools.tiny.trainer import Losses
from tools.tiny.voices import speaker_embeddings, x_vectors

_DIGITS = 8
_RIDGE = 1e-2
_SOLVE_CLIPS, _SOLVE_S = 60, 6.0  # for each voice
F32 = npt.NDArray[np.float32]


def crop(stream: Stream, draw: np.random.Generator, tokens: int) -> tuple[F32, npt.NDArray[np.int64]]:
    """16 kHz samples and sounds, at a gain that varies as recordings do."""
    start = int(draw.integers(len(stream.sounds) - tokens))
    pcm = stream.samples[start * SAMPLES_PER_TOKEN : (start + tokens) * SAMPLES_PER_TOKEN]
    gain = 10 ** (draw.uniform(-3, 3) / 20)
    samples = resample((pcm * (gain / 32768)).astype(np.float32), SAMPLE_RATE_HZ, HEARING_RATE_HZ)
    return samples, stream.sounds[start : start + tokens].astype(np.int64)


class TokenizerTask:
    """Log-mel -> the eight ternary digits of the code with counter 0."""

    def __init__(self, net: SpeechTokenizer, streams: list[Stream]) -> None:
        self._net, self._streams = net, streams
        net._mel_filters.copy_(torch.tensor(mel_filterbank(HEARING_RATE_HZ, 400, 128, 0.0, 8000.0)))
        net.window.copy_(torch.tensor(hann_window(400)))

    def losses(self, step: int) -> Losses:
        draw = np.random.default_rng([step, 4])
        rows, tokens = (2, 300) if step % 8 == 7 else (6, 100)
        crops = [crop(self._streams[draw.integers(len(self._streams))], draw, tokens) for _ in range(rows)]
        mel = torch.from_numpy(np.stack([self._net.log_mel(samples) for samples, _ in crops]))
        wanted = _digits(np.stack([codes.code_of_sound(sounds) for _, sounds in crops]))
        digits = self._net.quantizer[0].project_down(self._net.encoder(mel)).tanh()
        right = ((digits.round() - wanted).abs().amax(-1) == 0).float().mean()
        return {"loss": F.mse_loss(digits, wanted), "right": right}


def _digits(code: npt.NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(code[..., None] // 3 ** np.arange(_DIGITS) % 3 - 1).float()


class SpeakerTask:
    """Mel windows -> the voice's speaker embedding."""

    def __init__(self, net: SpeakerEncoder, streams: list[Stream]) -> None:
        self._net, self._streams = net, streams
        self._targets = torch.from_numpy(speaker_embeddings())
        with torch.no_grad():
            net.lstm.weight_ih_l0.mul_(20)  # mel power is small
            net.similarity_weight.fill_(10.0)
            net.similarity_bias.fill_(-5.0)

    def losses(self, step: int) -> Losses:
        draw = np.random.default_rng([step, 5])
        voices = [int(draw.integers(len(self._streams))) for _ in range(4)]
        windows = [mel_windows(crop(self._streams[voice], draw, 75)[0])[:2] for voice in voices]
        embedded = self._net(torch.from_numpy(np.concatenate(windows)))
        wanted = torch.repeat_interleave(torch.tensor(voices), torch.tensor([len(one) for one in windows]))
        likeness = (embedded * self._targets[wanted]).sum(-1)
        return {"loss": (1 - likeness).mean()}


@torch.no_grad()
def solve_xvectors(spec: ModelSpec, streams: list[Stream]) -> XVectorEncoder:
    """CAMPPlus whose vectors lie close to those of `x_vectors`."""
    net = XVectorEncoder(spec)
    drawn = {name: torch.from_numpy(np.array(value)) for name, value in random_weights.random_tensors(spec, 0)}
    net.load_state_dict({name: drawn["speaker_encoder." + name] for name in net.state_dict()})
    draw = np.random.default_rng(6)
    pairs = [
        (voice, crop(stream, draw, int(_SOLVE_S * SPEECH_TOKENS_PER_S))[0])
        for voice, stream in enumerate(streams)
        for _ in range(_SOLVE_CLIPS)
    ]
    banks = [kaldi_fbank(samples) for _, samples in pairs]
    inputs = torch.from_numpy(np.stack([bank - bank.mean(axis=0) for bank in banks]))
    _settle(net, inputs[:: max(1, len(inputs) // 16)])
    net.eval()
    features = torch.cat([_statistics(net, part) for part in inputs.split(8)])  # (clips, 2 channels)
    wanted = torch.from_numpy(x_vectors())[[voice for voice, _ in pairs]]
    mean, deviation = features.mean(0), features.std(0) + 1e-4
    centred = (features - mean) / deviation
    gram = centred.T @ centred + _RIDGE * len(centred) * torch.eye(centred.shape[1])
    weights = torch.linalg.solve(gram, centred.T @ (wanted - wanted.mean(0)))  # (features, 192)
    weights = weights / deviation[:, None]
    dense: Any = net.xvector.dense
    norm = dense.nonlinear.batchnorm
    dense.linear.weight.copy_(weights.T[..., None])
    norm.running_var.fill_(1.0 - norm.eps)
    norm.running_mean.copy_(mean @ weights - wanted.mean(0))
    return net


def _settle(net: XVectorEncoder, inputs: Tensor) -> None:
    """Fill the running statistics of all norms with those of `inputs`."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # cumulative
        norm.reset_running_stats()
    net.train()
    net(inputs)


def _statistics(net: XVectorEncoder, inputs: Tensor) -> Tensor:
    x = net.head(inputs.transpose(1, 2))
    for name, part in net.xvector.named_children():
        if name == "dense":
            break
        x = part(x)
    assert x.shape[1] > X_VECTOR_DIM
    features: torch.Tensor = x.squeeze(-1)
    return features
