"""Draws codes from a net that learns, as the engine does: a cache, upstream's sampler, a stop. Knows no scores."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from tools.tiny import codes
from tools.tiny.codes import Ints
from tools.tiny.compose import Text
from tools.tiny.engine import START_SPEECH_TOKEN, STOP_SPEECH_TOKEN, Sampling
from tools.tiny.t3_net import T3Train

SURENESS = 2.1  # what logits are written out times: the big models' default temperature slurs a net this small


@dataclass(frozen=True)
class Drawn:
    """What was said, as groups (n,) and factors (n, 3), and whether T3 stopped by itself."""

    group: Ints
    index: Ints
    stopped: bool


@dataclass
class _Cache:
    """Keys and values (B, heads, room, width / heads) of each layer, and what each row may see of the room."""

    keys: list[Tensor]
    values: list[Tensor]
    visible: Tensor
    there: int = field(default=0)

    @classmethod
    def make(cls, net: T3Train, pad: Tensor, room: int) -> _Cache:
        shape = (len(pad), net.spec.heads, room, net.spec.width // net.spec.heads)
        keys, values = ([torch.zeros(shape) for _ in net.blocks] for _ in "kv")
        return cls(keys, values, torch.arange(room)[None] >= pad[:, None])


@torch.inference_mode()
def draw(
    net: T3Train, texts: list[Text], prompts: list[tuple[Ints, Ints]], most: list[int], *, sampling: Sampling
) -> list[Drawn]:
    """One utterance for each text, of at most so many codes."""
    speech_in, head, bias = net.speech_tables()
    head = head * SURENESS
    prefixes = [_prefix(net, text, prompt) for text, prompt in zip(texts, prompts, strict=True)]
    longest = max(map(len, prefixes))
    pad = torch.tensor([longest - len(prefix) for prefix in prefixes])
    cache = _Cache.make(net, pad, longest + max(most) + 1)
    padded = [torch.cat([torch.zeros(longest - len(p), net.spec.width), p]) for p in prefixes]
    last = _advance(net, torch.stack(padded), cache)[:, -1]
    seen = torch.zeros(len(texts), len(head), dtype=torch.bool)
    generator = torch.Generator().manual_seed(sampling.seed)
    drawn: list[Tensor] = []
    running = torch.ones(len(texts), dtype=torch.bool)
    limits = torch.tensor(most)
    while running.any():
        scores = _processed(net.ln_f(last) @ head.T + bias, seen, sampling)
        token = _chosen(scores, sampling, generator)
        drawn.append(torch.where(running, token, -1))
        seen[torch.arange(len(texts)), token] = True
        running &= (token != STOP_SPEECH_TOKEN) & (len(drawn) < limits)
        row = speech_in[token.clamp(max=START_SPEECH_TOKEN)] + net.position_rows(cache.there - pad)
        last = _advance(net, row[:, None], cache)[:, 0]
    return [_told(row) for row in torch.stack(drawn, 1)]


def _told(row: Tensor) -> Drawn:
    ids = row[row >= 0]
    stopped = int(ids[-1]) == STOP_SPEECH_TOKEN
    return Drawn(*codes.parts((ids[:-1] if stopped else ids).numpy()), stopped)


def _prefix(net: T3Train, text: Text, prompt: tuple[Ints, Ints]) -> Tensor:
    group, index = (torch.from_numpy(part) for part in prompt)
    rows = net.text_rows(torch.from_numpy(text.symbols), torch.from_numpy(text.stressed))
    x = torch.cat([net.speaker[None], net.code_rows(group, index), rows, net.start[None]])
    return x + net.position_rows(torch.arange(len(x)))


def _advance(net: T3Train, x: Tensor, cache: _Cache) -> Tensor:
    """x (B, T, width) behind all blocks, its keys and values remembered."""
    begin, end = cache.there, cache.there + x.shape[1]
    here = torch.arange(begin, end)
    seen = cache.visible[:, None, None, :end] & (torch.arange(end) <= here[:, None])
    seen = seen | (torch.arange(end) == here[:, None])  # rows of padding see themselves
    for i, block in enumerate(net.blocks):
        q, k, v = block.queries(x)
        cache.keys[i][:, :, begin:end], cache.values[i][:, :, begin:end] = k, v
        known = cache.keys[i][:, :, :end], cache.values[i][:, :, :end]
        x = block.after(x, torch.nn.functional.scaled_dot_product_attention(q, *known, attn_mask=seen))
    cache.there = end
    return x


def _processed(logits: Tensor, seen: Tensor, sampling: Sampling) -> Tensor:
    """(B, V): temperature, top-k, top-p, then the penalty on what was drawn; greedy: all but the temperature."""
    scores = logits / (sampling.temperature or 1.0)
    best = scores.topk(sampling.top_k).values
    from_below = best.softmax(-1).flip(-1).cumsum(-1).flip(-1)
    kept = (from_below > 1 - sampling.top_p).sum(-1, keepdim=True).clamp_(min=1)
    scores = scores.masked_fill(scores < best.gather(1, kept - 1), -torch.inf)
    penalty = sampling.repetition_penalty
    return torch.where(seen, torch.where(scores < 0, scores * penalty, scores / penalty), scores)


def _chosen(scores: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    if sampling.temperature == 0:
        return scores.argmax(-1)
    return torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]
