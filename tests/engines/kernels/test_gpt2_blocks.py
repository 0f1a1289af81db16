"""GPT-2's blocks in one call are to the bit what they are kernel by kernel, and what they leave behind is the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from engines.kernels.dense import WeightFormat, fp16_supported
from engines.kernels.gpt2_blocks import computable
from engines.kernels.library import simd_widths
from engines.model_spec import TINY
from engines.t3.kv_cache import KvSlot
from engines.t3.model import T3Net
from engines.t3.net import Span
from tests.engines.t3.setting import CPU, checkpoint

FORMATS: list[WeightFormat] = ["float32", "float16", "int8"] if fp16_supported() else ["float32"]
pytestmark = pytest.mark.skipif(not simd_widths(), reason="the kernels are not compiled here")


class Queries:
    """A tap that keeps what it is given."""

    constrains = False

    def __init__(self) -> None:
        self.taken: list[tuple[int, Tensor, int]] = []

    def take(self, layer: int, queries: Tensor, positions: int) -> None:
        self.taken.append((layer, queries.clone(), positions))


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def slots_of(net: T3Net, lengths: Sequence[int]) -> list[KvSlot]:
    """Slots behind so many speech tokens each; all but the first begin with a prefix that they share."""
    slots, prefix = [], None
    for seed, length in enumerate(lengths):
        slot = net.new_slot(length + 8)
        slot.reserve(length + 8)
        tokens = torch.randint(0, 6000, (length,), generator=torch.Generator().manual_seed(9)).tolist()
        net.forward(net.embed_speech(tokens), [Span(slot, 0, length)])
        if prefix is None:
            prefix = slot.copy_out(5)
        if seed:
            slot.prefix = prefix
        slots.append(slot)
    return slots


@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("lengths", [[7], [20, 6, 33], [9] * 17])
def test_one_call_gives_the_same(weights: WeightFormat, lengths: list[int]) -> None:
    net = T3Net.load(checkpoint().t3_path, TINY, CPU, weights=weights)
    assert net._step_blocks is not None
    results = []
    for blocks in (net._step_blocks, None):
        net._step_blocks = blocks
        slots, taps = slots_of(net, lengths), [Queries() for _ in lengths]
        spans = [
            Span(slot, length, 1, tap=tap if row != 1 else None)
            for row, (slot, length, tap) in enumerate(zip(slots, lengths, taps, strict=True))
        ]
        hidden = net.forward(net.embed_speech(list(range(len(lengths)))), spans)
        written = [slot.keys(3, 0, length + 1) for slot, length in zip(slots, lengths, strict=True)]
        results.append((hidden, written, [tap.taken for tap in taps]))
    (fast, fast_keys, fast_taken), (slow, slow_keys, slow_taken) = results
    assert torch.equal(fast, slow)
    assert all(torch.equal(a, b) for a, b in zip(fast_keys, slow_keys, strict=True))
    for one, other in zip(fast_taken, slow_taken, strict=True):
        assert [(layer, positions) for layer, _, positions in one] == [(at, positions) for at, _, positions in other]
        assert all(torch.equal(a, b) for (_, a, _), (_, b, _) in zip(one, other, strict=True))
    assert [len(taken) for taken in fast_taken[:2]] == [TINY.t3.layers, 0][: len(lengths)]


def test_on_another_number_of_threads_they_are_called_one_by_one() -> None:
    """The attention's memory is for as many threads as torch has when a step begins."""
    net = T3Net.load(checkpoint().t3_path, TINY, CPU)
    (slot,) = slots_of(net, [12])
    before, threads = net.forward(net.embed_speech([1]), [Span(slot, 12, 1)]), torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        after = net.forward(net.embed_speech([1]), [Span(slot, 12, 1)])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(before, after)


def test_layers_with_unused_columns_are_called_one_by_one() -> None:
    block = T3Net.load(checkpoint().t3_path, TINY, CPU)._blocks[0].compiled()
    assert block is not None
    assert computable([block])
    block.narrow.width += 4
    assert not computable([block])
