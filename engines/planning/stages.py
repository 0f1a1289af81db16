"""The operations of T3's and S3Gen's calls, from the nets themselves at full size on the meta device."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import prod

import torch
from torch import Tensor, nn

from engines.model_spec import (
    MAX_S3GEN_PROMPT_TOKENS,
    MAX_T3_PROMPT_TOKENS,
    MEL_FRAMES_PER_TOKEN,
    FlowSpec,
    ModelSpec,
    VocoderSpec,
)
from engines.planning.operations import Operations, count, mixed
from engines.s3gen.export.graphs import CFM_STEP, ENCODER, VOCODER, EulerStep
from engines.s3gen.gpu.buckets import on_grid
from engines.s3gen.nets.cfm import Estimator
from engines.s3gen.nets.encoder import TokenEncoder
from engines.s3gen.nets.vocoder import Vocoder
from engines.s3gen.streaming.schedule import Schedule, ScheduleStep
from engines.s3gen.streaming.vocoder_stream import VOCODER_CONTEXT_FRAMES
from engines.t3.kv_cache import KvSlot
from engines.t3.llama.lanes import LaneSlot
from engines.t3.load import net_without_weights
from engines.t3.net import Span

META = torch.device("meta")
_DTYPES = {"float32": torch.float32, "int64": torch.int64}
PROMPT_TOKENS = MAX_S3GEN_PROMPT_TOKENS
PREFIX_POSITIONS = 1 + MAX_T3_PROMPT_TOKENS
_FEW_ROWS = 2  # torch multiplies a single row by other operations
_LENGTHS = (32, 48, 64)


@dataclass(frozen=True)
class Window:
    """The size of an S3Gen call in one row: tokens of the flow, prompt included, and mel frames of the vocoder."""

    tokens: int
    frames: int

    @classmethod
    def first(cls, schedule: Schedule) -> Window:
        """A segment's first window."""
        step = schedule.step(0)
        return cls(PROMPT_TOKENS + step.block_tokens, _new_and_right_frames(step))

    @classmethod
    def later(cls, schedule: Schedule, step: ScheduleStep) -> Window:
        """A window in the middle of a segment."""
        tokens = PROMPT_TOKENS + schedule.left_context_tokens + step.block_tokens
        return cls(tokens, VOCODER_CONTEXT_FRAMES + _new_and_right_frames(step))

    def on_grid(self) -> Window:
        """The sizes that a GPU computes."""
        return Window(on_grid(ENCODER, 1, self.tokens)[1], on_grid(VOCODER, 1, self.frames)[1])


def _new_and_right_frames(step: ScheduleStep) -> int:
    right = min(VOCODER_CONTEXT_FRAMES, MEL_FRAMES_PER_TOKEN * step.lookahead_tokens)
    return MEL_FRAMES_PER_TOKEN * step.hop_tokens + right


def s3gen_operations(spec: ModelSpec, stage: str, rows: int, length: int, dtype: torch.dtype) -> Operations:
    """One call of "encoder", "cfm" with all Euler steps, or "vocoder", padded as a GPU computes it.

    `length` is in tokens; in mel frames for the vocoder, whose f0, source and Fourier transform stay in float32.
    """
    if rows < _FEW_ROWS:
        return _of_length(spec, stage, rows, length, dtype)
    # for more than one row, each operation is a constant and a part in proportion to the rows
    few, more = (_of_length(spec, stage, count, length, dtype) for count in (_FEW_ROWS, _FEW_ROWS + 1))
    share = (1 - (rows - _FEW_ROWS), rows - _FEW_ROWS)
    return tuple(mixed(pair, share) for pair in zip(few, more, strict=True))


@lru_cache(maxsize=512)
def _of_length(spec: ModelSpec, stage: str, rows: int, length: int, dtype: torch.dtype) -> Operations:
    """Each operation is a polynomial of the length, of second degree for attention's sake; three walks determine it."""
    part: FlowSpec | VocoderSpec = spec.vocoder if stage == "vocoder" else spec.flow
    walks = [walked(part, stage, rows, at, dtype) for at in _LENGTHS]
    shares = [
        prod((Fraction(length - other, at - other) for other in _LENGTHS if other != at), start=Fraction(1))
        for at in _LENGTHS
    ]
    return tuple(mixed(three, shares) for three in zip(*walks, strict=True))


@lru_cache(maxsize=64)
def walked(part: FlowSpec | VocoderSpec, stage: str, rows: int, length: int, dtype: torch.dtype) -> Operations:
    """The operations of `s3gen_operations`, by running the net on tensors without numbers."""
    graph, times = {"encoder": ENCODER, "cfm": CFM_STEP, "vocoder": VOCODER}[stage], 1
    with META:
        if isinstance(part, VocoderSpec):
            net: nn.Module = Vocoder(part).to(META).eval().to_filter_dtype(dtype)
        elif stage == "encoder":
            net = TokenEncoder(part).eval().to(dtype)
        else:
            net, times = EulerStep(Estimator(part)).eval().to(dtype), part.steps
    sizes = graph.sizes(rows, length * MEL_FRAMES_PER_TOKEN if graph is CFM_STEP else length)
    arguments = [torch.empty(port.shape(sizes), dtype=_DTYPES[port.dtype], device=META) for port in graph.inputs]
    return count(lambda: net(*arguments), arguments) * times


@lru_cache(maxsize=64)
def t3_operations(spec: ModelSpec, rows: int, start: int, streams: int = 1) -> Operations:
    """T3 in float32 reading `rows` positions of each stream behind `start`, and the logits of each stream's last.

    With guidance, where the model has it.
    """
    net, lanes = net_without_weights(spec), 1
    slots: list[KvSlot] = [net.new_slot(start + rows) for _ in range(streams)]
    for slot in slots:
        if isinstance(slot, LaneSlot):
            slot.use_lanes(lanes := 2)
        slot.reserve(start + rows)
    hidden = torch.empty((rows * streams * lanes, spec.t3.width), device=META)
    spans = [Span(slot, start, rows) for slot in slots]

    def call() -> Tensor:
        return net.speech_logits(net.forward(hidden, spans)[:streams])

    return count(call, [hidden, *(slot.memory for slot in slots)])
