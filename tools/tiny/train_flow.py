"""The flow learns in two parts: its encoder codes -> the built-in voice's mel, then its CFM to speak in any voice.

Codes carry no voice: the encoder, which sees no x-vector, gives the built-in voice, and the CFM makes of it the voice
of x-vector and prompt, out of noise. The CFM learns velocities at four times, and the average velocities of its two
steps from its own velocities at their begin and in their middle: what four steps give, two then do.

The CFM learns mels that deviate less from their mean than the teacher's do. A net this small gives every frame and band
a deviation of its own, which is heard as roughness, where the teacher's deviations belong together. The mean of a voice
is what an encoder makes of the codes; that of the second voice serves in training alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.tiny.codes import SOUNDS, Ints, code_of_sound
from tools.tiny.dataset import Stream
from tools.tiny.engine import (
    EULER_TIMES,
    MEL_BANDS,
    MEL_FRAMES_PER_TOKEN,
    TINY,
    X_VECTOR_DIM,
    Estimator,
    EulerSolver,
    FlowSpec,
    TokenEncoder,
    flow_module,
)
from tools.tiny.muon import Muon
from tools.tiny.trainer import Losses, halved, tensor
from tools.tiny.voices import x_vectors

_MEAN_LOG_MEL = -6.0
_HOLD, _ABOVE, _FAR = 32.0, 8.0, 1.0  # see make_cfm
_PATH_SHARE, _PATH_BIAS_SHARE = 0.01, 5.0  # of the peak learning rate
_VECTOR_NOISE = 0.03  # per dimension: the speaker net will not hit the vector exactly
_SHAPES = ((8, 100), (8, 100), (12, 60), (8, 100), (3, 300))  # rows and tokens of a batch, in turn
_SECOND = 1  # the number of the voice that the encoder does not speak in
_DEVIATION_SHARE = 0.25  # of the teacher's deviations from the mean
_HALF_STEPS = tuple(pairwise(EULER_TIMES))
_FINE_TIMES = (0.0, 0.25, 0.5, 0.75)  # of the velocities from which the steps learn


def make_encoder(spec: FlowSpec) -> TokenEncoder:
    """Sounds go in instead of codes while training; export.py spreads them."""
    net = TokenEncoder(spec)
    net.input_embedding = nn.Embedding(SOUNDS, spec.width)
    nn.init.constant_(net.encoder_proj.bias, _MEAN_LOG_MEL)
    return net


@torch.no_grad()
def make_cfm(spec: FlowSpec) -> Estimator:
    """A U-Net that starts as the velocity from x to mu, (mu - x) / (1 - t): what is right where the mel is certain.

    A straight path carries mu - x to the output, everything beside it is silent. Left to find this path, a net this
    small needs thousands of steps to get rid of the noise. The last block's norm and mish stand in the way; they are
    linear enough because the channels that are left over hold the deviation, and at 1 - t times its first value: that
    is the factor.
    """
    net = Estimator(spec)
    channels, spare = spec.channels, spec.channels - MEL_BANDS
    bands, now = torch.arange(MEL_BANDS), -1  # the last tap of a causal convolution
    down: Any = net.down_blocks[0]
    up: Any = net.up_blocks[0]
    last: Any = net.final_block.block["0"]
    for stage in (down, *net.mid_blocks, up):
        nn.init.zeros_(stage[0].block2.norm.weight)
        for block in stage[1]:
            for linear in (block.attn1.to_out[0], block.ff.net["2"]):
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)
    for conv, sources in (
        (down[0].res_conv, {0: 1.0, MEL_BANDS: -1.0}),  # of x, mu, speaker, prompt
        (up[0].res_conv, {channels: 1.0}),  # of what came up and the skip
        (up[2], {0: 1.0}),
        (last, {0: 1.0}),
    ):
        conv.weight[bands] = 0
        conv.bias[bands] = 0
        for first, factor in sources.items():
            conv.weight[bands, first + bands, now] = factor
    for conv in (up[0].res_conv, up[2], last):
        conv.weight[MEL_BANDS:] = 0
        conv.bias[MEL_BANDS:] = 0
    _tell_time(net, up[0])
    up[2].weight[MEL_BANDS, MEL_BANDS, now] = 1
    signs = torch.arange(spare) % 2 * 2.0 - 1.0
    last.weight[MEL_BANDS:, MEL_BANDS, now] = signs
    last.weight[MEL_BANDS:, :MEL_BANDS, now] = -1 / spare
    last.bias[MEL_BANDS:] = -_ABOVE * signs
    nn.init.constant_(net.final_block.norm.bias, _FAR)
    below, far, above = F.mish(torch.tensor([_FAR - 1e-3, _FAR, _FAR + 1e-3], dtype=torch.float64)).tolist()
    slope = (above - below) / 2e-3
    gain = _HOLD * math.sqrt(spare / channels) / slope
    nn.init.zeros_(net.final_proj.weight)
    net.final_proj.weight[bands, bands, 0] = -gain
    nn.init.constant_(net.final_proj.bias, gain * far)  # type: ignore[arg-type]
    return net


def cfm_optimiser(net: Estimator, peak: float) -> Muon:
    """Slow on the straight path's weights, which nothing norms: what they carry is far from zero everywhere, so that a
    small change of one row moves all that comes out. Quick on its biases, which put that right."""
    down: Any = net.down_blocks[0]
    up: Any = net.up_blocks[0]
    path = (down[0].res_conv, up[0].res_conv, up[2], net.final_block.block["0"], net.final_proj)
    weights, biases = ([getattr(part, name) for part in path] for name in ("weight", "bias"))
    known = set(map(id, weights + biases))
    rest = [parameter for parameter in net.parameters() if id(parameter) not in known]
    plain = [p for p in rest if p.ndim < 2]
    return Muon([p for p in rest if p.ndim > 1], plain, peak, (_PATH_SHARE, weights), (_PATH_BIAS_SHARE, biases))


def _tell_time(net: Estimator, residual: Any) -> None:
    """Make the first left-over channel of a residual block _ABOVE + _HOLD (1 - t), the others nothing.

    Its second block norms what its first gives, so time is given as a direction: between two patterns of signs whose
    share in that channel is 1 - 2 t.
    """
    steps = torch.tensor([(t, t) for t in _FINE_TIMES] + list(_HALF_STEPS))
    known = net._time(steps[:, 0], steps[:, 1], torch.float32)  # (steps, width)
    angle = torch.arcsin((1 - 2 * steps[:, 0]) / math.sqrt(2)) - math.pi / 4
    channel = torch.arange(len(residual.block2.norm.weight)) - MEL_BANDS
    patterns = [(channel // period % 2 * -2.0 + 1.0) for period in (1, 2)]
    wanted = angle.cos()[:, None] * patterns[0] + angle.sin()[:, None] * patterns[1]
    residual.mlp["1"].weight.copy_(torch.linalg.lstsq(known, wanted, driver="gelsd").solution.T)
    for silent in (residual.mlp["1"].bias, residual.block1.norm.weight, residual.block1.norm.bias):
        nn.init.zeros_(silent)
    conv, norm = residual.block2.block["0"], residual.block2.norm
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    conv.weight[:, :, -1].fill_diagonal_(1)
    nn.init.zeros_(norm.bias)
    norm.weight[MEL_BANDS], norm.bias[MEL_BANDS] = _HOLD / 2, _HOLD / 2 + _ABOVE


@dataclass(frozen=True)
class Windows:
    """Rows of a window each: sounds (B, N), mel of its voice (B, 2 N, 80), x-vectors (B, 192), and how many frames are
    the prompt."""

    sounds: Tensor
    mel: Tensor
    vectors: Tensor
    prompt_frames: int
    voices: Ints  # of each row
    starts: Ints  # of each row's second piece, in its voice's stream

    @property
    def prompt_mel(self) -> Tensor:
        given = self.mel.clone()
        given[:, self.prompt_frames :] = 0
        return given


def windows(
    streams: list[Stream], draw: np.random.Generator, rows: int, tokens: int, prompt: int, voice: int | None = None
) -> Windows:
    """In each row two pieces of one voice, as decoding puts them together. `voice`: the only one, instead of any."""
    voices = draw.integers(len(streams), size=rows)
    if voice is not None:
        voices[:] = voice
    spans = [[_span(streams[0], draw, count) for count in (prompt, tokens - prompt)] for _ in voices]
    sounds = np.stack([_cut(streams[0].sounds, own) for own in spans])
    mel = np.stack([_cut(streams[v].mel, own, MEL_FRAMES_PER_TOKEN) for v, own in zip(voices, spans, strict=True)])
    vectors = x_vectors()[voices] + _VECTOR_NOISE * draw.standard_normal((rows, X_VECTOR_DIM), np.float32)
    starts = np.array([own[1].start for own in spans])
    arrays = map(tensor, (sounds, mel.astype(np.float32), vectors))
    return Windows(*arrays, MEL_FRAMES_PER_TOKEN * prompt, voices, starts)


class Flow:
    """Encoder and CFM as they speak."""

    def __init__(self, encoder: TokenEncoder, cfm: Estimator) -> None:
        self._encoder, self._solver = encoder, EulerSolver(cfm)

    @torch.no_grad()
    def mel(self, made: Windows) -> Tensor:
        """The mel of all rows (B, 2 N, 80), out of noise and beside the prompt's own mel."""
        mu, speaker = self._encoder(made.sounds, None, made.vectors)
        mel: Tensor = self._solver(torch.randn_like(mu), mu, speaker, made.prompt_mel, None)
        return mel


def load(path: Path) -> Flow:
    """The flow of S3Gen's file, with its encoder as training holds it: sounds go in instead of codes."""
    made = flow_module.load_flow(path, TINY)
    rows = made.encoder.input_embedding.weight[torch.from_numpy(code_of_sound(np.arange(SOUNDS)))]
    made.encoder.input_embedding = nn.Embedding.from_pretrained(rows)
    return Flow(made.encoder, made.solver.estimator)


class EncoderTask:
    """Codes -> the mel of one voice."""

    def __init__(self, net: TokenEncoder, streams: list[Stream], voice: int) -> None:
        self._net, self._streams, self._voice = net, streams, voice

    def losses(self, step: int) -> Losses:
        draw = np.random.default_rng([step, 2])
        rows, tokens = _SHAPES[step % len(_SHAPES)]
        made = windows(self._streams, draw, rows, tokens, int(draw.integers(0, tokens // 2)), self._voice)
        with halved():
            mu, _ = self._net(made.sounds, None, made.vectors)
        return {"loss": F.l1_loss(mu.float(), made.mel)}


class CfmTask:
    """Trains the estimator behind an encoder that stays as it is. `second` gives the second voice's mean mel."""

    def __init__(self, net: Estimator, encoder: TokenEncoder, second: TokenEncoder, streams: list[Stream]) -> None:
        self._net, self._encoder, self._second, self._streams = net, encoder, second, streams

    def losses(self, step: int) -> Losses:
        draw = np.random.default_rng([step, 7])
        rows, tokens = _SHAPES[step % len(_SHAPES)]
        prompt_tokens = int(draw.integers(0, tokens // 2 + 1)) if tokens < 200 else int(draw.integers(100, 251))
        made = windows(self._streams, draw, rows, tokens, prompt_tokens)
        given, mel = self._given(made)
        torch.manual_seed(step)
        noise = torch.randn_like(mel)
        name, targets = (("flow", self._velocities), ("half", self._halves))[step % 2]
        x, t, r, wanted = targets(noise, mel, given)
        velocity = self._velocity(x, given, t, r)
        heard = (velocity - wanted)[:, made.prompt_frames :]  # the prompt is no output
        loss = (heard.square().mean((1, 2)) * (1 - t)).mean()  # late velocities are the farthest off
        return {"loss": loss, name: loss}

    @torch.no_grad()
    def _given(self, made: Windows) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """(mu, speaker and the prompt's mel), and the mel to learn."""
        mu, speaker = self._encoder(made.sounds, None, made.vectors)
        mean, second = mu.clone(), torch.from_numpy(made.voices == _SECOND)
        if second.any():
            mean[second], _ = self._second(made.sounds[second], None, made.vectors[second])
        return (mu, speaker, made.prompt_mel), torch.lerp(mean, made.mel, _DEVIATION_SHARE)

    def _velocity(self, x: Tensor, given: tuple[Tensor, ...], t: Tensor, r: Tensor) -> Tensor:
        with halved():
            velocity: Tensor = self._net(x, *given, None, t, r)
        return velocity.float()

    def _velocities(self, noise: Tensor, mel: Tensor, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The velocity at one of the fine times."""
        t = torch.tensor(_FINE_TIMES)[torch.randint(len(_FINE_TIMES), (len(noise),))]
        return _between(noise, mel, t), t, t, mel - noise

    @torch.no_grad()
    def _halves(self, noise: Tensor, mel: Tensor, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """A step of a half, from the velocities at its begin and in its middle."""
        t, r = torch.tensor(_HALF_STEPS)[torch.randint(len(_HALF_STEPS), (len(noise),))].unbind(1)
        x, middle = _between(noise, mel, t), (t + r) / 2
        first = self._velocity(x, given, t, t)
        second = self._velocity(x + (middle - t)[:, None, None] * first, given, middle, middle)
        return x, t, r, (first + second) / 2


def _between(noise: Tensor, mel: Tensor, t: Tensor) -> Tensor:
    return torch.lerp(noise, mel, t[:, None, None])


def _span(stream: Stream, draw: np.random.Generator, tokens: int) -> slice:
    start = int(draw.integers(len(stream.sounds) - tokens))
    return slice(start, start + tokens)


def _cut(column: Any, spans: list[slice], each: int = 1) -> Any:
    """The spans of tokens, end to end, of a column that has `each` rows a token."""
    return np.concatenate([column[each * span.start : each * span.stop] for span in spans])
