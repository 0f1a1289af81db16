"""T3's net in torch: GPT-2 over embeddings, with the weights of upstream's `t3_*_v1.safetensors`.

Source: upstream `chatterbox.models.t3.t3` over transformers' GPT2Model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from engines.checkpoints.tensor_file import Shape
from engines.checkpoints.weights import check_tensors, load_tensors
from engines.device import to_device
from engines.model_spec import SPEAKER_EMBEDDING_DIM, SPEECH_VOCAB, START_SPEECH_TOKEN, ModelSpec, T3Spec
from engines.t3 import prompt
from engines.t3.kv_cache import KvSlot
from engines.t3.linear import Linear, make_linear, min_rows, release_packing_memory
from engines.t3.net import Span
from engines.voice import Voice

_LAYER_NORM_EPS = 1e-5


def expected_tensors(spec: ModelSpec) -> dict[str, Shape]:
    """Names and shapes of the tensors that inference needs from upstream's file.

    The file also holds `tfmr.wte.weight` and `text_head.weight`, a third of Nano's bytes; only training uses them.
    """
    return outer_tensors(spec.t3) | {
        f"tfmr.h.{layer}.{name}": shape
        for layer in range(spec.t3.layers)
        for name, shape in block_tensors(spec.t3).items()
    }


def outer_tensors(spec: T3Spec) -> dict[str, Shape]:
    """All tensors except the blocks'. Matrices of `spkr_enc` and `speech_head` are (out, in)."""
    width = spec.width
    return {
        "cond_enc.spkr_enc.weight": (width, SPEAKER_EMBEDDING_DIM),
        "cond_enc.spkr_enc.bias": (width,),
        "text_emb.weight": (spec.text_vocab, width),
        "speech_emb.weight": (SPEECH_VOCAB, width),
        "tfmr.wpe.weight": (spec.positions, width),
        "tfmr.ln_f.weight": (width,),
        "tfmr.ln_f.bias": (width,),
        "speech_head.weight": (SPEECH_VOCAB, width),
        "speech_head.bias": (SPEECH_VOCAB,),
    }


def block_tensors(spec: T3Spec) -> dict[str, Shape]:
    """One transformer block. GPT-2's matrices are (in, out)."""
    width = spec.width
    return {
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "attn.c_attn.weight": (width, 3 * width),
        "attn.c_attn.bias": (3 * width,),
        "attn.c_proj.weight": (width, width),
        "attn.c_proj.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
        "mlp.c_fc.weight": (width, 4 * width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (4 * width, width),
        "mlp.c_proj.bias": (width,),
    }


class _LayerNorm:
    def __init__(self, tensors: dict[str, Tensor], name: str, device: torch.device) -> None:
        # copies: a view would hold the whole mapping of a block's file, pages that were read included
        self._weight = tensors[f"{name}.weight"].to(device, copy=True)
        self._bias = tensors[f"{name}.bias"].to(device, copy=True)
        self._shape = tuple(self._weight.shape)

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self._shape, self._weight, self._bias, _LAYER_NORM_EPS)


class _Block:
    """x + attention(ln_1 x), then x + mlp(ln_2 x)."""

    def __init__(
        self, tensors: dict[str, Tensor], spec: T3Spec, layer: int, device: torch.device, *, fp16_weights: bool
    ) -> None:
        self._layer, self._heads, self._width = layer, spec.heads, spec.width
        self._ln_1 = _LayerNorm(tensors, "ln_1", device)
        self._ln_2 = _LayerNorm(tensors, "ln_2", device)
        self._qkv = _linear(tensors, "attn.c_attn", device, fp16_weights)
        self._proj = _linear(tensors, "attn.c_proj", device, fp16_weights)
        self._fc = _linear(tensors, "mlp.c_fc", device, fp16_weights)
        self._out = _linear(tensors, "mlp.c_proj", device, fp16_weights)

    def __call__(
        self, x: Tensor, idle: Tensor, spans: Sequence[Span[KvSlot]], masks: Sequence[Tensor | None]
    ) -> Tensor:
        """x (R, width). Its last rows, as many as `idle` has, are padding and belong to no span."""
        rows = x.shape[0] - idle.shape[0]
        qkv = self._qkv(_joined([self._ln_1(x[:rows]), idle])).view(x.shape[0], 3, self._heads, -1)
        x = self._proj.add(_joined([*self._attend(qkv, spans, masks), idle]), x)
        return self._out.add(self._fc.gelu(_joined([self._ln_2(x[:rows]), idle])), x)

    def _attend(self, qkv: Tensor, spans: Sequence[Span[KvSlot]], masks: Sequence[Tensor | None]) -> list[Tensor]:
        """qkv (R, 3, heads, dim) -> (rows, width) of each span.

        Each span attends to exactly its own positions: there is no padding, and no row sees another sequence's.
        """
        outputs = []
        first = 0
        for span, mask in zip(spans, masks, strict=True):
            rows = qkv[first : first + span.rows]
            keys, values = span.slot.write(self._layer, span.start, rows[:, 1:])
            if span.tap is not None:
                span.tap.take(self._layer, rows[:, 0])
            query = rows[:, 0].transpose(0, 1).unsqueeze(0)  # (1, heads, n, dim)
            mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
            outputs.append(mixed.transpose(1, 2).reshape(span.rows, self._width))
            first += span.rows
        return outputs


class T3Net:
    """T3 in torch, as a Net. Keys and values go to the slots of the spans."""

    name = "torch"

    def __init__(
        self,
        outer: dict[str, Tensor],
        blocks: Sequence[_Block],
        spec: T3Spec,
        device: torch.device,
        *,
        fp16_weights: bool = False,
    ) -> None:
        self.spec, self.device, self.max_positions = spec, device, spec.positions
        self._blocks = blocks
        self._text_embedding = outer["text_emb.weight"].to(device)
        self._speech_embedding = outer["speech_emb.weight"].to(device)
        self._position_embedding = outer["tfmr.wpe.weight"].to(device)
        self._speaker_weight = outer["cond_enc.spkr_enc.weight"].to(device)
        self._speaker_bias = outer["cond_enc.spkr_enc.bias"].to(device)
        # the padding of a pass that has fewer rows than the matrices multiply fast
        self._idle_rows = torch.zeros((min_rows(device), spec.width), device=device)
        self._ln_f = _LayerNorm(outer, "tfmr.ln_f", device)
        self._head: Linear = make_linear(
            outer["speech_head.weight"].t(), outer["speech_head.bias"], device, fp16_weights=fp16_weights
        )

    @classmethod
    def load(
        cls,
        path: Path,
        spec: ModelSpec,
        device: torch.device | str,
        *,
        fp16_weights: bool = False,
        layers: int | None = None,
    ) -> T3Net:
        """Build from upstream's file; with `fp16_weights`, on a CPU that can, its matrices are kept in float16.

        `layers`: only the first ones, for a net whose queries are read but not its logits; None: all.

        Raises CheckpointError naming every tensor that is missing or misshapen.
        Embeddings stay views of the mapped file on the CPU. Each block has a mapping of its own, which is closed as
        soon as its matrices are packed, so that the file's pages and the packed copies are never in memory together.
        """
        device = torch.device(device)
        check_tensors(path, expected_tensors(spec))  # all problems in one error, before anything is built
        outer = load_tensors(path, outer_tensors(spec.t3))
        blocks = []
        for layer in range(spec.t3.layers if layers is None else layers):
            tensors = load_tensors(path, block_tensors(spec.t3), prefix=f"tfmr.h.{layer}.")
            blocks.append(_Block(tensors, spec.t3, layer, device, fp16_weights=fp16_weights))
            release_packing_memory()
        return cls(outer, blocks, replace(spec.t3, layers=len(blocks)), device, fp16_weights=fp16_weights)

    @classmethod
    def without_weights(cls, spec: ModelSpec) -> T3Net:
        """A net on torch's meta device, which computes shapes alone, so that its operations can be counted."""
        meta = torch.device("meta")

        def empty(tensors: dict[str, Shape]) -> dict[str, Tensor]:
            return {name: torch.empty(shape, device=meta) for name, shape in tensors.items()}

        layers = range(spec.t3.layers)
        blocks = [_Block(empty(block_tensors(spec.t3)), spec.t3, n, meta, fp16_weights=False) for n in layers]
        return cls(empty(outer_tensors(spec.t3)), blocks, spec.t3, meta)

    def check_prompt(self, voice: Voice, text_tokens: Sequence[int], max_positions: int) -> None:
        """As Net.check_prompt."""
        prompt.check_prompt(voice, text_tokens, self.spec, max_positions)

    def prefix_positions(self, voice: Voice) -> int:
        """As Net.prefix_positions."""
        return prompt.prefix_positions(voice)

    def new_slot(self, max_positions: int) -> KvSlot:
        """As Net.new_slot."""
        return KvSlot(self.spec, max_positions, self.device)

    def embed_prompt(self, voice: Voice, text_tokens: Sequence[int]) -> Tensor:
        """As Net.embed_prompt."""
        parts = [
            self.embed_speaker(voice.speaker_embedding),
            self.embed_speech(voice.t3_prompt_tokens.tolist()),
            self.embed_text(text_tokens),
            self.embed_speech([START_SPEECH_TOKEN]),
        ]
        return torch.cat(parts)

    def embed_speaker(self, embedding: npt.NDArray[np.float32]) -> Tensor:
        """(256,) -> (1, width)."""
        on_device = to_device(embedding.tolist(), torch.float32, self.device).unsqueeze(0)
        return F.linear(on_device, self._speaker_weight, self._speaker_bias)

    def embed_text(self, tokens: Sequence[int]) -> Tensor:
        """n text tokens -> (n, width)."""
        return F.embedding(to_device(tokens, torch.int64, self.device), self._text_embedding)

    def embed_speech(self, tokens: Sequence[int]) -> Tensor:
        """n speech tokens, marks included -> (n, width)."""
        return F.embedding(to_device(tokens, torch.int64, self.device), self._speech_embedding)

    def forward(self, embeddings: Tensor, spans: Sequence[Span[KvSlot]]) -> Tensor:
        """As Net.forward, (R, width) before the final norm. Positions are added here."""
        positions = [self._position_embedding[span.start : span.start + span.rows] for span in spans]
        rows = embeddings.shape[0]
        idle = self._idle_rows[rows:]
        x = _joined([embeddings + _joined(positions), idle])
        masks = [_causal_mask(span, self.device) for span in spans]
        for block in self._blocks:
            x = block(x, idle, spans, masks)
        return x[:rows]

    def speech_logits(self, hidden: Tensor) -> Tensor:
        """Rows of `forward`'s result (n, width) -> (n, 6563)."""
        return self._head(self._ln_f(hidden))


def _causal_mask(span: Span[KvSlot], device: torch.device) -> Tensor | None:
    """The mask that SDPA adds to the scores, (rows, start + rows): row i sees positions up to start + i. None: all."""
    if span.rows == 1:
        return None
    hidden = torch.full((span.rows, span.start + span.rows), float("-inf"), device=device)
    return hidden.triu_(span.start + 1)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """(n, width) each, one after the other; none is copied if the others are empty."""
    filled = [part for part in parts if part.shape[0]]
    return filled[0] if len(filled) == 1 else torch.cat(filled)


def _linear(tensors: dict[str, Tensor], name: str, device: torch.device, fp16_weights: bool) -> Linear:
    return make_linear(tensors[f"{name}.weight"], tensors[f"{name}.bias"], device, fp16_weights=fp16_weights)
