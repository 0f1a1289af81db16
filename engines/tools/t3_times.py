"""T3's prefill and decode step as calls that can be timed or profiled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from engines.checkpoints.checkpoint import Checkpoint
from engines.model_spec import SPEECH_CODES
from engines.t3.kv_cache import KvSlot
from engines.t3.load import TorchNet, load_net
from engines.t3.net import Span

PREFILL_POSITIONS, STEP_POSITIONS = 417, 500
_CHUNK = 64  # the backends' prefill chunk on a CPU


def load_t3_calls(checkpoint: Checkpoint, device: str) -> dict[str, Callable[[], torch.Tensor]]:
    """`t3_calls` of the torch net. Raises CheckpointError if the weights do not fit."""
    return t3_calls(load_net(checkpoint, device))


def t3_calls(net: TorchNet, *, step_positions: int = STEP_POSITIONS) -> dict[str, Callable[[], torch.Tensor]]:
    """Calls named `prefill` (a full voice prompt and some text) and `step` (at `step_positions`).

    Each returns the logits of the last row. Without guidance, where the model has it.
    """
    max_positions = max(step_positions + 1, PREFILL_POSITIONS)
    slot = net.new_slot(max_positions)
    slot.reserve(max_positions)
    slot.memory.zero_()
    speech_tokens = np.random.default_rng(0).integers(0, SPEECH_CODES, PREFILL_POSITIONS).tolist()
    return {
        "prefill": lambda: _read(net, slot, speech_tokens, 0),
        "step": lambda: _read(net, slot, speech_tokens[:1], step_positions),
    }


@torch.inference_mode()
def _read(net: TorchNet, slot: KvSlot, speech_tokens: list[int], start: int) -> torch.Tensor:
    for first in range(0, len(speech_tokens), _CHUNK):
        chunk = speech_tokens[first : first + _CHUNK]
        hidden = net.forward(net.embed_speech(chunk), [Span(slot, start + first, len(chunk))])
    return net.speech_logits(hidden[-1:]).cpu()
