"""What the net that reads words takes is what its tensors and its segments' caches have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engines.checkpoints.checkpoint import EMBEDDED, Checkpoint
from engines.model_spec import TINY, TURBO
from engines.t3.alignment import memory
from engines.t3.alignment.setup import Alignment
from engines.t3.alignment.tap import AlignmentHeads
from engines.t3.kv_cache import KvSlot
from engines.t3.load import load_net
from engines.t3.model import T3Net

META = torch.device("meta")


def tensors_of(thing: Any) -> dict[int, Tensor]:
    """All tensors that an object holds, by identity."""
    if isinstance(thing, Tensor):
        return {id(thing): thing}
    parts = thing if isinstance(thing, (list, tuple)) else vars(thing).values() if hasattr(thing, "__dict__") else ()
    found: dict[int, Tensor] = {}
    for part in parts:
        found |= tensors_of(part)
    return found


@pytest.mark.parametrize("layers", [1, 3])
def test_the_nets_weights_are_counted(layers: int):
    net = load_net(Checkpoint(EMBEDDED, TINY), META, dtype=torch.float16, layers=layers)
    assert isinstance(net, T3Net)
    net._idle_rows = torch.empty(0, device=META)  # one row of padding is not counted
    assert sum(tensor.nbytes for tensor in tensors_of(net).values()) == memory.net_bytes(TINY.t3, layers)


def test_a_segments_cache_is_counted():
    slot = KvSlot(TURBO.t3, 2048, META, torch.float16)
    slot.reserve(700)
    assert slot.memory.nbytes == memory.segment_bytes(TURBO.t3, 24, 768)


def test_the_layers_that_the_heads_need_are_counted_and_none_without_heads():
    def load(_: int) -> T3Net:
        raise AssertionError("counting loads nothing")

    heads = AlignmentHeads(((2, 1), (5, 0)))
    assert Alignment(heads, "", load).beside_bytes(TURBO.t3) == memory.words_bytes(TURBO.t3, 6)
    assert memory.words_bytes(TURBO.t3, 6) == memory.net_bytes(TURBO.t3, 6) + memory.PREFIX_BYTES
    assert Alignment(None, "off", load).beside_bytes(TURBO.t3) == 0
