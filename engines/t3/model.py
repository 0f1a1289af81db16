"""T3's net in torch: GPT-2 over embeddings, with the weights of upstream's `t3_*_v1.safetensors`.

Source: upstream `chatterbox.models.t3.t3` over transformers' GPT2Model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from engines.checkpoints.tensor_file import Shape
from engines.checkpoints.weights import check_tensors, load_tensors
from engines.config import Sampling
from engines.device import to_device
from engines.kernels import gpt2_blocks
from engines.kernels.attention import attention_width
from engines.kernels.dense import WeightFormat
from engines.kernels.gpt2_blocks import Gpt2Blocks
from engines.model_spec import SPEAKER_EMBEDDING_DIM, SPEECH_VOCAB, START_SPEECH_TOKEN, ModelSpec, T3Spec
from engines.t3 import prompt
from engines.t3.attention import Attend, attention_of, step_attention, take_queries
from engines.t3.family import GPT2
from engines.t3.kv_cache import KvSlot
from engines.t3.linear import CompiledLinear, DenseLinear, Linear, make_linear, min_rows, release_packing_memory
from engines.t3.net import Span
from engines.t3.norm import CompiledNorm, NormLayer, make_norm
from engines.t3.passes import EagerPass, Pass
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


@dataclass(frozen=True)
class Maker:
    """Makes layers for a device. `dtype`: of weights, activations and results.

    borrows  layers compute with the very tensors that they are given, which are on the device and of `dtype`
    """

    device: torch.device
    dtype: torch.dtype = torch.float32
    weights: WeightFormat = "float32"
    borrows: bool = False

    def norm(self, tensors: dict[str, Tensor], name: str) -> NormLayer:
        weight, bias = (self.small(tensors[f"{name}.{part}"]) for part in ("weight", "bias"))
        return make_norm(weight, bias, _LAYER_NORM_EPS)

    def small(self, tensor: Tensor) -> Tensor:
        """A copy: a view would hold the whole mapping of a block's file, pages that were read included."""
        return tensor if self.borrows else tensor.to(self.device, self.dtype, copy=True)

    def linear(self, tensors: dict[str, Tensor], name: str) -> Linear:
        return self.matrix(tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def matrix(self, weight: Tensor, bias: Tensor) -> Linear:
        if self.borrows:
            return DenseLinear(weight, bias)
        return make_linear(weight, bias, self.device, weights=self.weights, dtype=self.dtype)

    def held(self, head_dim: int) -> torch.dtype:
        """Of keys and values in a cache: float16 where weights are no float32 either and the attention reads it."""
        half = self.weights != "float32" and attention_width(head_dim, half=True) is not None
        return torch.float16 if half else self.dtype

    def table(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype)


class _Block:
    """x + attention(ln_1 x), then x + mlp(ln_2 x)."""

    def __init__(self, tensors: dict[str, Tensor], spec: T3Spec, layer: int, make: Maker) -> None:
        self._layer, self._heads = layer, spec.heads
        self._ln_1, self._ln_2 = make.norm(tensors, "ln_1"), make.norm(tensors, "ln_2")
        self._qkv = make.linear(tensors, "attn.c_attn")
        self._proj = make.linear(tensors, "attn.c_proj")
        self._fc = make.linear(tensors, "mlp.c_fc")
        self._out = make.linear(tensors, "mlp.c_proj")

    def __call__(self, x: Tensor, idle: Tensor, attend: Attend) -> Tensor:
        """x (R, width). Its last rows, as many as `idle` has, are padding, which `attend` leaves alone."""
        rows = x.shape[0] - idle.shape[0]
        qkv = self._qkv(_joined([self._ln_1(x[:rows]), idle])).view(x.shape[0], 3, self._heads, -1)
        x = self._proj.add(_joined([*attend(self._layer, qkv), idle]), x)
        return self._out.add(self._fc.gelu(_joined([self._ln_2(x[:rows]), idle])), x)

    def compiled(self) -> gpt2_blocks.Block | None:
        """The block's norms and layers, if all are compiled."""
        norms, linears = (self._ln_1, self._ln_2), (self._qkv, self._proj, self._fc, self._out)
        kernels = [norm.norm for norm in norms if isinstance(norm, CompiledNorm)]
        layers = [linear.layer for linear in linears if isinstance(linear, CompiledLinear)]
        if len(kernels) < len(norms) or len(layers) < len(linears):
            return None
        (norm_1, norm_2), (qkv, proj, fc, out) = kernels, layers
        return gpt2_blocks.Block(norm_1, qkv, proj, norm_2, fc, out)


class T3Net:
    """T3 in torch, as a Net. Keys and values go to the slots of the spans. `dtype` is that of weights, activations and
    hidden states; logits are float32."""

    name = "torch"
    family = GPT2

    def __init__(
        self,
        outer: dict[str, Tensor],
        blocks: Sequence[_Block],
        spec: T3Spec,
        make: Maker,
    ) -> None:
        if make.weights == "int8":
            self.name = "torch-int8"
        device = make.device
        self.spec, self.device, self.dtype, self.max_positions = spec, device, make.dtype, spec.positions
        self._held = make.held(spec.width // spec.heads)
        self._blocks = blocks
        self._text_embedding = make.table(outer["text_emb.weight"])
        self.speech_embedding = make.table(outer["speech_emb.weight"])
        self.position_embedding = make.table(outer["tfmr.wpe.weight"])
        self._speaker_weight = outer["cond_enc.spkr_enc.weight"].to(device)
        self._speaker_bias = outer["cond_enc.spkr_enc.bias"].to(device)
        # the padding of a pass that has fewer rows than the matrices multiply fast
        self._idle_rows = torch.zeros((min_rows(device), spec.width), device=device, dtype=make.dtype)
        compiled = [each for block in blocks if (each := block.compiled()) is not None]
        in_one_call = len(compiled) == len(blocks) and gpt2_blocks.computable(compiled)
        self._step_blocks = Gpt2Blocks(compiled) if in_one_call else None
        self._ln_f = make.norm(outer, "tfmr.ln_f")
        self._head = make.matrix(outer["speech_head.weight"].t(), outer["speech_head.bias"])

    @classmethod
    def load(
        cls,
        path: Path,
        spec: ModelSpec,
        device: torch.device | str,
        *,
        weights: WeightFormat = "float32",
        dtype: torch.dtype = torch.float32,
        layers: int | None = None,
    ) -> Self:
        """Build from upstream's file; `weights` is how its matrices are kept, on a CPU that can.

        `layers`: only the first ones, for a net whose queries are read but not its logits; None: all.

        Raises CheckpointError naming every tensor that is missing or misshapen.
        Embeddings stay views of the mapped file on the CPU. Each block has a mapping of its own, which is closed as
        soon as its matrices are packed, so that the file's pages and the packed copies are never in memory together.
        """
        make = Maker(torch.device(device), dtype, weights)
        check_tensors(path, expected_tensors(spec))  # all problems in one error, before anything is built
        outer = load_tensors(path, outer_tensors(spec.t3))
        blocks = []
        for layer in range(spec.t3.layers if layers is None else layers):
            tensors = load_tensors(path, block_tensors(spec.t3), prefix=f"tfmr.h.{layer}.")
            blocks.append(_Block(tensors, spec.t3, layer, make))
            release_packing_memory()
        return cls(outer, blocks, replace(spec.t3, layers=len(blocks)), make)

    @classmethod
    def of_tensors(
        cls, outer: dict[str, Tensor], blocks: Sequence[dict[str, Tensor]], spec: T3Spec, dtype: torch.dtype
    ) -> Self:
        """A net of as many layers as `blocks`, which computes with these very tensors, all on one device.

        They are of `dtype`, and named and shaped as `outer_tensors` and `block_tensors`; those of `cond_enc` float32.
        """
        make = Maker(outer["speech_emb.weight"].device, dtype, borrows=True)
        made = [_Block(tensors, spec, layer, make) for layer, tensors in enumerate(blocks)]
        return cls(outer, made, replace(spec, layers=len(made)), make)

    @classmethod
    def without_weights(cls, spec: ModelSpec) -> T3Net:
        """A net on torch's meta device, which computes shapes alone, so that its operations can be counted."""
        make = Maker(torch.device("meta"))

        def empty(tensors: dict[str, Shape]) -> dict[str, Tensor]:
            return {name: torch.empty(shape, device=make.device) for name, shape in tensors.items()}

        layers = range(spec.t3.layers)
        blocks = [_Block(empty(block_tensors(spec.t3)), spec.t3, n, make) for n in layers]
        return cls(empty(outer_tensors(spec.t3)), blocks, spec.t3, make)

    def check_prompt(self, voice: Voice, text_tokens: Sequence[int], max_positions: int) -> None:
        """As Net.check_prompt."""
        prompt.check_prompt(voice, text_tokens, self.spec, max_positions)

    def prefix_positions(self, voice: Voice) -> int:
        """As Net.prefix_positions."""
        return prompt.prefix_positions(voice)

    def text_start(self, voice: Voice) -> int:
        """As Net.text_start."""
        return prompt.prefix_positions(voice)

    def new_slot(self, max_positions: int) -> KvSlot:
        """As Net.new_slot."""
        return KvSlot(self.spec, max_positions, self.device, self.dtype, self._held)

    def new_pass(self, slots: int, max_positions: int) -> Pass:
        """As Net.new_pass."""
        return EagerPass(self, slots, max_positions)

    def embed_prompt(
        self, voice: Voice, text_tokens: Sequence[int], context: Sequence[int] = (), *, sampling: Sampling | None = None
    ) -> Tensor:
        """As Net.embed_prompt. Does not depend on `sampling`."""
        prompt_tokens = voice.t3_prompt_tokens.tolist()
        parts = [
            self.embed_speaker(voice.speaker_embedding),
            self.embed_speech([*prompt_tokens[: len(prompt_tokens) - len(context)], *context]),
            self.embed_text(text_tokens),
            self.embed_speech([START_SPEECH_TOKEN]),
        ]
        return torch.cat(parts)

    def embed_speaker(self, embedding: npt.NDArray[np.float32]) -> Tensor:
        """(256,) -> (1, width)."""
        on_device = to_device(embedding.tolist(), torch.float32, self.device).unsqueeze(0)
        return F.linear(on_device, self._speaker_weight, self._speaker_bias).to(self.dtype)

    def embed_text(self, tokens: Sequence[int]) -> Tensor:
        """n text tokens -> (n, width)."""
        return F.embedding(to_device(tokens, torch.int64, self.device), self._text_embedding)

    def embed_speech(self, tokens: Sequence[int], places: Sequence[int] | None = None) -> Tensor:
        """As Net.embed_speech. Does not depend on `places`: positions are those of the whole sequence."""
        return F.embedding(to_device(tokens, torch.int64, self.device), self.speech_embedding)

    def forward(self, embeddings: Tensor, spans: Sequence[Span[Any]]) -> Tensor:
        """As Net.forward, (R, width) before the final norm. Slots are CacheSlots. Positions are added here."""
        positions = [self.position_embedding[span.start : span.start + span.rows] for span in spans]
        x = embeddings + _joined(positions)
        blocks = self._step_blocks
        step = None if blocks is None else step_attention(spans, self.dtype)
        if blocks is None or step is None or not blocks.fit(step):
            return self.run_blocks(x, attention_of(spans, self.device, self.dtype))
        qkv = blocks.run(x.numpy(), step, keep_qkv=any(span.tap is not None for span in spans))
        for layer, rows in enumerate(torch.from_numpy(qkv)):
            take_queries(spans, layer, rows)
        return x

    def run_blocks(self, x: Tensor, attend: Attend) -> Tensor:
        """All blocks over x (R, width), which has its positions."""
        rows = x.shape[0]
        idle = self._idle_rows[rows:]
        x = _joined([x, idle])
        for block in self._blocks:
            x = block(x, idle, attend)
        return x[:rows]

    def speech_logits(self, hidden: Tensor) -> Tensor:
        """Rows of `forward`'s result (n, width) -> (n, 6563) float32."""
        return self._head(self._ln_f(hidden)).float()


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """(n, width) each, one after the other; none is copied if the others are empty."""
    filled = [part for part in parts if part.shape[0]]
    return filled[0] if len(filled) == 1 else torch.cat(filled)
