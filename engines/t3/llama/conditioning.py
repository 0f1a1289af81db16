"""What T3 is conditioned on before the text: the speaker, the reference's prompt, and the exaggeration.

Source: upstream `T3CondEnc` and `Perceiver`. All of it is computed in float32, the voice's part once per voice.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from engines.device import to_device
from engines.model_spec import LlamaSpec
from engines.t3.llama.weights import PERCEIVER
from engines.voice import Voice

_KEPT_VOICES = 256  # 135 kB each at the published width


class Conditioning:
    """Rows of a voice and of an exaggeration. One thread at a time."""

    def __init__(self, outer: dict[str, Tensor], spec: LlamaSpec, device: torch.device) -> None:
        """`outer`: the tensors of `weights.outer_tensors`."""
        self._spec, self._device = spec, device
        names = [name for name in outer if name.startswith("cond_enc.")]
        self._tensors = {name: outer[name].to(device, torch.float32) for name in names}
        self._speech = outer["speech_emb.weight"].to(device)
        self._places = outer["speech_pos_emb.emb.weight"].to(device)
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def of_voice(self, voice: Voice) -> Tensor:
        """(voice rows, width) float32: the speaker, then the perceiver's rows."""
        rows = self._kept.get(voice.key)
        if rows is None:
            rows = self._kept[voice.key] = self.compute(voice)
            if len(self._kept) > _KEPT_VOICES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(voice.key)
        return rows

    def compute(self, voice: Voice) -> Tensor:
        """As `of_voice`, without keeping them."""
        return torch.cat([self._speaker(voice), self._prompt(voice)])

    def of_exaggeration(self, exaggeration: float) -> Tensor:
        """(1, width) float32."""
        weight = self._tensors["cond_enc.emotion_adv_fc.weight"]
        return weight.t() * exaggeration

    def _speaker(self, voice: Voice) -> Tensor:
        embedding = to_device(voice.speaker_embedding.tolist(), torch.float32, self._device).unsqueeze(0)
        return F.linear(embedding, self._tensors["cond_enc.spkr_enc.weight"], self._tensors["cond_enc.spkr_enc.bias"])

    def _prompt(self, voice: Voice) -> Tensor:
        """(perceiver rows, width): one block of attention used twice, over the prompt and over its own rows."""
        tokens = to_device(voice.t3_prompt_tokens.tolist(), torch.int64, self._device)
        embedded = F.embedding(tokens, self._speech) + self._places[: len(tokens)]
        queries = self._tensors[PERCEIVER + "pre_attention_query"][0]
        attended = self._attend(queries, embedded)
        return self._attend(attended, attended)

    def _attend(self, queries: Tensor, context: Tensor) -> Tensor:
        """queries (n, width) + their attention to context (m, width)."""

        def linear(x: Tensor, name: str) -> Tensor:
            return F.linear(x, self._tensors[f"{at}{name}.weight"], self._tensors[f"{at}{name}.bias"])

        def heads(x: Tensor) -> Tensor:
            return x.view(1, len(x), self._spec.perceiver_heads, -1).transpose(1, 2)

        at = PERCEIVER + "attn."
        shape, norm = (self._spec.width,), (self._tensors[at + "norm.weight"], self._tensors[at + "norm.bias"])
        x, seen = F.layer_norm(queries, shape, *norm), F.layer_norm(context, shape, *norm)
        q, k, v = heads(linear(x, "to_q")), heads(linear(seen, "to_k")), heads(linear(seen, "to_v"))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)[0]
        return queries + linear(mixed, "proj_out")
