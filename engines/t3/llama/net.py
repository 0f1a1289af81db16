"""T3's net in torch for standard and Multilingual: Llama over embeddings, with the weights of upstream's files.

Source: upstream `chatterbox.models.t3.t3` over transformers' LlamaModel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from engines.checkpoints.tensor_file import Shape
from engines.checkpoints.weights import check_tensors, load_tensors
from engines.config import Sampling
from engines.device import to_device
from engines.kernels.dense import WeightFormat
from engines.model_spec import START_SPEECH_TOKEN, LlamaSpec, ModelSpec
from engines.t3.attention import attention_of
from engines.t3.family import LLAMA
from engines.t3.linear import Linear, min_rows, release_packing_memory
from engines.t3.llama.conditioning import Conditioning
from engines.t3.llama.lanes import LaneSlot
from engines.t3.llama.lora import Lora
from engines.t3.llama.passes import GuidedPass
from engines.t3.llama.prompt import START_TEXT, STOP_TEXT, check_llama_prompt
from engines.t3.llama.weights import block_prefix, block_tensors, expected_tensors, outer_tensors, spec_of
from engines.t3.model import Maker
from engines.t3.net import Span
from engines.t3.norm import make_norm
from engines.voice import Voice

NORM_EPS = 1e-5
ROPE_THETA = 500_000.0
ROPE_FACTOR, ROPE_LOW, ROPE_HIGH, ROPE_ORIGINAL = 8.0, 1.0, 4.0, 8192  # llama3's scaling


def rope_frequencies(head_dim: int) -> Tensor:
    """(head dim / 2,) radians a position, after llama3's scaling."""
    inverse = 1.0 / ROPE_THETA ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    wavelength = 2 * math.pi / inverse
    smooth = ((ROPE_ORIGINAL / wavelength - ROPE_LOW) / (ROPE_HIGH - ROPE_LOW)).clamp(0, 1)
    return (1 - smooth) * inverse / ROPE_FACTOR + smooth * inverse


class _Rows:
    """What all blocks of a pass share: the rotations of all rows, (R, 1, 1, head dim), and the attention of the spans
    that have as many lanes."""

    def __init__(
        self, spans: Sequence[Span[LaneSlot]], cos: Tensor, sin: Tensor, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._spans, self._cos, self._sin = spans, cos, sin
        groups: dict[int, list[Span[Any]]] = {
            lanes: [span for span in spans if span.slot.lanes == lanes] for lanes in (1, 2)
        }
        self._attends = {lanes: attention_of(group, device, dtype) for lanes, group in groups.items() if group}

    def attend(self, layer: int, qkv: Tensor) -> list[Tensor]:
        """qkv (R or more, 3, heads, dim) -> the attention's results, (rows x lanes, width) of each span."""
        turned = self._turned(qkv[: len(self._cos)])
        sizes = [span.rows * span.slot.lanes for span in self._spans]
        parts = list(torch.split(turned, sizes))
        return self._one_group(layer, turned) if len(self._attends) == 1 else self._two_groups(layer, parts)

    def _one_group(self, layer: int, rows: Tensor) -> list[Tensor]:
        (lanes, attend), width = next(iter(self._attends.items())), rows.shape[2] * rows.shape[3]
        return [mixed.reshape(-1, width) for mixed in attend(layer, _side_by_side(rows, lanes))]

    def _two_groups(self, layer: int, parts: list[Tensor]) -> list[Tensor]:
        results: list[Tensor] = [parts[0]] * len(parts)
        for lanes, attend in self._attends.items():
            places = [place for place, span in enumerate(self._spans) if span.slot.lanes == lanes]
            rows = torch.cat([parts[place] for place in places])
            mixed = torch.cat(list(attend(layer, _side_by_side(rows, lanes)))).reshape(len(rows), -1)
            for place, result in zip(places, torch.split(mixed, [len(parts[place]) for place in places]), strict=True):
                results[place] = result
        return results

    def _turned(self, qkv: Tensor) -> Tensor:
        """Queries and keys at their positions, and the values as they are."""
        x = qkv[:, :2]
        left, right = x.chunk(2, -1)
        return torch.cat([x * self._cos + torch.cat([-right, left], -1) * self._sin, qkv[:, 2:]], 1)


def _side_by_side(rows: Tensor, lanes: int) -> Tensor:
    """(n x lanes, 3, heads, dim) -> (n, 3, lanes x heads, dim): the lanes of a position as more heads."""
    if lanes == 1:
        return rows
    _, three, heads, dim = rows.shape
    return rows.view(-1, lanes, three, heads, dim).transpose(1, 2).reshape(-1, three, lanes * heads, dim)


class _Block:
    """x + attention(norm x), then x + mlp(norm x); no biases."""

    def __init__(self, tensors: dict[str, Tensor], spec: LlamaSpec, layer: int, make: Maker) -> None:
        self._layer, self._heads = layer, spec.heads
        self._before, self._behind = (
            make_norm(make.small(tensors[f"{name}.weight"]), None, NORM_EPS)
            for name in ("input_layernorm", "post_attention_layernorm")
        )
        self._qkv = _joined_linear(_parts(tensors, "self_attn.qkv_proj", ("q_proj", "k_proj", "v_proj")), make)
        self._out = _joined_linear([tensors["self_attn.o_proj.weight"]], make)
        self._wide = _joined_linear(_parts(tensors, "mlp.gate_up_proj", ("gate_proj", "up_proj")), make)
        self._narrow = _joined_linear([tensors["mlp.down_proj.weight"]], make)

    def __call__(self, x: Tensor, rows: _Rows, padding: int) -> Tensor:
        """x (R + padding, width); nothing attends to the padding's rows."""
        qkv = self._qkv(self._before(x)).reshape(len(x), 3, self._heads, -1)
        mixed = torch.cat([*rows.attend(self._layer, qkv), x.new_zeros(padding, x.shape[1])])
        x = self._out.add(mixed, x)
        gate, up = self._wide(self._behind(x)).chunk(2, 1)
        return self._narrow.add(F.silu(gate) * up, x)


def _parts(tensors: dict[str, Tensor], joined: str, names: Sequence[str]) -> list[Tensor]:
    """The matrices that are one layer, or the one matrix that they are already."""
    if f"{joined}.weight" in tensors:
        return [tensors[f"{joined}.weight"]]
    at = joined.split(".")[0]
    return [tensors[f"{at}.{name}.weight"] for name in names]


def _joined_linear(weights: Sequence[Tensor], make: Maker) -> Linear:
    """Matrices (out, in) of the same inputs as one layer."""
    weight = torch.cat(list(weights)) if len(weights) > 1 else weights[0]
    return make.matrix(weight.t(), weight.new_zeros(len(weight)))


class LlamaNet:
    """T3 as a Net with one or two lanes for each sequence.

    A row of a sequence with guidance is two rows of every matrix product, with the text and without it, and one row of
    the cache with twice the heads. `dtype` is that of weights, activations and hidden states; logits are float32.
    """

    name = "torch"
    family = LLAMA

    def __init__(
        self,
        outer: dict[str, Tensor],
        blocks: Sequence[_Block],
        spec: LlamaSpec,
        make: Maker,
        conditioning: Conditioning | None = None,
    ) -> None:
        """`conditioning`: None: of `outer`."""
        if make.weights == "int8":
            self.name = "torch-int8"
        self.spec, self.device, self.dtype, self.max_positions = spec, make.device, make.dtype, spec.positions
        self._held = make.held(spec.width // spec.heads)
        self._blocks = blocks
        self.conditioning = conditioning or Conditioning(outer, spec, make.device)
        self._text, self._speech = make.table(outer["text_emb.weight"]), make.table(outer["speech_emb.weight"])
        self._text_places = make.table(outer["text_pos_emb.emb.weight"])
        self._speech_places = make.table(outer["speech_pos_emb.emb.weight"])
        self._min_rows = min_rows(make.device)
        self._norm = make_norm(make.small(outer["tfmr.norm.weight"]), None, NORM_EPS)
        self._head = _joined_linear([outer["speech_head.weight"]], make)
        angles = torch.outer(torch.arange(spec.positions).float(), rope_frequencies(spec.width // spec.heads))
        angles = angles.repeat(1, 2)[:, None, None]
        self._cos, self._sin = make.table(angles.cos()), make.table(angles.sin())

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
        loras: Sequence[Lora] = (),
    ) -> Self:
        """As T3Net.load; `loras` are added to the weights, in order.

        Raises CheckpointError naming every tensor that is missing or misshapen, and as Lora.check.
        """
        make, t3, expected = Maker(torch.device(device), dtype, weights), spec_of(spec), expected_tensors(spec)
        check_tensors(path, expected)  # all problems in one error, before anything is built
        for lora in loras:
            lora.check(expected)
        outer = _load(path, outer_tensors(t3), "", loras)
        blocks = []
        for layer in range(t3.layers if layers is None else layers):
            blocks.append(_Block(_load(path, block_tensors(t3), block_prefix(layer), loras), t3, layer, make))
            release_packing_memory()
        return cls(outer, blocks, replace(t3, layers=len(blocks)), make)

    @classmethod
    def of_tensors(
        cls,
        outer: dict[str, Tensor],
        blocks: Sequence[dict[str, Tensor]],
        spec: LlamaSpec,
        dtype: torch.dtype,
        conditioning: Conditioning,
    ) -> Self:
        """As T3Net.of_tensors. `outer` without what the conditioning has. The matrices of queries, keys and values may
        be one, `self_attn.qkv_proj`, and those of gate and up too, `mlp.gate_up_proj`."""
        make = Maker(outer["speech_emb.weight"].device, dtype, borrows=True)
        made = [_Block(tensors, spec, layer, make) for layer, tensors in enumerate(blocks)]
        return cls(outer, made, replace(spec, layers=len(made)), make, conditioning)

    @classmethod
    def without_weights(cls, spec: ModelSpec) -> LlamaNet:
        """As T3Net.without_weights."""
        make, t3 = Maker(torch.device("meta")), spec_of(spec)

        def empty(tensors: dict[str, Shape]) -> dict[str, Tensor]:
            return {name: torch.empty(shape, device=make.device) for name, shape in tensors.items()}

        blocks = [_Block(empty(block_tensors(t3)), t3, layer, make) for layer in range(t3.layers)]
        return cls(empty(outer_tensors(t3)), blocks, t3, make)

    def check_prompt(self, voice: Voice, text_tokens: Sequence[int], max_positions: int) -> None:
        """As Net.check_prompt."""
        check_llama_prompt(voice, text_tokens, self.spec, max_positions)

    def prefix_positions(self, voice: Voice) -> int:
        """As Net.prefix_positions."""
        return self.spec.voice_rows

    def text_start(self, voice: Voice) -> int:
        """As Net.text_start."""
        return self.spec.conditioning_rows + 1

    def lanes(self, sampling: Sampling) -> int:
        """How many lanes a sequence with this sampling has."""
        return 2 if sampling.cfg_weight > 0 else 1

    def new_slot(self, max_positions: int) -> LaneSlot:
        """As Net.new_slot, with one lane."""
        return LaneSlot(self.spec, max_positions, self.device, self.dtype, self._held)

    def new_pass(self, slots: int, max_positions: int) -> GuidedPass:
        """As Net.new_pass."""
        return GuidedPass(self, slots, max_positions)

    def embed_prompt(
        self, voice: Voice, text_tokens: Sequence[int], context: Sequence[int] = (), *, sampling: Sampling | None = None
    ) -> Tensor:
        """All rows of a prompt, (positions, lanes, width). Lane 1 has the text's positions and not its tokens."""
        assert not context, "engines of this family have no continuity"
        sampling = sampling or self.family.sampling
        lanes = self.lanes(sampling)
        voice_rows, exaggeration = self.conditioning.of_voice(voice), sampling.exaggeration
        conditioning = torch.cat([voice_rows, self.conditioning.of_exaggeration(exaggeration)]).to(self.dtype)
        ids = to_device([START_TEXT, *text_tokens, STOP_TEXT], torch.int64, self.device)
        text, places = F.embedding(ids, self._text), self._text_places[: len(ids)]
        start = self.embed_speech([START_SPEECH_TOKEN] * 2, [0, 0])[:, 0]
        with_text = torch.cat([conditioning, text + places, start])
        without_text = torch.cat([conditioning, places, start])
        return torch.stack([with_text, without_text][:lanes], 1)

    def embed_speech(self, tokens: Sequence[int], places: Sequence[int] | None = None) -> Tensor:
        """n speech tokens, marks included, at their places (1 for the first that is drawn) -> (n, 1, width)."""
        places = range(1, len(tokens) + 1) if places is None else places
        ids = to_device([list(tokens), list(places)], torch.int64, self.device)
        rows = F.embedding(ids.select(0, 0), self._speech) + F.embedding(ids.select(0, 1), self._speech_places)
        return rows.unsqueeze(1)

    def forward(self, embeddings: Tensor, spans: Sequence[Span[Any]]) -> Tensor:
        """As Net.forward: embeddings (..., width), each position's lanes one after the other -> (R, width) before the
        final norm. Slots are LaneSlots. Rotary positions are added here."""
        x = embeddings.reshape(-1, embeddings.shape[-1])
        rows, padding = len(x), max(0, self._min_rows - len(x))
        cos, sin = self._rotation(self._cos, spans), self._rotation(self._sin, spans)
        shared = _Rows(spans, cos, sin, self.device, self.dtype)
        if padding:
            x = torch.cat([x, x.new_zeros(padding, x.shape[1])])
        for block in self._blocks:
            x = block(x, shared, padding)
        return x[:rows]

    def _rotation(self, table: Tensor, spans: Sequence[Span[Any]]) -> Tensor:
        parts = [table[span.start : span.start + span.rows].repeat_interleave(span.slot.lanes, dim=0) for span in spans]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def speech_logits(self, hidden: Tensor) -> Tensor:
        """Rows of `forward`'s result (n, width) -> (n, 8194) float32."""
        return self._head(self._norm(hidden)).float()

    def guided_logits(self, hidden: Tensor, without_text: Tensor, weights: Tensor) -> Tensor:
        """Rows with and without text (n, width), weights (n, 1) -> (n, 8194): with + weight x (with - without).

        The head has no bias, so it is run once, behind the guidance.
        """
        with_text, without = self._norm(hidden).float(), self._norm(without_text).float()
        guided = with_text + weights * (with_text - without)
        return self._head(guided.to(self.dtype)).float()


def _load(path: Path, expected: dict[str, Shape], prefix: str, loras: Sequence[Lora]) -> dict[str, Tensor]:
    tensors = load_tensors(path, expected, prefix=prefix)
    for lora in loras:
        lora.merge(tensors, prefix)
    return tensors
