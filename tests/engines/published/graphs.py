"""Tiny graphs with the published set's inputs and outputs, exported from nets of the tests' own with random weights."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.text.tokenizer import TOKENIZER_FILES

WIDTH, HEADS, LAYERS, HEAD_WIDTH = 16, 2, 2, 8
END_OF_TEXT, START = 50256, 6561
STOP_PRESSED_DOWN = -100.0


class Embed(nn.Module):
    """The last two ids are speech, and there the end of text means the start mark."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.speech = nn.Embedding(400, WIDTH), nn.Embedding(6563, WIDTH)

    def forward(self, input_ids: Tensor) -> Tensor:
        speech = input_ids[:, -2:]
        speech = torch.where(speech == END_OF_TEXT, torch.full_like(speech, START), speech)
        return torch.cat([self.text(input_ids[:, :-2]), self.speech(speech)], dim=1)


class Language(nn.Module):
    """Causal attention layers with learned positions; keys and values before and after as arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Embedding(2048, WIDTH)
        self.mix = nn.ModuleList([nn.Linear(WIDTH, 3 * WIDTH) for _ in range(LAYERS)])
        self.head = nn.Linear(WIDTH, 6563)
        with torch.no_grad():
            self.head.bias[6562] = STOP_PRESSED_DOWN

    def forward(self, embeds: Tensor, mask: Tensor, positions: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        x = embeds + self.positions(positions)
        present: list[Tensor] = []
        seen = torch.arange(mask.shape[1])[None] <= positions[0][:, None]  # (n, total)
        for layer, mix in enumerate(self.mix):
            q, k, v = (part.view(1, -1, HEADS, HEAD_WIDTH).transpose(1, 2) for part in mix(x).chunk(3, dim=-1))
            k, v = torch.cat([past[2 * layer], k], dim=2), torch.cat([past[2 * layer + 1], v], dim=2)
            present += [k, v]
            bias = torch.where(seen & (mask > 0), 0.0, -1e9)
            x = x + F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
        return self.head(x), *present


class Encoder(nn.Module):
    """One token, two mel frames and one row of T3's prompt for each 960 samples."""

    def __init__(self) -> None:
        super().__init__()
        self.feature, self.mel, self.speaker = nn.Linear(1, WIDTH), nn.Linear(1, 160), nn.Linear(1, 192)

    def forward(self, audio: Tensor) -> tuple[Tensor, ...]:
        count = audio.shape[1] // 960
        level = audio[:, : count * 960].view(1, -1, 960).abs().mean(-1, keepdim=True)[:, :40]  # (1, N, 1)
        tokens = (level[..., 0] * 1e5).long() % 6561
        return self.feature(level), tokens, self.speaker(level.mean(1)), self.mel(level).view(1, -1, 80)


class Decoder(nn.Module):
    """960 samples for each token behind the prompt, which has half as many tokens as the mel has frames."""

    def forward(self, tokens: Tensor, speaker: Tensor, features: Tensor) -> Tensor:
        own = tokens[:, features.shape[1] // 2 :].float() / 6561 - 0.5
        ramp = torch.linspace(-1, 1, 960)[None, None]
        return (own[..., None] * ramp + 0.01 * speaker.mean()).flatten(1)


def write_set(folder: Path, tokenizer: Path, *, without: str = "", renamed: dict[str, str] | None = None) -> None:
    """The four graphs in `folder`/onnx and the tokenizer of another checkpoint.

    `without` leaves out one graph's file; `renamed` gives inputs and outputs other names.
    """
    torch.manual_seed(0)
    past = [f"past_key_values.{i}.{kind}" for i in range(LAYERS) for kind in ("key", "value")]
    ids, rows = torch.zeros(1, 5, dtype=torch.int64), torch.zeros(1, 5, WIDTH)
    caches = [torch.zeros(1, HEADS, 3, HEAD_WIDTH) for _ in past]
    speech = (torch.zeros(1, 9, dtype=torch.int64), torch.zeros(1, 192), torch.zeros(1, 8, 80))
    where, mask, places = ["inputs_embeds", "attention_mask", "position_ids"], torch.ones(1, 8), torch.arange(3, 8)
    present = [name.replace("past_key_values", "present") for name in past]
    encoded = ["audio_features", "audio_tokens", "speaker_embeddings", "speaker_features"]
    graphs: dict[str, tuple[nn.Module, tuple[Tensor, ...], list[str], list[str]]] = {
        "embed_tokens": (Embed(), (ids,), ["input_ids"], ["inputs_embeds"]),
        "language_model": (
            Language(), (rows, mask.long(), places[None], *caches), [*where, *past], ["logits", *present],
        ),
        "speech_encoder": (Encoder(), (torch.rand(1, 9000),), ["audio_values"], encoded),
        "conditional_decoder": (
            Decoder(), speech, ["speech_tokens", "speaker_embeddings", "speaker_features"], ["waveform"],
        ),
    }  # fmt: skip
    (folder / "onnx").mkdir(parents=True)
    for name, (net, arguments, inputs, outputs) in graphs.items():
        if name != without:
            _export(net, arguments, inputs, outputs, folder / "onnx" / f"{name}.onnx", renamed or {})
    for path in (tokenizer / name for name in TOKENIZER_FILES):
        if path.is_file():
            shutil.copy(path, folder)


def _export(
    net: nn.Module, arguments: tuple[Tensor, ...], inputs: list[str], outputs: list[str], path: Path, renamed: Any
) -> None:
    open_axes = {
        **{name: {1: f"{name}_n"} for name in (*inputs, *outputs) if name != "speaker_embeddings"},
        **{name: {2: f"{name}_n"} for name in (*inputs, *outputs) if name.startswith(("past", "present"))},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net.eval(), arguments, str(path), dynamo=False, opset_version=18,
            input_names=[renamed.get(name, name) for name in inputs],
            output_names=[renamed.get(name, name) for name in outputs],
            dynamic_axes={renamed.get(name, name): axes for name, axes in open_axes.items()},
        )  # fmt: skip
