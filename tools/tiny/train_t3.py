"""T3 learns text -> codes: a prompt, the text's tokens, then a code for every 40 ms.

Texts have 1 to 62 tokens and stand anywhere that serving can put them. Knows how a text becomes a row of T3's sequence
and what its told heads are to look at; the net is t3_net.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tools.tiny import codes
from tools.tiny.codes import Bools, Ints
from tools.tiny.compose import END, Composer, Text
from tools.tiny.engine import MAX_T3_PROMPT_TOKENS
from tools.tiny.t3_net import LOOKS, PLACES, T3Train
from tools.tiny.trainer import Losses, halved, tensor

_ROWS = 2500  # of T3's sequence in a batch
_MOST_TEXTS = 48
_Z_LOSS = 1e-3  # keeps logits near log probabilities, so that a repetition penalty finds little to scale
_GUIDE = 0.3
_LONG_EVERY = 8  # batches, one of which has prompts as long as reference clips give
_UNMOVED = 0.2  # of texts stand right behind their prompt
_SHORT_SHARE, _SHORT = 0.15, 8


@dataclass
class _Batch:
    """Pieces of all rows, to be joined: what codes and texts are, and where they stand in the flattened (B T)."""

    code_at: list[Ints] = field(default_factory=list)
    group: list[Ints] = field(default_factory=list)
    index: list[Ints] = field(default_factory=list)
    text_at: list[Ints] = field(default_factory=list)
    start_at: list[Ints] = field(default_factory=list)
    said_at: list[Ints] = field(default_factory=list)
    said_group: list[Ints] = field(default_factory=list)
    said_index: list[Ints] = field(default_factory=list)
    stops: list[Bools] = field(default_factory=list)
    places: list[Ints] = field(default_factory=list)

    def joined(self, name: str) -> Tensor:
        return tensor(np.concatenate(getattr(self, name)))


class T3Task:
    def __init__(self, net: T3Train, composer: Composer) -> None:
        self._net, self._composer = net, composer

    def losses(self, step: int) -> Losses:
        draw = np.random.default_rng([step, 3])
        short = draw.random() < _SHORT_SHARE
        target = int(draw.integers(1, _SHORT if short else codes.COUNTERS - 1))
        prompt = int(draw.integers(1, 30)) if draw.random() < 1 / 3 else 0
        if step % _LONG_EVERY == _LONG_EVERY - 1:
            prompt = int(draw.integers(60, MAX_T3_PROMPT_TOKENS + 1))
        return self._losses(draw, self._texts(draw, target, prompt), prompt)

    def _texts(self, draw: np.random.Generator, target: int, prompt: int) -> list[Text]:
        texts: list[Text] = []
        room = _ROWS
        while room > 0 and len(texts) < _MOST_TEXTS:
            texts.append(self._composer.text(draw, max(1, target + int(draw.integers(-1, 2)))))
            room -= _length(texts[-1], prompt)
        return texts

    def _losses(self, draw: np.random.Generator, texts: list[Text], prompt: int) -> Losses:
        longest = max(_length(text, prompt) for text in texts)
        batch, looks = _Batch(), np.full((len(texts), longest, LOOKS), -1)
        positions = np.zeros((len(texts), longest), np.int64)
        for b, text in enumerate(texts):
            moved = 0 if draw.random() < _UNMOVED else int(draw.integers(MAX_T3_PROMPT_TOKENS + 1 - prompt))
            positions[b] = np.arange(longest) + moved
            positions[b, : 1 + prompt] = np.arange(1 + prompt)
            self._add(batch, looks[b], b * longest, text, self._composer.prompt(draw, prompt), moved)
        x = self._embedded(batch, texts, tensor(positions))
        return self._compared(x, batch, tensor(looks))

    def _add(self, batch: _Batch, looks: Ints, base: int, text: Text, prompt: tuple[Ints, Ints], moved: int) -> None:
        """One row: [speaker][prompt][text][start][codes], its text `moved` further than it stands."""
        first, tokens, count = 1 + len(prompt[0]), len(text.names), len(text.spoken)
        begin = first + tokens
        group, index = codes.split(text.rows(first + moved))
        batch.code_at += [base + 1 + np.arange(len(prompt[0])), base + begin + 1 + np.arange(count)]
        batch.group += [prompt[0], group]
        batch.index += [prompt[1], index]
        batch.text_at.append(base + first + np.arange(tokens))
        batch.start_at.append(np.array([base + begin]))
        batch.said_at.append(base + begin + np.arange(count + 1))
        batch.said_group += [group, np.zeros(1, np.int64)]
        batch.said_index += [index, np.zeros((1, 3), np.int64)]
        batch.stops += [np.zeros(count, bool), np.ones(1, bool)]
        batch.places.append(np.concatenate([[0], begun(text.spoken.unit, text.spoken.begins)]))
        # behind the last text token stands the start mark: who looks there knows that the end is near
        spoken = np.concatenate([[-1], text.spoken.unit])
        ahead = np.stack([spoken, spoken + 1, next_spoken(text.symbols)[spoken + 1]], -1)
        looks[begin : begin + count + 1] = np.where(ahead < 0, -1, first + np.minimum(ahead, tokens))

    def _embedded(self, batch: _Batch, texts: list[Text], positions: Tensor) -> Tensor:
        net = self._net
        rows, longest, width = *positions.shape, net.spec.width
        symbols, stressed = (
            tensor(np.concatenate(column)) for column in zip(*((t.symbols, t.stressed) for t in texts), strict=True)
        )
        x = torch.zeros(rows * longest, width)
        x = x.index_copy(0, batch.joined("code_at"), net.code_rows(batch.joined("group"), batch.joined("index")))
        x = x.index_copy(0, batch.joined("text_at"), net.text_rows(symbols, stressed))
        x = x.index_copy(0, batch.joined("start_at"), net.start.expand(rows, -1))
        x = x.index_copy(0, torch.arange(rows) * longest, net.speaker.expand(rows, -1))
        return x.view(rows, longest, width) + net.position_rows(positions)

    def _compared(self, x: Tensor, batch: _Batch, looks: Tensor) -> Losses:
        said_at = batch.joined("said_at")
        with halved():
            hidden, missed, lost = self._net.guided(x, looks, said_at, batch.joined("places"))
        said = hidden.float().flatten(0, 1)[said_at]
        logp, total = self._net.log_probabilities(
            said, batch.joined("said_group"), batch.joined("said_index"), batch.joined("stops")
        )
        nll = -logp.mean()
        loss = nll + _Z_LOSS * total.square().mean() + _GUIDE * (missed + lost)
        return {"loss": loss, "nll": nll, "missed": missed, "lost": lost}


def begun(unit: Ints, begins: Bools) -> Ints:
    """(n,): how many phones of the text token that a row speaks have begun."""
    count = np.cumsum(begins)
    new = np.concatenate([[True], unit[1:] != unit[:-1]])
    first = np.maximum.accumulate(np.where(new, np.arange(len(unit)), 0))
    return np.asarray(np.minimum(count - count[first] + begins[first], PLACES - 1))


def next_spoken(symbols: Ints) -> Ints:
    """(n + 1,): the first token from number i on that has phones, n where none has."""
    found = np.full(len(symbols) + 1, len(symbols))
    for i in range(len(symbols) - 1, -1, -1):
        found[i] = i if symbols[i, 0] < END else found[i + 1]
    return found


def _length(text: Text, prompt: int) -> int:
    return prompt + len(text.names) + len(text.spoken) + 2
