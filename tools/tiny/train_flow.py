"""The flow learns in two parts: its encoder codes -> mel, then its CFM what the encoder cannot know.

The encoder's mu is trained to be the mel itself; the code says whose voice it is. The CFM starts as an exact jump from
noise to mu and is trained on windows as decoding cuts them, each of the two steps from where the sampler really is:
the first, from pure noise, is to land on the mel at once, the second to put right what the first got wrong. A
consistent flow would end its first step halfway, which a net this small does not learn in an hour.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.model_spec import MEL_BANDS, MEL_FRAMES_PER_TOKEN, FlowSpec
from engines.s3gen.nets.cfm import EULER_TIMES, Estimator
from engines.s3gen.nets.encoder import TokenEncoder
from tools.tiny.codes import SOUNDS
from tools.tiny.dataset import Stream
from tools.tiny.trainer import Losses, tensor
from tools.tiny.voices import SHARES, x_vectors

_MEAN_LOG_MEL = -6.0
_HOLD, _FAR = 32.0, 1.0  # see make_cfm
_STEP = EULER_TIMES[1] - EULER_TIMES[0]
_VECTOR_NOISE = 0.03  # per dimension: the speaker net will not hit the vector exactly
_SHAPES = ((8, 100), (8, 100), (12, 60), (8, 100), (3, 300))  # rows and tokens of a batch, in turn


def make_encoder(spec: FlowSpec) -> TokenEncoder:
    """Sounds go in instead of codes while training; export.py spreads them."""
    net = TokenEncoder(spec)
    net.input_embedding = nn.Embedding(SOUNDS, spec.width)
    nn.init.constant_(net.encoder_proj.bias, _MEAN_LOG_MEL)
    return net


@torch.no_grad()
def make_cfm(spec: FlowSpec) -> Estimator:
    """A U-Net whose two steps end on mu: a straight path carries mu - x to the output, everything beside it is silent.

    Left to find this path, a net this small needs thousands of steps to get rid of the noise. The last block's norm
    and mish stand in the way; they are linear enough because the channels that are left over hold the deviation
    constant and the mean at zero, and exact once x is near mu.
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
    last.weight[MEL_BANDS:] = 0
    last.weight[MEL_BANDS:, :MEL_BANDS, now] = -1 / spare
    last.bias[MEL_BANDS:] = _HOLD * (torch.arange(spare) % 2 * 2.0 - 1.0)
    nn.init.constant_(net.final_block.norm.bias, _FAR)
    below, far, above = F.mish(torch.tensor([_FAR - 1e-3, _FAR, _FAR + 1e-3], dtype=torch.float64)).tolist()
    slope = (above - below) / 2e-3
    gain = _HOLD * math.sqrt(spare / channels) / (slope * _STEP)
    nn.init.zeros_(net.final_proj.weight)
    net.final_proj.weight[bands, bands, 0] = -gain
    net.final_proj.bias.fill_(gain * far)
    return net


class EncoderTask:
    def __init__(self, net: TokenEncoder, streams: list[Stream]) -> None:
        self._net, self._streams = net, streams

    def losses(self, step: int) -> Losses:
        draw = np.random.default_rng([step, 2])
        rows, tokens = _SHAPES[step % len(_SHAPES)]
        sounds, mel, vectors = _batch(self._streams, draw, rows, tokens, int(draw.integers(0, tokens // 2)))
        mu, _ = self._net(sounds, None, vectors)
        return {"loss": F.l1_loss(mu, mel)}


class CfmTask:
    """Trains the estimator behind an encoder that stays as it is."""

    def __init__(self, net: Estimator, encoder: TokenEncoder, streams: list[Stream]) -> None:
        self._net, self._encoder, self._streams = net, encoder, streams

    def losses(self, step: int) -> Losses:
        draw = np.random.default_rng([step, 7])
        rows, tokens = _SHAPES[step % len(_SHAPES)]
        prompt_tokens = int(draw.integers(0, tokens // 2 + 1)) if tokens < 200 else int(draw.integers(100, 251))
        sounds, mel, vectors = _batch(self._streams, draw, rows, tokens, prompt_tokens)
        prompt = MEL_FRAMES_PER_TOKEN * prompt_tokens
        prompt_mel = mel.clone()
        prompt_mel[:, prompt:] = 0
        with torch.no_grad():
            mu, speaker = self._encoder(sounds, None, vectors)
        torch.manual_seed(step)
        x = torch.randn_like(mel)
        losses: Losses = {"loss": mel.new_zeros(())}
        for name, (t, r) in zip(("first", "second"), pairwise(EULER_TIMES), strict=True):
            times = (torch.full((len(mel),), t), torch.full((len(mel),), r))
            x = x.detach() + (r - t) * self._net(x.detach(), mu, speaker, prompt_mel, None, *times)
            losses[name] = F.l1_loss(x[:, prompt:], mel[:, prompt:])  # nobody hears the prompt
            losses["loss"] = losses["loss"] + losses[name]
        return losses


def _batch(
    streams: list[Stream], draw: np.random.Generator, rows: int, tokens: int, prompt: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Sounds (B, N), mel (B, 2N, 80), x-vectors (B, 192): in each row two pieces of one voice, as in a window."""
    vectors = x_vectors()
    columns: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for _ in range(rows):
        voice = int(draw.choice(len(streams), p=SHARES))
        pieces = [_piece(streams[voice], draw, count) for count in (prompt, tokens - prompt)]
        columns[0].append(np.concatenate([piece[0] for piece in pieces]))
        columns[1].append(np.concatenate([piece[1] for piece in pieces]).astype(np.float32))
        columns[2].append(vectors[voice] + _VECTOR_NOISE * draw.standard_normal(vectors.shape[1], np.float32))
    sounds, mel, drawn = (tensor(np.stack(column)) for column in columns)
    return sounds, mel, drawn


def _piece(stream: Stream, draw: np.random.Generator, tokens: int) -> tuple[Any, Any]:
    start = int(draw.integers(len(stream.sounds) - tokens))
    frames = slice(MEL_FRAMES_PER_TOKEN * start, MEL_FRAMES_PER_TOKEN * (start + tokens))
    return stream.sounds[start : start + tokens], stream.mel[frames]
