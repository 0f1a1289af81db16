"""T3 of the tiny model while it learns: GPT-2 whose tables are made of small parts that share what they know.

A text token's row is the sum of what stands in its slots, a position's row follows from sines and its remainder modulo
64, a code's rows are sums over its factors. In training, two layers learn which text tokens to look at. `tables`
writes all of it out as the plain tensors that the engine reads. Knows the engine's tensor names; knows no data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.tiny import codes
from tools.tiny.codes import COUNTERS, FACTORS
from tools.tiny.engine import (
    SPEAKER_EMBEDDING_DIM,
    SPEECH_CODES,
    SPEECH_VOCAB,
    START_SPEECH_TOKEN,
    STOP_SPEECH_TOKEN,
    T3Spec,
)
from tools.tiny.pronounce import SLOTS

SYMBOLS = 64  # phones, marks and the end in a slot of a text token
PLACES = SLOTS + 2
LOOKS = 3  # text tokens that guided heads look at: the one that is spoken, the next, and the next with phones
GUIDES = {1: (0, 1, 2), 2: (0, 0, 2)}  # layer -> which of them each of its first heads looks at
_PLACED_LAYER = 1
_WAVES, _LEAST_WAVE, _LONGEST_WAVE = 16, 6.0, 8192.0
_NEVER = -30.0  # the logit of what T3 must not say
# A table for each factor of each group of codes. What names a place starts out equal to the place's own row.
_TABLES = (
    ("phoneon", "counter_on"),
    ("consonants_go", "counter_short"),
    ("vowels_go", "counter_go", "pitch_go"),
    ("pause_go", "counter_pause"),
)
_UNSEEN = -1e4  # added to the scores of what comes later


class T3Train(nn.Module):
    def __init__(self, spec: T3Spec) -> None:
        super().__init__()
        width = spec.width
        self.spec = spec
        self.speaker = _table(width)  # T3 speaks alike in every voice
        self.slot, self.stress = _table(SLOTS + 1, SYMBOLS, width), _table(SLOTS + 1, width)
        self.remainder = nn.Parameter(_clock(width))
        self.waves = _table(2 * _WAVES, width, scale=0.1)
        self.start = _table(width)
        sizes = {
            name: size
            for names, group in zip(_TABLES, FACTORS, strict=True)
            for name, size in zip(names, group, strict=True)
        }
        self.inputs = nn.ParameterDict(
            {name: _table(size, width, scale=0.3 if "counter" in name else 0.1) for name, size in sizes.items()}
        )
        for name, size in sizes.items():
            if size == COUNTERS:
                self.inputs[name].data.copy_(self.remainder.data)
        self.outputs = nn.ParameterDict({name: _table(size, width, scale=0.05) for name, size in sizes.items()})
        self.stop = _table(width, scale=0.05)
        self.blocks: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment]
            [Block(width, spec.heads, spec.layers) for _ in range(spec.layers)]
        )
        self.ln_f = nn.LayerNorm(width)
        self.place = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, PLACES))  # for training only

    def matrices(self) -> list[Tensor]:
        """What Muon turns."""
        return [parameter for block in self.blocks for parameter in block.parameters() if parameter.ndim == 2]

    def others(self) -> list[Tensor]:
        known = set(map(id, self.matrices()))
        return [parameter for parameter in self.parameters() if id(parameter) not in known]

    def text_rows(self, symbols: Tensor, stressed: Tensor) -> Tensor:
        """(n, SLOTS + 1) each -> (n, width)."""
        rows = self.slot[torch.arange(SLOTS + 1), symbols].sum(-2)
        return rows + stressed.to(rows.dtype) @ self.stress

    def position_rows(self, positions: Tensor) -> Tensor:
        length = torch.logspace(math.log10(_LEAST_WAVE), math.log10(_LONGEST_WAVE), _WAVES)
        angle = 2 * math.pi * positions[..., None] / length
        return torch.cat([angle.sin(), angle.cos()], -1) @ self.waves + self.remainder[positions % COUNTERS]

    def code_rows(self, group: Tensor, index: Tensor) -> Tensor:
        """Groups (n,) and factors (n, 3) as in codes.split -> (n, width)."""
        return _summed(self.inputs, group, index, self.spec.width)

    def hidden(self, x: Tensor) -> Tensor:
        """(B, T, width), positions included -> behind the final norm. Causal; pad on the right."""
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.ln_f(x)
        return y

    def guided(self, x: Tensor, looks: Tensor, rows: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """-> `hidden`, how far the told heads are from looking where they should, and how far the net is from knowing
        how many phones of its text token have begun.

        looks (B, T, LOOKS) key positions, -1 where there is none; rows (n,) into the flattened (B T); places (n,).
        """
        missed = lost = x.new_zeros(())
        for i, block in enumerate(self.blocks):
            told = looks[..., GUIDES[i]] if i in GUIDES else None
            x, far = block.guided(x, told)
            missed = missed + far / len(GUIDES)
            if i == _PLACED_LAYER:
                lost = F.cross_entropy(self.place(x.flatten(0, 1)[rows]), places)
        return self.ln_f(x), missed, lost

    def log_probabilities(self, hidden: Tensor, group: Tensor, index: Tensor, stops: Tensor) -> tuple[Tensor, Tensor]:
        """hidden (n, width) and what follows -> log probability of that and the log of the sum, each (n,).

        The sum over all codes falls apart: factors are independent once the group is known.
        """
        scores = {name: hidden @ table.T for name, table in self.outputs.items()}
        logs = {name: score.logsumexp(-1) for name, score in scores.items()}
        stop = hidden @ self.stop
        code, sums = torch.zeros_like(stop), [stop]
        for g, names in enumerate(_TABLES):
            sums.append(torch.stack([logs[name] for name in names]).sum(0))
            columns = index.clamp(min=0).unbind(1)  # rows of other groups give something that is not used
            taken = [
                scores[name].gather(1, column.clamp(max=scores[name].shape[1] - 1)[:, None])[:, 0]
                for name, column in zip(names, columns, strict=False)
            ]
            code = torch.where(group == g, torch.stack(taken).sum(0), code)
        total = torch.logsumexp(torch.stack(sums), 0)
        return torch.where(stops, stop, code) - total, total

    @torch.no_grad()
    def speech_tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """Input rows, output rows and output bias of every id of the speech vocabulary."""
        ids = np.arange(SPEECH_CODES)
        group, index = (torch.from_numpy(part) for part in codes.parts(ids))
        speech_in, head = torch.zeros(SPEECH_VOCAB, self.spec.width), torch.zeros(SPEECH_VOCAB, self.spec.width)
        speech_in[:SPEECH_CODES] = self.code_rows(group, index)
        speech_in[START_SPEECH_TOKEN] = self.start
        head[:SPEECH_CODES] = _summed(self.outputs, group, index, self.spec.width)
        head[STOP_SPEECH_TOKEN] = self.stop
        unused = [*ids[codes.join(*codes.parts(ids)) != ids], START_SPEECH_TOKEN]
        bias = torch.zeros(SPEECH_VOCAB)
        head[unused], bias[unused] = 0, _NEVER
        return speech_in, head, bias

    @torch.no_grad()
    def tables(self, symbols: Tensor, stressed: Tensor) -> dict[str, Tensor]:
        """Every tensor that the engine reads, in its layout; symbols, stressed (text vocabulary, SLOTS + 1)."""
        speech_in, head, bias = self.speech_tables()
        tensors = {
            "cond_enc.spkr_enc.weight": torch.zeros(self.spec.width, SPEAKER_EMBEDDING_DIM),
            "cond_enc.spkr_enc.bias": self.speaker,
            "text_emb.weight": self.text_rows(symbols, stressed),
            "speech_emb.weight": speech_in,
            "tfmr.wpe.weight": self.position_rows(torch.arange(self.spec.positions)),
            "tfmr.ln_f.weight": self.ln_f.weight,
            "tfmr.ln_f.bias": self.ln_f.bias,
            "speech_head.weight": head,
            "speech_head.bias": bias,
        }
        for i, block in enumerate(self.blocks):
            tensors |= {f"tfmr.h.{i}.{name}": value for name, value in block.tables().items()}
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}


class Block(nn.Module):
    """One of GPT-2's."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for last in (self.proj, self.out):
            nn.init.normal_(last.weight, std=0.5 / math.sqrt(2 * layers * last.in_features))

    def forward(self, x: Tensor) -> Tensor:
        return self.guided(x, None)[0]

    def guided(self, x: Tensor, told: Tensor | None) -> tuple[Tensor, Tensor]:
        """-> the output, and the mean -log of the attention that head h pays to told[..., h]; 0 without `told`."""
        q, k, v = self.queries(x)
        longest = q.shape[2]
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)
        paid = (scores.float() + torch.full((longest, longest), _UNSEEN).triu(1)).softmax(-1)
        x = self.after(x, paid.to(v.dtype) @ v)
        if told is None:
            return x, x.new_zeros(())
        wanted = told.permute(0, 2, 1)
        share = paid[:, : told.shape[2]].gather(3, wanted.clamp(min=0)[..., None])[..., 0]
        return x, -share[wanted >= 0].clamp_min(1e-6).log().mean()

    def queries(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, T, width / heads)."""
        q, k, v = self.qkv(self.ln_1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def after(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The rest of the block, behind attention's (B, heads, T, width / heads)."""
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        y: Tensor = x + self.out(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))
        return y

    def tables(self) -> dict[str, Tensor]:
        """GPT-2's matrices are (in, out)."""
        linears = {"attn.c_attn": self.qkv, "attn.c_proj": self.proj, "mlp.c_fc": self.fc, "mlp.c_proj": self.out}
        tensors = {f"{name}.weight": linear.weight.T.contiguous() for name, linear in linears.items()}
        tensors |= {f"{name}.bias": linear.bias for name, linear in linears.items()}
        norms = {"ln_1": self.ln_1, "ln_2": self.ln_2}
        return tensors | {
            f"{n}.{part}": getattr(norm, part) for n, norm in norms.items() for part in ("weight", "bias")
        }


def _summed(tables: nn.ParameterDict, group: Tensor, index: Tensor, width: int) -> Tensor:
    """The rows of codes: for each the sum over its factors."""
    out = torch.zeros(len(group), width)
    for g, names in enumerate(_TABLES):
        at = (group == g).nonzero()[:, 0]
        if len(at):
            rows = torch.stack([tables[name][index[at, f]] for f, name in enumerate(names)]).sum(0)
            out = out.index_copy(0, at, rows)
    return out


def _clock(width: int) -> Tensor:
    """(COUNTERS, width): hands that turn at odd speeds, so that one counter further is the same rotation for all."""
    speeds = torch.arange(1, COUNTERS // 2 + 1, 2)
    angle = 2 * math.pi * torch.arange(COUNTERS)[:, None] * speeds[None] / COUNTERS
    hands = torch.cat([angle.sin(), angle.cos()], -1)
    rows = hands @ torch.randn(hands.shape[1], width)
    return 0.3 * rows / rows.std()


def _table(*shape: int, scale: float = 0.1) -> nn.Parameter:
    return nn.Parameter(scale * torch.randn(*shape))
