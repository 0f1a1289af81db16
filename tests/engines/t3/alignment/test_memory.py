"""What the net that reads words takes is what its tensors and its segments' caches have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engines.checkpoints.checkpoint import EMBEDDED, Checkpoint
from engines.model_spec import TINY, TURBO
from engines.t3.alignment import memory
from engines.t3.alignment.pages import PagedSlot
from engines.t3.alignment.setup import Alignment
from engines.t3.alignment.tap import AlignmentHeads
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


def test_what_is_kept_has_room_for_the_longest_sequence_behind_its_voice():
    least = memory.kept_bytes(TURBO.t3, 24, 2048, at_most=0)
    voice = PagedSlot(TURBO.t3, META, torch.float16)
    voice.reserve(376)
    segment = PagedSlot(TURBO.t3, META, torch.float16, voice, 376 - 50)
    segment.reserve(2048)
    assert voice.nbytes + segment.nbytes <= least <= voice.nbytes + segment.nbytes + 12 * voice.page_bytes
    assert memory.kept_bytes(TURBO.t3, 24, 2048) == memory.KEPT_BYTES > least
    assert memory.kept_bytes(TURBO.t3, 24, 8000) > memory.KEPT_BYTES, "never less than a sequence needs"


def test_the_layers_that_the_heads_need_are_counted_and_none_without_heads():
    def load(_: int) -> T3Net:
        raise AssertionError("counting loads nothing")

    spec, heads = TURBO.t3, AlignmentHeads(((2, 1), (5, 0)))
    own, lent = (Alignment(heads, "", load).beside_bytes(spec, 2048, lent=lent) for lent in (False, True))
    assert own == memory.words_bytes(spec, 6, 2048, lent=False)
    assert own - lent == memory.net_bytes(spec, 6)
    assert lent == memory.made_bytes(spec) + memory.KEPT_BYTES + memory.pass_bytes(spec, 2048)
    assert Alignment(None, "off", load).beside_bytes(spec, 2048, lent=True) == 0
