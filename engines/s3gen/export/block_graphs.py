"""Cached decoding as graphs: the flow's encoder and one Euler step over a block, with the state before it as inputs.

Keys and values go in per layer and in two parts, the voice's prompt and the stream's context, so that the prompt is one
piece of memory for all streams of a voice; the block's own come out. Within a call all contexts are equally long,
prompts are padded on the left and blocks on the right: then relative positions are the same in every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engines.checkpoints.checkpoint import Checkpoint
from engines.model_spec import MEL_BANDS, MEL_FRAMES_PER_TOKEN, X_VECTOR_DIM, FlowSpec
from engines.s3gen.cache.cached_flow import block_velocity, encode_block
from engines.s3gen.cache.conv import CFM_TAIL_FRAMES, LOOKAHEAD_TAIL_TOKENS, UP_TAIL_FRAMES, StreamingConv, cfm_widths
from engines.s3gen.export.graphs import Graph, Port
from engines.s3gen.nets.cfm import Estimator, twice
from engines.s3gen.nets.encoder import TokenEncoder
from engines.s3gen.nets.flow import load_flow
from engines.s3gen.nets.layers import key_bias, mask_frames

ENCODER_BLOCK, CFM_BLOCK = "encoder_block", "cfm_block"
BLOCK_GRAPHS = (ENCODER_BLOCK, CFM_BLOCK)
_PARTS = ("prompt_keys", "prompt_values", "context_keys", "context_values")
_OWN = ("keys", "values")
_MEL = ("batch", "frames", MEL_BANDS)
_PROMPT_LENGTHS = Port("prompt_lengths", ("batch",), "int64")


def block_graphs(spec: FlowSpec) -> dict[str, Graph]:
    """Both graphs. Keys and values are (batch, heads, n, head width); see `part_name` and `own_name`.

    With guidance the CFM's keys, values and tails are (rows, ...): all conditional lanes, then all unconditional ones.
    """
    return {graph.name: graph for graph in (_encoder_graph(spec), _cfm_graph(spec))}


def part_name(part: str, layer: int) -> str:
    """An input: `part` is prompt_keys, prompt_values, context_keys or context_values."""
    return f"{part}_{layer}"


def own_name(kind: str, layer: int) -> str:
    """An output: the block's own keys or values."""
    return f"{kind}_{layer}"


def positions_name(layer: int) -> str:
    """An input: a layer's projected relative positions, (heads, head width, any even number >= 2 x all keys)."""
    return f"positions_{layer}"


def _encoder_graph(spec: FlowSpec) -> Graph:
    head = spec.width // spec.heads
    units = ["tokens"] * spec.encoder_layers + ["frames"] * spec.up_layers
    tails = (
        Port("token_tails", ("batch", LOOKAHEAD_TAIL_TOKENS, spec.width)),
        Port("frame_tails", ("batch", UP_TAIL_FRAMES, spec.width)),
    )
    positions = [
        Port(positions_name(layer), (spec.heads, head, f"position_{unit}")) for layer, unit in enumerate(units)
    ]
    inputs = (
        Port("tokens", ("batch", "tokens"), "int64"),
        Port("token_lengths", ("batch",), "int64"),
        _PROMPT_LENGTHS,
        Port("new_tokens", ("batch",), "int64"),
        Port("x_vector", ("batch", X_VECTOR_DIM)),
        *tails,
        *positions,
        *_cached_ports(units, spec.heads, head),
    )
    outputs = (
        Port("mu", _MEL),
        Port("speaker", ("batch", MEL_BANDS)),
        *(Port(f"next_{port.name}", port.axes) for port in tails),
        *_own_ports(units, spec.heads, head),
    )
    return Graph(ENCODER_BLOCK, inputs, outputs, "token_lengths", "tokens", (_PROMPT_LENGTHS.name,))


def _cfm_graph(spec: FlowSpec) -> Graph:
    units, rows = ["frames"] * ((spec.mid_stages + 2) * spec.blocks_per_stage), "rows" if spec.lanes > 1 else "batch"
    tails = Port("tails", (rows, CFM_TAIL_FRAMES, sum(cfm_widths(spec))))
    inputs = (
        Port("x", _MEL),
        Port("mu", _MEL),
        Port("speaker", ("batch", MEL_BANDS)),
        Port("prompt_mel", _MEL),
        Port("lengths", ("batch",), "int64"),
        _PROMPT_LENGTHS,
        Port("new_frames", ("batch",), "int64"),
        Port("t", ("batch",)),
        Port("r", ("batch",)),
        tails,
        *_cached_ports(units, spec.cfm_heads, spec.cfm_head_dim, rows),
    )
    own = _own_ports(units, spec.cfm_heads, spec.cfm_head_dim, rows)
    outputs = (Port("next_x", _MEL), Port("next_tails", tails.axes), *own)
    return Graph(CFM_BLOCK, inputs, outputs, "lengths", "frames", (_PROMPT_LENGTHS.name,), spec.lanes)


def _cached_ports(units: Sequence[str], heads: int, head: int, rows: str = "batch") -> list[Port]:
    return [
        Port(part_name(part, layer), (rows, heads, f"{part.split('_')[0]}_{unit}", head))
        for layer, unit in enumerate(units)
        for part in _PARTS
    ]


def _own_ports(units: Sequence[str], heads: int, head: int, rows: str = "batch") -> list[Port]:
    return [Port(own_name(kind, layer), (rows, heads, unit, head)) for layer, unit in enumerate(units) for kind in _OWN]


def block_nets(checkpoint: Checkpoint) -> dict[str, nn.Module]:
    """The net behind each graph, by the graph's name. Raises CheckpointError."""
    flow, spec = load_flow(checkpoint.s3gen_path, checkpoint.spec), checkpoint.spec.flow
    return {ENCODER_BLOCK: EncoderBlock(flow.encoder, spec), CFM_BLOCK: CfmBlock(flow.solver.estimator, spec)}


class EncoderBlock(nn.Module):
    """`encode_block` with the arguments and results of its graph, in their order."""

    def __init__(self, encoder: TokenEncoder, spec: FlowSpec) -> None:
        super().__init__()
        self.encoder = encoder
        self._width, self._lower, self._layers = spec.width, spec.encoder_layers, spec.encoder_layers + spec.up_layers

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor | None,
        prompt_lengths: Tensor | None,
        new_tokens: Tensor,
        x_vector: Tensor,
        token_tails: Tensor,
        frame_tails: Tensor,
        *rest: Tensor,
    ) -> tuple[Tensor, ...]:
        layers = _layers_of(rest[self._layers :])
        lower = GraphKVView(layers[: self._lower], prompt_lengths)
        frames = None if prompt_lengths is None else prompt_lengths * MEL_FRAMES_PER_TOKEN
        upper = GraphKVView(layers[self._lower :], frames)
        convs = (
            StreamingConv(token_tails, [self._width], new_tokens),
            StreamingConv(frame_tails, [self._width], new_tokens * MEL_FRAMES_PER_TOKEN),
        )
        keys = lower.longest + tokens.shape[1]
        positions = [
            _middle(table, keys if layer < self._lower else keys * MEL_FRAMES_PER_TOKEN)
            for layer, table in enumerate(rest[: self._layers])
        ]
        mu = encode_block(self.encoder, tokens, lengths, positions, (lower, upper), convs)
        speaker = self.encoder.spk_embed_affine_layer(F.normalize(x_vector, dim=1))
        return mu, speaker, convs[0].state(), convs[1].state(), *lower.own, *upper.own


class CfmBlock(nn.Module):
    """One Euler step of a block with the arguments and results of its graph, in their order."""

    def __init__(self, estimator: Estimator, spec: FlowSpec) -> None:
        super().__init__()
        self.estimator = estimator
        self._widths = cfm_widths(spec)

    def forward(
        self,
        x: Tensor,
        mu: Tensor,
        speaker: Tensor,
        prompt_mel: Tensor,
        lengths: Tensor | None,
        prompt_lengths: Tensor | None,
        new_frames: Tensor,
        t: Tensor,
        r: Tensor,
        tails: Tensor,
        *cached: Tensor,
    ) -> tuple[Tensor, ...]:
        if self.estimator.guided_steps:
            prompt_lengths, new_frames = twice(prompt_lengths), twice(new_frames)
        kv = GraphKVView(_layers_of(cached), prompt_lengths)
        convs = StreamingConv(tails, self._widths, new_frames)
        velocity = block_velocity(self.estimator, (x, mu, speaker, prompt_mel), lengths, (t, r), kv, convs)
        next_x = mask_frames(x + (r - t)[:, None, None] * velocity, lengths)
        return next_x, convs.state(), *kv.own


_Layer = tuple[Tensor, Tensor, Tensor, Tensor]  # as _PARTS


def _layers_of(tensors: Sequence[Tensor]) -> list[_Layer]:
    size = len(_PARTS)
    return [cast(_Layer, tuple(tensors[first : first + size])) for first in range(0, len(tensors), size)]


def _middle(table: Tensor, keys: int) -> Tensor:
    """The positions of `keys` keys out of a table for more; see encoder.PositionCache."""
    start = table.shape[-1] // 2 - keys
    return table[..., start : start + 2 * keys]


class GraphKVView:
    """A KVView of one piece of prompt and one of context per layer, each (B, heads, n, head width)."""

    def __init__(self, layers: Sequence[_Layer], prompt_lengths: Tensor | None) -> None:
        """`prompt_lengths` (B,), or None if all prompts are full."""
        self.own: list[Tensor] = []  # the block's keys and values, layer by layer
        self._layers, self._prompt_lengths = iter(layers), prompt_lengths
        prompt, _, context, _ = layers[0]
        self._prompt, self._context = prompt.shape[2], context.shape[2]

    @property
    def longest(self) -> int:
        return self._prompt + self._context

    def extend(self, keys: Tensor, values: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """As KVView.extend."""
        own = [x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (keys, values)]
        self.own += own
        prompt_keys, prompt_values, context_keys, context_values = next(self._layers)
        return (
            torch.cat([prompt_keys, context_keys, own[0]], dim=2),
            torch.cat([prompt_values, context_values, own[1]], dim=2),
        )

    def bias(self, block_lengths: Tensor | None, frames: int, dtype: torch.dtype) -> Tensor | None:
        """As KVView.bias."""
        prompt = key_bias(self._prompt_lengths, self._prompt, dtype)
        own = key_bias(block_lengths, frames, dtype)
        if prompt is None or own is None:
            return None
        context = prompt.new_zeros(prompt.shape[0], 1, 1, self._context)
        return torch.cat([prompt.flip(-1), context, own], dim=-1)
