"""T3 of the tiny model while it learns: GPT-2 whose tables are made of small parts that share what they know.

A text token's row is the sum of what stands in its slots, a position's row follows from sines and its remainder
modulo 15, a code's rows are sums over phone, state, counter and voice. `tables` writes all of them out as the plain
tensors that the engine reads. Knows the engine's tensor names; knows no data.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.model_spec import (
    SPEAKER_EMBEDDING_DIM,
    SPEECH_CODES,
    SPEECH_VOCAB,
    START_SPEECH_TOKEN,
    STOP_SPEECH_TOKEN,
    T3Spec,
)
from tools.tiny.codes import COUNTERS, PHONE_SLOTS, STATES, VOICES, decode, encode
from tools.tiny.lexicon import SLOTS, SYMBOLS

_WAVES = 16
_LEAST_WAVE, _LONGEST_WAVE = 6.0, 8192.0
_NEVER = -30.0  # the logit of what T3 must not say
_ONSETS = 2  # states 0 and 1 begin a phone


class T3Train(nn.Module):
    def __init__(self, spec: T3Spec, symbols: Tensor, stressed: Tensor) -> None:
        """symbols, stressed (text vocabulary, slots + 1) as in Lexicon."""
        super().__init__()
        width = spec.width
        self.spec = spec
        self.register_buffer("symbols", symbols, persistent=False)
        self.register_buffer("stressed", stressed, persistent=False)
        self.speaker = nn.Linear(SPEAKER_EMBEDDING_DIM, width)
        self.slot = _table(SLOTS + 1, SYMBOLS, width)
        self.stress = _table(SLOTS + 1, width)
        self.remainder = _table(COUNTERS, width, scale=0.3)
        self.waves = _table(2 * _WAVES, width, scale=0.1)
        self.sound_in = _table(PHONE_SLOTS, STATES, width)
        self.counter_in = _table(COUNTERS, width, scale=0.3)
        self.voice_in = _table(VOICES, width)
        self.start_in = _table(width)
        self.blocks = nn.ModuleList([_Block(width, spec.heads, spec.layers) for _ in range(spec.layers)])
        self.ln_f = nn.LayerNorm(width)
        self.sound_out = _table(STATES, PHONE_SLOTS, width, scale=0.05)
        self.counter_out = _table(2, COUNTERS, width, scale=0.05)
        self.voice_out = _table(2, VOICES, width, scale=0.05)
        self.stop_out = _table(width, scale=0.05)

    def text_rows(self, tokens: Tensor) -> Tensor:
        """Text tokens of any shape -> (..., width)."""
        symbols = self.symbols[tokens]  # (..., slots + 1)
        slots = torch.arange(SLOTS + 1)
        from_symbols = self.slot[slots, symbols].sum(-2)
        return from_symbols + self.stressed[tokens].to(from_symbols.dtype) @ self.stress

    def position_rows(self, positions: Tensor) -> Tensor:
        length = torch.logspace(math.log10(_LEAST_WAVE), math.log10(_LONGEST_WAVE), _WAVES)
        angle = 2 * math.pi * positions[..., None] / length
        waves = torch.cat([angle.sin(), angle.cos()], dim=-1)
        return waves @ self.waves + self.remainder[positions % COUNTERS]

    def speech_rows(self, sounds: Tensor, counters: Tensor) -> Tensor:
        phone, voice, state = _split(sounds)
        return self.sound_in[phone, state] + self.counter_in[counters] + self.voice_in[voice]

    def hidden(self, x: Tensor, positions: Tensor) -> Tensor:
        """(B, T, width), positions (B, T) -> behind the final norm. Causal; pad on the right."""
        x = x + self.position_rows(positions)
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.ln_f(x)
        return y

    def log_probabilities(
        self, hidden: Tensor, sounds: Tensor, counters: Tensor, stops: Tensor
    ) -> tuple[Tensor, Tensor]:
        """hidden (n, width) and what follows -> log probability of that and the log of the sum, each (n,).

        The sum over all codes falls apart: phones and counters are independent once the state is known.
        """
        phone, voice, state = _split(sounds)
        by_sound = torch.einsum("nw,spw->nsp", hidden, self.sound_out)
        by_counter = torch.einsum("nw,ocw->noc", hidden, self.counter_out)
        by_voice = torch.einsum("nw,oqw->noq", hidden, self.voice_out)
        stop = hidden @ self.stop_out
        goes_on = (torch.arange(STATES) >= _ONSETS).long()
        rest = by_counter.logsumexp(-1) + by_voice.logsumexp(-1)  # (n, 2)
        total = torch.logaddexp((by_sound.logsumexp(-1) + rest[:, goes_on]).logsumexp(-1), stop)
        rows, on = torch.arange(len(hidden)), goes_on[state]
        code = by_sound[rows, state, phone] + by_counter[rows, on, counters] + by_voice[rows, on, voice]
        return torch.where(stops, stop, code) - total, total

    @torch.no_grad()
    def tables(self) -> dict[str, Tensor]:
        """Every tensor that the engine reads, in its layout."""
        sounds, counters = (torch.from_numpy(part) for part in decode(torch.arange(SPEECH_CODES).numpy()))
        phone, voice, state = _split(sounds)
        on = (state >= _ONSETS).long()
        width = self.spec.width
        speech_in, head = torch.zeros(SPEECH_VOCAB, width), torch.zeros(SPEECH_VOCAB, width)
        speech_in[:SPEECH_CODES] = self.speech_rows(sounds, counters)
        speech_in[START_SPEECH_TOKEN] = self.start_in
        head[:SPEECH_CODES] = self.sound_out[state, phone] + self.counter_out[on, counters] + self.voice_out[on, voice]
        head[STOP_SPEECH_TOKEN] = self.stop_out
        bias = torch.zeros(SPEECH_VOCAB)
        unused = torch.cat([_unused(), torch.tensor([START_SPEECH_TOKEN])])
        head[unused] = 0
        bias[unused] = _NEVER
        tensors = {
            "cond_enc.spkr_enc.weight": self.speaker.weight,
            "cond_enc.spkr_enc.bias": self.speaker.bias,
            "text_emb.weight": self.text_rows(torch.arange(self.spec.text_vocab)),
            "speech_emb.weight": speech_in,
            "tfmr.wpe.weight": self.position_rows(torch.arange(self.spec.positions)),
            "tfmr.ln_f.weight": self.ln_f.weight,
            "tfmr.ln_f.bias": self.ln_f.bias,
            "speech_head.weight": head,
            "speech_head.bias": bias,
        }
        for index, block in enumerate(self.blocks):
            tensors |= {f"tfmr.h.{index}.{name}": value for name, value in block.tables().items()}
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for last in (self.proj, self.out):
            nn.init.normal_(last.weight, std=0.5 / math.sqrt(2 * layers * last.in_features))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.ln_1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
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


def _table(*shape: int, scale: float = 0.1) -> nn.Parameter:
    return nn.Parameter(scale * torch.randn(*shape))


def _split(sounds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return sounds // (VOICES * STATES), sounds // STATES % VOICES, sounds % STATES


def _unused() -> Tensor:
    """Codes that no sound has: `decode` takes them for pauses, and those have codes of their own."""
    codes = torch.arange(SPEECH_CODES)
    sounds, counters = decode(codes.numpy())
    return codes[torch.from_numpy(encode(sounds, counters)) != codes]
